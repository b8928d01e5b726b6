"""One frozen :class:`Settings`, read from ``ADJOIN_*`` variables and ``adjoin.yaml``.

Order of precedence: arguments, environment, the file named by ``ADJOIN_CONFIG`` (default
``./adjoin.yaml``), defaults. Unknown keys are errors.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from adjoin.errors import InputError, NotFound

_FILE = "adjoin.yaml"

Protocol = Literal["tcp", "ucx"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)


def _default_home() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "adjoin"


#: What may name a tenant.
TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
#: In ``tenants``, those that are not named.
EVERY_TENANT = "*"
_MOST = 10**12


class TenantBounds(BaseModel):
    """What one tenant may use, and its share where several compete. What is None is as for
    ``"*"``, and there without a limit; of ``runs`` that is ``tenant_runs``.

    Attributes:
        requests_per_minute: of any kind.
        tokens_per_minute, tokens_per_day: prompts and answers together; days begin at midnight UTC.
        runs: at once, waiting or running.
        weight: its share of a model beside other tenants', which have 1.
        priority: the class of its runs, and the highest that one may ask for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    requests_per_minute: int | None = Field(default=None, ge=1, le=_MOST)
    tokens_per_minute: int | None = Field(default=None, ge=1, le=_MOST)
    tokens_per_day: int | None = Field(default=None, ge=1, le=_MOST)
    runs: int | None = Field(default=None, ge=1, le=65_536)
    weight: float | None = Field(default=None, ge=0.001, le=1000, allow_inf_nan=False)
    priority: Literal["high", "normal", "low"] | None = None


class Settings(BaseSettings):
    """Everything that can be set, with its unit and its bounds."""

    model_config = SettingsConfigDict(env_prefix="ADJOIN_", frozen=True, extra="forbid")

    home: Path = Field(
        default_factory=_default_home,
        description="models, collections, and what was learned about costs",
    )
    allowed_modules: tuple[str, ...] = Field(
        default=(), description="modules that `py:` references may name"
    )

    workers: int = Field(default=2, ge=1, le=1024, description="workers of an embedded cluster")
    protocol: Protocol = Field(
        default="tcp", description="what the processes of an embedded cluster speak"
    )
    threads_per_worker: int = Field(default=4, ge=1, le=256, description="blocking stages at once")
    replica_threads: int = Field(
        default=0, ge=0, le=1024, description="CPU threads of a replica; 0 takes every core"
    )
    replica_sequences: int = Field(
        default=0, ge=0, le=4096, description="most sequences at once in a replica; 0: its engine's"
    )
    prefix_caching: bool = Field(
        default=True, description="let prompts reuse the attention state of earlier ones"
    )
    kv_cache_gb: float = Field(default=1.0, gt=0, le=4096, description="KV cache of a CPU replica")

    stage_timeout_s: float = Field(default=300.0, gt=0, description="of a stage that sets none")
    loop_block_warning_s: float = Field(
        default=1.0, ge=0, description="an async stage that blocks its worker so long; 0: never"
    )
    run_timeout_s: float = Field(default=1800.0, gt=0)
    load_timeout_s: float = Field(default=600.0, gt=0, description="of a replica that starts")
    connect_timeout_s: float = Field(default=10.0, gt=0, description="to a scheduler to be joined")
    worker_wait_s: float = Field(default=30.0, gt=0, description="for a worker when there is none")
    heartbeat_s: float = Field(
        default=0.5, gt=0, le=60, description="between two signs of life of a worker"
    )
    silence_s: float = Field(
        default=8.0, gt=0, le=3600, description="after which a worker that says nothing is lost"
    )
    engine_stall_s: float = Field(
        default=30.0, gt=0, description="for a step of an engine that does not compute; then killed"
    )
    host_linger_s: float = Field(
        default=10.0, ge=0, description="how long a host outlives its last agent"
    )

    max_input_bytes: int = Field(default=1_000_000, ge=1, description="of a run's inputs, encoded")
    max_results: int = Field(default=1000, ge=1, description="largest k of a search")
    max_new_tokens: int = Field(default=8192, ge=1)
    inline_bytes: int = Field(
        default=65_536, ge=0, description="larger values stay where they were made until pulled"
    )

    shared_bytes: int = Field(
        default=536_870_912, ge=0, le=2**44, description="shared memory of a worker; 0 for none"
    )

    max_file_bytes: int = Field(default=64_000_000, ge=1, description="of one document")
    parse_timeout_s: float = Field(default=60.0, gt=0, description="of one document")
    parse_memory_mb: int = Field(default=2048, ge=256)

    usage_log_bytes: int = Field(
        default=256_000_000,
        ge=16_000_000,
        description="of a machine's usage that no service has fetched; the oldest goes beyond that",
    )

    trusted_network: bool = Field(
        default=False, description="allow a cluster address that is neither loopback nor TLS"
    )

    # of the service
    database_url: SecretStr = Field(
        default=SecretStr(""),
        description="of PostgreSQL for the service's state; empty: SQLite in `home`",
    )
    allowed_models: tuple[str, ...] = Field(
        default=(), description="models that deployed workflows may name beside the catalog's"
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="names that clients may call the service by, beside loopback's"
    )
    allowed_origins: tuple[str, ...] = Field(
        default=(), description="origins of other sites whose pages may call the service"
    )
    serve_concurrency: int = Field(
        default=32, ge=1, le=4096, description="runs at once of a workflow that does not say"
    )
    serve_queue: int = Field(
        default=256, ge=0, le=65_536, description="runs that wait, of a workflow that does not say"
    )
    tenant_runs: int = Field(
        default=256, ge=1, le=65_536, description="runs of one tenant at once, waiting or running"
    )
    tenants: Mapping[str, TenantBounds] = Field(
        default={}, description="what single tenants may use; `*` is those that are not named"
    )
    serve_patience: float = Field(
        default=1.0,
        ge=0,
        le=1000,
        description="longest wait for a start, in multiples of how long runs take; 0: no bound",
    )
    serve_runs: int = Field(
        default=256, ge=1, le=65_536, description="runs at once of all workflows without a model"
    )
    model_runs: int = Field(
        default=0, ge=0, le=65_536, description="sequences at once of a model; 0: its replicas'"
    )
    max_workflows: int = Field(default=1000, ge=1, description="deployed by one tenant")
    max_body_bytes: int = Field(default=4_000_000, ge=1, description="of a request, not of a file")
    max_buffered_bytes: int = Field(
        default=512_000_000, ge=1, description="of all requests' bodies that are being read"
    )
    max_connections: int = Field(default=2048, ge=1, le=65_536, description="open at once")
    header_timeout_s: float = Field(default=10.0, gt=0, description="until a request's headers end")
    body_timeout_s: float = Field(default=60.0, gt=0, description="until a request's body ends")
    send_timeout_s: float = Field(default=60.0, gt=0, description="for a client to take a chunk")
    drain_timeout_s: float = Field(
        default=30.0, ge=0, description="for runs to end when the service is told to"
    )
    prices: dict[str, dict[str, float]] = Field(
        default={},
        description="of 1M tokens by model, or `default`: prompt, cached, generated, embedded",
    )
    price_per_hour: float = Field(default=0.0, ge=0, description="of the hardware of a replica")
    run_tokens: int = Field(default=0, ge=0, description="budget of a run that names none; 0: none")
    tenant_day_tokens: int = Field(
        default=0, ge=0, description="budget of a tenant a day (UTC), in tokens; 0: none"
    )
    tenant_day_money: float = Field(
        default=0.0, ge=0, description="budget of a tenant a day (UTC), at the prices; 0: none"
    )
    usage_fetch_s: float = Field(
        default=1.0, gt=0, description="between two looks of the service at usage logs"
    )
    kept_runs: int = Field(default=1000, ge=1, description="ended runs that can be looked at")
    run_retention_s: float = Field(
        default=604_800.0, gt=0, description="how long durable runs can be looked at, once ended"
    )
    run_retention_bytes: int = Field(
        default=10_000_000_000, ge=0, description="of their events, of all together"
    )
    kept_run_bytes: int = Field(default=64_000_000, ge=1, description="of their events, together")

    @field_validator("tenants")
    @classmethod
    def _named(cls, tenants: Mapping[str, TenantBounds]) -> Mapping[str, TenantBounds]:
        for name in tenants:
            if name != EVERY_TENANT and not TENANT.fullmatch(name):
                raise ValueError(f"{name[:60]!r} cannot name a tenant")
        return tenants

    def bounds_of(self, tenant: str) -> TenantBounds:
        """What holds for a tenant: its own bounds, and for what they leave out those of all."""
        general = self.tenants.get(EVERY_TENANT, TenantBounds())
        own = self.tenants.get(tenant, TenantBounds()).model_dump(exclude_none=True)
        found = general.model_copy(update=own)
        return found.model_copy(update={"runs": found.runs or self.tenant_runs})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = os.environ.get("ADJOIN_CONFIG", _FILE)
        return init_settings, env_settings, YamlConfigSettingsSource(settings_cls, yaml_file=file)

    @classmethod
    def load(cls, **values: Any) -> Settings:
        """Read the settings.

        Raises:
            NotFound: there is no file where ``ADJOIN_CONFIG`` says.
            InputError: the file is no mapping in YAML, or keys are wrong, and which.
        """
        named = os.environ.get("ADJOIN_CONFIG", "")
        if named and not Path(named).exists():
            raise NotFound("there is no such file", where=named, hint="ADJOIN_CONFIG names it")
        try:
            return cls(**values)
        except ValidationError as error:
            lines = [
                f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
                for item in error.errors()
            ]
            raise InputError(
                f"bad settings: {'; '.join(lines)}",
                where=named or _FILE,
                hint="check that file and the ADJOIN_* variables",
            ) from None
        except Exception as error:  # noqa: BLE001 - of whatever reads and parses the file
            raise InputError(
                f"the settings cannot be read: {' '.join(str(error).split())}",
                where=named or _FILE,
                hint="write one key: value a line",
            ) from None
