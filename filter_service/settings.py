"""Typed settings, read from the environment (`FILTER_SERVICE_*`) here and nowhere else."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from filter_service.egress.private_networks import private_networks
from filter_service.egress.uri_rules import AllowList
from filter_service.errors import InvalidSettings
from filter_service.policy.coverage import Coverage
from filter_service.policy.spelling import nearest

VERSION = "0.1.0"  # of this code, as packages, records and messages name it
PREFIX = "FILTER_SERVICE_"
YEAR, MOST = 366 * 86_400.0, 2**31 - 1  # seconds; the largest whole number
PILLOWS_LIMIT = 178_956_970  # pixels; Pillow opens nothing larger

_WEB = re.compile("https?://", re.IGNORECASE)

# Kubernetes puts a Service's address into every container beside it, and one that is called
# filter-service begins with our prefix.
_KUBERNETES = re.compile(
    r"SERVICE_HOST=|SERVICE_PORT(_\w+)?=\d+$|PORT(_\d+_\w+)?=\w+://"
    r"|PORT_\d+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR)="
)


class Settings(BaseSettings):
    """Everything an operator can set; every field has a default that works on one machine."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
    )

    data_dir: Path = Field(
        Path(".filter-service"),
        description="Folder of the embedded database, broker and images.",
    )
    database_url: str | None = Field(
        None, description="postgresql://…; empty starts the embedded Postgres in data_dir."
    )
    broker_url: str | None = Field(
        None, description="redis://…; empty starts the embedded Redis in data_dir."
    )
    storage_url: str | None = Field(
        None, description="Any fsspec address to keep image bytes at; empty is data_dir/images."
    )

    model: str = Field(
        "bundled",
        description="'bundled' (pictograms), an open_clip name, hf-hub:…, local-dir:… or a file.",
    )
    pretrained: str | None = Field(
        None, description="open_clip's pretrained tag for a named model, or a checkpoint file."
    )
    preprocessing: str | None = Field(
        None,
        description="Of a named model's checkpoint file: the tag whose images are prepared alike, "
        "or 'default'; asked for where the published weights disagree.",
    )
    coverage: Coverage = Field(
        Coverage.WHOLE,
        description="How much of an image is looked at where the policy does not say: whole, or "
        "model, which is what the model's own preprocessing leaves of it.",
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Of the screening pass; flagged and near items are always float32."
    )

    batch_size: int = Field(
        64, ge=1, le=4096, description="Items claimed together; four times as many at most."
    )
    decode_threads: int = Field(2, ge=1, le=64, description="Threads that decode ahead.")
    lease_seconds: float = Field(
        60.0, ge=1.0, le=YEAR, description="A claim lapses this long after a beat."
    )
    sweep_seconds: float = Field(
        10.0, ge=0.5, le=YEAR, description="How often to look for left items."
    )
    drain_seconds: float = Field(
        600.0, ge=1.0, le=YEAR, description="A task hands over to a fresh one after this long."
    )

    max_bytes: int = Field(32 * 2**20, ge=1, le=MOST, description="Larger files are undetermined.")
    max_pixels: int = Field(
        100_000_000, ge=1, le=PILLOWS_LIMIT, description="Larger images are undetermined."
    )
    max_frames: int = Field(
        32, ge=1, le=MOST, description="Frames judged of an animation, evenly spread."
    )

    web_host: str = Field("127.0.0.1", description="Where the web page listens.")
    web_port: int = Field(8000, ge=0, le=65535, description="Its port; 0: any that is free.")
    public_url: str | None = Field(
        None, description="How browsers reach it; https here makes cookies secure."
    )
    login_hours: float = Field(
        12.0, gt=0, le=YEAR / 3600, description="A log-in ends after this long."
    )
    oidc_issuer: str | None = Field(None, description="OpenID provider; empty: passwords only.")
    oidc_client_id: str | None = Field(None, description="Of this service at the provider.")
    oidc_client_secret: str | None = Field(None, description="Likewise.", repr=False)
    review_lease_seconds: float = Field(
        90.0, ge=1.0, le=YEAR, description="A claim lapses this long after its page was last alive."
    )
    undo_seconds: float = Field(
        8.0, ge=0, le=3600, description="A decision can be undone for this long."
    )
    reveal_cap: int | None = Field(
        None,
        ge=0,
        le=MOST,
        description="Unblurred images a person and day, unless set for the person.",
    )
    reports_per_hour: int = Field(
        1_000, ge=0, le=MOST, description="Reports of pictures that a key or person may make."
    )
    fetch_hosts: tuple[str, ...] = Field(
        (), description='JSON list of the hosts from which URIs are fetched; "*.example.org" too.'
    )
    fetch_private: tuple[str, ...] = Field(
        (),
        description="JSON list of private networks that hosts of FETCH_HOSTS may lie in; "
        '"10.1.0.0/16".',
    )
    fetch_seconds: float = Field(30.0, gt=0, le=YEAR, description="Time for one fetch, all told.")
    upload_files: int = Field(1_000, ge=1, le=MOST, description="Files of one request.")
    upload_bytes: int = Field(512 * 2**20, ge=1, le=2**40, description="Bytes of one request.")
    webhook_seconds: float = Field(
        10.0, gt=0, le=YEAR, description="Time for one webhook delivery."
    )
    webhook_hours: float = Field(
        72.0, gt=0, le=YEAR / 3600, description="A delivery is given up after this long."
    )
    webhook_private: bool = Field(
        False, description="Webhooks may go to private and loopback addresses, too."
    )

    ledger_key: Path | None = Field(
        None, description="File of the key that signs checkpoints; empty is data_dir/ledger.key."
    )
    ledger_name: str | None = Field(
        None, description="The log's name in its checkpoints, such as moderation.example.org/log."
    )
    ledger_url: str | None = Field(
        None,
        description="Any fsspec address to publish the sealed ledger at, best one that whoever "
        "has the database cannot write to; empty is data_dir/log.",
    )
    seal_rows: int = Field(
        1_000, ge=1, le=MOST, description="Entries that wait before they are sealed."
    )
    seal_seconds: float = Field(10.0, gt=0, le=YEAR, description="Or so long, if they are fewer.")
    four_eyes: bool = Field(
        False, description="A policy becomes active only when somebody else agrees."
    )

    @field_validator("fetch_private")
    @classmethod
    def _are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        private_networks(networks)
        return networks

    @field_validator("public_url", "oidc_issuer")
    @classmethod
    def _is_of_the_web(cls, url: str | None) -> str | None:
        if url is not None and (not _WEB.match(url) or not urlsplit(url).netloc):
            raise ValueError("an address that begins with https:// or http:// was expected")
        return url

    @model_validator(mode="after")
    def _fetches_from_hosts(self) -> Self:
        AllowList.of(self.fetch_hosts, inside=bool(self.fetch_private))
        return self

    @model_validator(mode="after")
    def _names_the_whole_provider(self) -> Self:
        if (self.oidc_issuer is None) != (self.oidc_client_id is None):
            raise InvalidSettings(
                f"{PREFIX}OIDC_ISSUER and {PREFIX}OIDC_CLIENT_ID go together: set both, or neither "
                "for passwords only."
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        *sources: PydanticBaseSettingsSource,
        **named: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Where settings come from; InvalidSettings for a name that is none."""
        read = (*sources, *named.values())
        _refuse_unknown(_names_in(read), cls.model_fields)
        return read

    @property
    def images_at(self) -> str:
        """Where image bytes are kept: an fsspec address or a path."""
        return self.storage_url or str((self.data_dir / "images").absolute())

    @property
    def ledger_at(self) -> str:
        """Where the sealed ledger is published: an fsspec address or a path."""
        return self.ledger_url or str((self.data_dir / "log").absolute())

    @property
    def ledger_key_at(self) -> Path:
        """The file of the key that signs checkpoints."""
        return self.ledger_key or self.data_dir / "ledger.key"

    @classmethod
    def load(cls, **overrides: object) -> Self:
        """Read the environment; InvalidSettings names the variable, the value and the rule."""
        try:
            return cls(**overrides)  # type: ignore[arg-type]
        except ValidationError as error:
            problems = "; ".join(
                f"{PREFIX}{'_'.join(map(str, e['loc'])).upper()}={e['input']!r}: {e['msg']}"
                for e in error.errors()
            )
            raise InvalidSettings(
                f"{problems}. Mend it in the environment or in .env and start again."
            ) from error


def _names_in(sources: Iterable[PydanticBaseSettingsSource]) -> list[str]:
    """The settings that somebody means to set, in small letters, known or not."""
    names: list[str] = []
    for source in sources:
        if isinstance(source, EnvSettingsSource):  # the environment, and .env
            names += _ours(source.env_vars)
        elif isinstance(source, InitSettingsSource):
            names += source.init_kwargs
    return names


def _ours(variables: Mapping[str, str | None]) -> list[str]:
    """What follows our prefix, of the variables that are for us."""
    prefix = PREFIX.lower()
    found = {
        name.removeprefix(prefix): v for name, v in variables.items() if name.startswith(prefix)
    }
    return [n for n, value in found.items() if not _KUBERNETES.match(f"{n.upper()}={value}")]


def _refuse_unknown(names: Iterable[str], known: Iterable[str]) -> None:
    """InvalidSettings names each unknown setting and the known one that it is nearest to."""
    settings = list(known)
    unknown = [_unknown(name, settings) for name in dict.fromkeys(names) if name not in settings]
    if unknown:
        raise InvalidSettings(
            f"{'; '.join(unknown)}. Mend it in the environment or in .env and start again."
        )


def _unknown(name: str, known: list[str]) -> str:
    near = str(nearest(name, known)).upper()
    return f"There is no setting {PREFIX}{name.upper()}; the nearest is {PREFIX}{near}"
