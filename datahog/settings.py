"""Settings: each `DATAHOG_*` environment variable with its default, its check and its error."""

import base64
import ipaddress
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

import specs
from datahog.urls import HttpUrl, Origin, RedisUrl
from outbound import egress_policy
from persistence import api_keys

PREFIX = "DATAHOG_"

Port = Annotated[int, Field(ge=1, le=65535)]
# Seconds. The documents allow deadlines of up to 30 days.
Deadline = Annotated[float, Field(gt=0, le=2_592_000)]
# At most ten years, so that adding it to a time does not overflow.
Seconds = Annotated[float, Field(gt=0, le=315_360_000)]


def _ports(text: str) -> str:
    egress_policy.port_ranges(text)
    return text


ApiKey = Annotated[str, Field(pattern=api_keys.PATTERN)]

_SECRET = re.compile(r"whsec_([A-Za-z0-9+/]+)={0,2}")
# An error must not show the value of these settings: it may contain a password.
_HIDDEN = ("webhook_secrets", "redis_url", "api_key", "aggregator_key", "local_key")


class SettingsError(Exception):
    """A setting is missing or wrong; the message is one line that says what to do."""


class Settings(BaseModel):
    """One attribute for each environment variable `DATAHOG_<NAME>`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dynamodb_endpoint_url: HttpUrl | None = Field(
        None, description="URL of DynamoDB; unset means AWS, with its usual credentials and region"
    )
    table_prefix: str = Field(
        "datahog", pattern=r"^[A-Za-z0-9_.-]{1,200}$", description="first part of the names of the tables"
    )
    index_shards: int = Field(
        128, ge=1, le=1000, description="partitions over which each table's index spreads the open records"
    )
    redis_url: RedisUrl = Field(
        "redis://127.0.0.1:6379/0", repr=False, description="URL of Redis (7 or newer) or Valkey"
    )

    host: str = Field("127.0.0.1", min_length=1, description="address that the HTTP servers bind to")
    client_port: Port = Field(3100, description="port of the client API")
    aggregator_port: Port = Field(3200, description="port of the aggregator API")
    simulator_port: Port = Field(3000, description="port of the provider simulator")
    viewer_port: Port = Field(8080, description="port of the spec viewer")
    dynamodb_port: Port = Field(3300, description="port of the embedded DynamoDB (`run` only)")
    redis_port: Port = Field(3400, description="port of the embedded Redis-compatible server (`run` only)")

    client_url: HttpUrl = Field(
        "http://127.0.0.1:3100", description="URL at which the aggregator's workers reach the client (callbacks)"
    )
    aggregator_url: HttpUrl = Field(
        "http://127.0.0.1:3200", description="URL at which the client and its workers reach the aggregator"
    )
    viewer_origin: Origin | None = Field(
        None, description="browser origin that may call both APIs (CORS); unset allows none"
    )

    providers_file: Path = Field(
        Path("providers.yaml"), description="file of the providers: URLs, timeouts, retry policies"
    )
    webhook_secrets: tuple[str, ...] = Field(
        (),
        repr=False,
        description="comma-separated `whsec_...` secrets; each signs callbacks, and any one verifies them",
    )

    api_key: ApiKey | None = Field(None, repr=False, description="API key that `call` uses")
    aggregator_key: ApiKey | None = Field(
        None, repr=False, description="API key with which the client and its workers call the aggregator"
    )
    local_key: ApiKey | None = Field(
        None, repr=False, description="API key with all scopes, for this machine only; `run` and `demo` create one"
    )

    rate_limit: int = Field(
        100, ge=1, le=1_000_000, description="calls per second of one API key to each API, averaged over ten seconds"
    )
    open_requests: int = Field(
        10_000, ge=1, le=1_000_000, description="open requests that one tenant may have at each API"
    )

    request_deadline: Deadline = Field(259_200, description="seconds until the deadline of a request that names none")
    retention: Seconds = Field(604_800, description="seconds for which an ended request is kept")
    result_limit: int = Field(
        5_242_880, ge=1, le=5_242_880, description="largest result of one provider in bytes; a larger one fails its job"
    )
    delivery_schedule: tuple[float, ...] = Field(
        (0, 5, 300, 1800, 7200, 18000, 36000, 36000),
        description="seconds before each attempt to deliver a result, comma-separated",
    )
    delivery_timeout: Seconds = Field(
        15, description="seconds in which a receiver must respond, plus one for each megabyte of the result"
    )
    outbound_networks: tuple[egress_policy.Network, ...] = Field(
        (),
        description="comma-separated networks, besides the public internet, that providers and callbacks may be in",
    )
    outbound_ports: Annotated[str, AfterValidator(_ports)] = Field(
        egress_policy.PORTS, description="ports that providers and callbacks may use"
    )

    worker_concurrency: int = Field(500, ge=1, le=10_000, description="jobs that one worker process runs at once")
    worker_processes: int | None = Field(
        None, ge=1, le=1000, description="processes that `worker` runs; unset means one for each CPU that it may use"
    )
    worker_grace: Seconds = Field(20, description="seconds that running jobs have to finish when a worker stops")
    worker_lease: Annotated[float, Field(ge=1, le=3600)] = Field(
        20, description="seconds without a heartbeat after which the jobs of a worker go to others"
    )
    reconciler_period: Seconds = Field(5, description="seconds between two scans of the reconciler")
    heal_after: Seconds = Field(10, description="seconds that a step may be late before it counts as lost")

    simulator_failure_rate: float = Field(0.5, ge=0, le=1, description="share of simulated responses that fail, 0 to 1")
    simulator_latency: float = Field(0.2, ge=0, le=3600, description="seconds that a simulated response takes")
    simulator_seed: int | None = Field(None, description="seed of the simulated failures; unset means random")

    data_dir: Path = Field(Path(".datahog"), description="directory in which `run` keeps its data")
    log_level: str = Field(
        "INFO",
        pattern=r"^(DEBUG|INFO|WARNING|ERROR)$",
        description="lowest level that is logged: DEBUG, INFO, WARNING or ERROR",
    )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach a server that binds to `host`."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def api_urls(self) -> Mapping[str, str]:
        """The URL of each API, by the name of its document."""
        return {specs.CLIENT: self.client_url, specs.AGGREGATOR: self.aggregator_url}

    @field_validator("webhook_secrets", mode="before")
    @classmethod
    def _split_secrets(cls, value: Any) -> Any:
        secrets = tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
        if not all(24 <= _key_length(secret) <= 64 for secret in secrets):
            raise ValueError("each secret must be whsec_ followed by the base64 of 24 to 64 random bytes")
        return secrets

    @field_validator("outbound_networks", mode="before")
    @classmethod
    def _split_networks(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return tuple(ipaddress.ip_network(part.strip()) for part in value.split(",") if part.strip())
        except ValueError as error:
            raise ValueError(
                f"each network must be an address and a prefix length, such as 10.0.0.0/8: {error}"
            ) from None

    @field_validator("delivery_schedule", mode="before")
    @classmethod
    def _split_schedule(cls, value: Any) -> Any:
        return tuple(value.split(",")) if isinstance(value, str) else value

    @field_validator("delivery_schedule")
    @classmethod
    def _check_schedule(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        # Results are kept for as long as the schedule takes, so it must be finite.
        if not value or min(value) < 0 or not sum(value) <= 604_800:
            raise ValueError("must be one or more numbers of seconds, none below 0, with a sum of at most 604800")
        return value


def load(environment: Mapping[str, str]) -> Settings:
    """Returns the settings of the environment; an empty variable counts as unset.

    Raises SettingsError for a wrong value; the message is one line.
    """
    values = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(PREFIX) and value != ""
    }
    # providers.yaml may refer to any variable, so only names that nearly match a setting are refused.
    for name in sorted(values.keys() - Settings.model_fields.keys()):
        if meant := get_close_matches(name, Settings.model_fields, n=1, cutoff=0.9):
            raise SettingsError(f"{PREFIX}{name.upper()}: no such setting; {PREFIX}{meant[0].upper()} is one")
    known = {name: value for name, value in values.items() if name in Settings.model_fields}
    try:
        return Settings.model_validate(known)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        text = str(first["input"])
        # Passwords and keys stand before an @ and after a ? or #.
        hidden = name in _HIDDEN or any(sign in text for sign in "@?#")
        shown = "" if hidden else f" (got {text[:80]!r})"
        raise SettingsError(f"{PREFIX}{name.upper()}: {first['msg'].removeprefix('Value error, ')}{shown}") from None


def describe() -> str:
    """Returns a line for each setting with its description and default, for `--help`."""
    lines = []
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, tuple):
            default = ",".join(f"{item:g}" for item in default)
        shown = "unset" if default in (None, "") else default
        lines.append(f"  {PREFIX}{name.upper():<24} {field.description} [{shown}]")
    return "\n".join(lines)


def _key_length(secret: str) -> int:
    """Returns the number of bytes in a `whsec_...` secret; 0 for any other text."""
    match = _SECRET.fullmatch(secret)
    try:
        return len(base64.b64decode(match[1] + "==")) if match else 0
    except ValueError:
        return 0
