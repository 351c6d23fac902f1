"""Reads the providers' file: YAML with an entry for each provider and references to environment variables."""

import re
from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from providers.model import Provider, ProviderName, Providers, Section

_REFERENCE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


class ProvidersError(Exception):
    """The providers' file is missing or wrong; the message is one line that says what to do."""


class _Unset(Exception):
    """The environment lacks a variable that the file refers to."""


class _File(Section):
    providers: dict[ProviderName, Provider] = Field(min_length=1)


def load_providers(path: Path, environment: Mapping[str, str]) -> Providers:
    """Returns the providers of a file; `${NAME}` and `${NAME:-default}` in it stand for environment variables.

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
        # The error's own text shows the surrounding lines, which may hold a secret.
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
    """Returns the parsed YAML with its references replaced; a value cannot add YAML, because parsing came first."""
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
