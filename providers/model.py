"""The model of a provider: its URL, timeouts, retry policy and limits."""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from providers.retry_policy import RetryPolicy
from specs.schemas import url_fault


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

# Characters: a shorter word is no secret, and stands in many texts.
_SECRET = 8
_BETWEEN_WORDS = re.compile(r"[\s,;=&]+")


class Section(BaseModel):
    """A mapping in the providers' file, which has no other members than its own."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class BreakerPolicy(Section):
    """After that many failures in a row, over all workers, a provider is left alone for `open_seconds`."""

    failures: int = Field(20, ge=1)
    open_seconds: float = Field(30, gt=0, le=86_400)


class Provider(Section):
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


Providers = Mapping[str, Provider]
