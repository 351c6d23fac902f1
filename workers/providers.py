"""The providers: known by name from a YAML file, each with its URL, timeouts, retry policy and limits."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from specs.schemas import url_fault
from workers.backoff import RetryPolicy


def _deliverable(url: str) -> str:
    # It stands in every result: what the receiver's schema refuses would cost the results of a whole request.
    if fault := url_fault(url):
        raise ValueError(fault)
    return url


Url = Annotated[str, AfterValidator(_deliverable)]
ProviderName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
# No space around it (RFC 9110, 5.5): `requests` would refuse it, and its error shows the value.
HeaderValue = Annotated[str, Field(pattern=r"^([\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?)?$")]
Timeout = Annotated[float, Field(gt=0, le=3600)]

_REFERENCE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
# Characters: a shorter word is no secret, and stands in many texts.
_SECRET = 8
_BETWEEN_WORDS = re.compile(r"[\s,;=&]+")


class ProvidersError(Exception):
    """The providers' file is missing or wrong; the message is one line a person can act on."""


class _Unset(Exception):
    """A variable that the file refers to is not in the environment."""


class _Section(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class BreakerPolicy(_Section):
    """After that many failures in a row, over all workers, a provider is left alone for `open_seconds`."""

    failures: int = Field(20, ge=1)
    open_seconds: float = Field(30, gt=0, le=86_400)


class Provider(_Section):
    """How one provider is asked. Times are seconds; `concurrency` counts over all worker processes."""

    url: Url = Field(repr=False)
    connect_timeout: Timeout = 3.05
    read_timeout: Timeout = 30
    total_timeout: Timeout = 60
    retry: RetryPolicy = RetryPolicy()
    concurrency: int = Field(50, ge=1, le=10_000)
    breaker: BreakerPolicy = BreakerPolicy()
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict, repr=False)

    @property
    def shown_url(self) -> str:
        """Where it is, for those who ask: the query may hold a key."""
        return self.url.partition("?")[0]

    def without_secrets(self, text: bytes) -> bytes:
        """A text without what this provider is told by headers and query, which it may send back.

        Of each of these the whole goes, and every word of it; what is short is no secret.
        """
        told = [*self.headers.values(), self.url.partition("?")[2]]
        words = {word for value in told for word in (value, *_BETWEEN_WORDS.split(value)) if len(word) >= _SECRET}
        for word in sorted(words, key=len, reverse=True):
            text = text.replace(word.encode(), b"***")
        return text


class _File(_Section):
    providers: dict[ProviderName, Provider] = Field(min_length=1)


Providers = Mapping[str, Provider]


def load_providers(path: Path, environment: Mapping[str, str]) -> Providers:
    """The providers of a file; `${NAME}` and `${NAME:-default}` in it stand for environment variables.

    Raises ProvidersError.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = _resolve(yaml.safe_load(text), environment)
        return _File.model_validate(document).providers
    except _Unset as error:
        raise ProvidersError(f"{path}: {error}") from None
    except OSError as error:
        raise ProvidersError(f"{path}: {error.strerror} (DATAHOG_PROVIDERS_FILE names it)") from None
    except yaml.MarkedYAMLError as error:
        # Its own text would show the lines around, which may hold a secret.
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ProvidersError(f"{path}: {place}not YAML: {error.problem}") from None
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        said = first["msg"].partition(" or instance of ")[0].removeprefix("Value error, ")
        raise ProvidersError(f"{path}: {place}: {said}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ProvidersError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def _resolve(value: object, environment: Mapping[str, str], place: tuple[str, ...] = ()) -> object:
    """The YAML value with references to the environment replaced; done after parsing, so values cannot add YAML."""
    if isinstance(value, dict):
        return {name: _resolve(item, environment, (*place, str(name))) for name, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, environment, place) for item in value]
    if not isinstance(value, str):
        return value

    def replacement(match: re.Match[str]) -> str:
        name, default = match.groups()
        if default is None and name not in environment:
            raise _Unset(f"{'.'.join(place)}: the environment variable {name} is not set")
        return environment.get(name) or default or ""

    return _REFERENCE.sub(replacement, value)
