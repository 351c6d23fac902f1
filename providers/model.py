"""The model of a provider: URL, timeouts, retry policy, limits, and the redaction of its secrets."""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from providers.retry_policy import RetryPolicy
from specs.schemas import url_fault


def _deliverable(url: str) -> str:
    # Each result contains the URL: a URL that the receiver's schema refuses would make it refuse the whole callback.
    if fault := url_fault(url):
        raise ValueError(fault)
    return url


Url = Annotated[str, AfterValidator(_deliverable)]
ProviderName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
# A value has no space around it (RFC 9110, 5.5): `requests` refuses such a value with an error that shows it.
HeaderValue = Annotated[str, Field(pattern=r"^([\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?)?$")]
Timeout = Annotated[float, Field(gt=0, le=3600)]

# Characters. A shorter word is not redacted: it is unlikely to be a secret, and common in texts.
_SHORTEST = 8
_BETWEEN_WORDS = re.compile(r"[\s,;=&]+")


class Section(BaseModel):
    """A mapping in the providers' file; unknown members are errors."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class BreakerPolicy(Section):
    """The circuit breaker opens for `open_seconds` after `failures` failures in a row over all workers."""

    failures: int = Field(20, ge=1)
    open_seconds: float = Field(30, gt=0, le=86_400)


class Provider(Section):
    """How one provider is fetched. Times are in seconds; `concurrency` is the number of permits over all workers."""

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
        """The public URL: the URL without its query, which may hold a key."""
        return self.url.partition("?")[0]

    def without_secrets(self, text: bytes) -> bytes:
        """Returns the text with the values of this provider's headers and query redacted, which a response may repeat.

        Replaces each header value, the query, and each word of them by `***`; words under 8 characters stay.
        """
        secrets = [*self.headers.values(), self.url.partition("?")[2]]
        words = {word for value in secrets for word in (value, *_BETWEEN_WORDS.split(value)) if len(word) >= _SHORTEST}
        for word in sorted(words, key=len, reverse=True):
            text = text.replace(word.encode(), b"***")
        return text


Providers = Mapping[str, Provider]
