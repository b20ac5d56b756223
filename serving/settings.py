"""The endpoint's settings: the command line, then the environment (`FEDREC_…`), then a TOML file, then defaults."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from fedrec.data.errors import InputError
from fedrec.data.storage.reading import read_toml
from fedrec.serving.database import holds_password
from fedrec.serving.index.address import IndexAddress

SECRET_BYTES = 32
"""Bytes of a token secret at least: as many as the digest that it signs (RFC 7518, 3.2)."""


def _check_printable(key: SecretStr) -> SecretStr:
    if not re.fullmatch("[!-~]*", key.get_secret_value()):
        raise ValueError("a key is printable ASCII without blanks, since a header carries nothing else; choose another")
    return key


def _check_length(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value().encode()) < SECRET_BYTES:
        raise ValueError(f"give {SECRET_BYTES} bytes or more, such as `openssl rand -hex 32` prints")
    return secret


def _check_index(address: SecretStr) -> SecretStr:
    IndexAddress.parse(address.get_secret_value())
    return address


Key = Annotated[SecretStr, Field(min_length=16), AfterValidator(_check_printable)]
Secret = Annotated[SecretStr, AfterValidator(_check_length)]
Index = Annotated[SecretStr, AfterValidator(_check_index)]

StoreAddress = Annotated[
    SecretStr, Field(min_length=1), BeforeValidator(lambda given: str(given) if isinstance(given, Path) else given)
]
"""A URL may hold a password."""

SECRETS = ("read_keys", "admin_keys", "token_secret", "index_key")
"""Settings that the command line does not take: other users of the machine can read it."""


class ModelSettings(BaseModel):
    """What differs between the tenants of an endpoint."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    against: Path | None = None
    """Another run, of which an A/B test asks whether it is better."""
    share: float = Field(default=0.5, ge=0, le=1)
    """Share of the callers that the other run answers."""
    experiment: str = Field(default="1", min_length=1, max_length=64)
    """Name of the A/B test; under another name, callers are dealt anew, and counts begin again."""
    read_keys: tuple[Key, ...] = ()
    """Keys of callers who may ask; without any, everybody may."""
    admin_keys: tuple[Key, ...] = ()
    """Keys of callers who may change items, reload, and read or erase all users; without any, nobody may."""
    token_secret: Secret | None = None
    """Signs the tokens by which users read and erase their own data; without it there are no tokens."""


class Tenant(ModelSettings):
    """A model among others in one endpoint, with keys of its own."""

    run: Path
    """The run's folder."""


TenantName = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,62}$")]
"""A part of a path and of a host's name, so that a proxy can map one to the other."""


class Settings(ModelSettings, BaseSettings):
    model_config = SettingsConfigDict(env_prefix="FEDREC_", extra="forbid", use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    store: StoreAddress | None = None
    """Added items and feedback: a file (SQLite) or postgresql+psycopg://…; without it they are in memory alone."""
    index: Index | None = None
    """Where the index is: `qdrant:URL`, `qdrant:FOLDER` or `pgvector:URL`; without it, in memory, by FAISS."""
    index_key: SecretStr | None = None
    """Qdrant's API key."""
    workers: int = Field(default=1, ge=1, le=256)
    """Processes that answer behind the port; more than one need a store, which they share."""
    rate_per_minute: int = Field(default=0, ge=0)
    """Plain questions a minute of a key, a user, or else of an address; 0: no limit."""
    max_body_bytes: int = Field(default=2_000_000, ge=1000)
    """Bytes of a request at most."""
    time_limit: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    """Seconds for an answer at most."""
    receive_limit: float = Field(default=20.0, gt=0, allow_inf_nan=False)
    """Seconds for a whole request to arrive."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may call from a browser, beside the server's own."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names that are answered; by default loopback names if it listens on loopback, else any."""
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    """Addresses of proxies whose X-Forwarded-For is trusted, or networks (CIDR)."""
    tenants: dict[TenantName, Tenant] = Field(default_factory=dict)
    """Several models in one endpoint, by name: a table of `run`, keys, secret and A/B test for each."""

    def of_tenant(self, name: str) -> "Settings":
        """Return the settings of a tenant: its own, and those of the endpoint that are not a tenant's."""
        own = {field: getattr(self.tenants[name], field) for field in ModelSettings.model_fields}
        return self.model_copy(update={**own, "tenants": {}})

    @property
    def store_address(self) -> str | None:
        """The path or the URL of the store; None: in memory."""
        return self.store.get_secret_value() if self.store else None

    @property
    def index_address(self) -> IndexAddress | None:
        """Where the index is; None: in memory."""
        return IndexAddress.parse(self.index.get_secret_value()) if self.index else None

    @classmethod
    def read(cls, file: Path | None, changes: Mapping[str, Any]) -> "Settings":
        """Read a TOML file and the environment; `changes`, by field, take precedence unless None.

        Raises `InputError`, which names the setting and never its value: it may be a key.
        """
        if file and not file.exists():
            raise InputError(f"--settings {file} does not exist; give a TOML file")

        table = read_toml(file, "mend it", "--settings ") if file else {}

        class FromFile(cls):
            @classmethod
            def settings_customise_sources(
                cls, settings_cls: type[BaseSettings], *args: Any, **sources: PydanticBaseSettingsSource
            ) -> tuple[PydanticBaseSettingsSource, ...]:
                first = (sources["init_settings"], sources["env_settings"])
                return (*first, InitSettingsSource(settings_cls, table))

        try:
            found = FromFile(**{name: value for name, value in changes.items() if value is not None})
        except ValidationError as error:
            fault = error.errors()[0]
            detail = "is not known" if fault["type"] == "extra_forbidden" else _fault_detail(fault["msg"])
            known = ", ".join(cls.model_fields)
            raise InputError(
                f"setting {'.'.join(map(str, fault['loc']))}: {detail}; the settings are {known}"
            ) from None
        except SettingsError as error:  # it names the setting, and not the value
            raise InputError(f"{error}; lists are written in JSON, such as FEDREC_ADMIN_KEYS='[\"…\"]'") from None
        if found.workers > 1 and found.store is None:
            raise InputError(
                f"setting workers: {found.workers} processes need a store that they share; add --store FILE"
            )
        _check_tenants(found)
        return cls.model_construct(found.model_fields_set, **dict(found))  # a class that another process can read

    @classmethod
    def parse_pairs(cls, pairs: Sequence[str]) -> dict[str, Any]:
        """Split texts such as `time_limit=5`; a list's values are separated by commas. Raises `InputError`."""
        changes: dict[str, Any] = {}
        for pair in pairs:
            name, separator, value = (part.strip() for part in pair.partition("="))
            if not separator:
                raise InputError(f"--set {pair!r} has no '='; write --set name=value")
            if name in SECRETS:
                variable = f"FEDREC_{name.upper()}"
                raise InputError(f"setting {name}: others can read a command line; use {variable} or a file")
            if name == "store":
                check_public_address(value)
            if name == "index":
                check_public_index(value)
            is_list = name in cls.model_fields and get_origin(cls.model_fields[name].annotation) is tuple
            changes[name] = [each.strip() for each in value.split(",") if each.strip()] if is_list else value
        return changes


def _check_tenants(settings: Settings) -> None:
    """Raise `InputError` if a key or a secret of one tenant would open another one."""
    owners: dict[str, str] = {}
    for owner, own in [("the endpoint", settings), *settings.tenants.items()]:
        secret = [own.token_secret] if own.token_secret else []
        for key in {key.get_secret_value() for key in (*own.read_keys, *own.admin_keys, *secret)}:
            if (other := owners.setdefault(key, owner)) != owner:
                raise InputError(
                    f"setting tenants: {other} and {owner} share a key or a token_secret; give each its own"
                )


def check_public_address(address: str) -> None:
    """Raise `InputError` if a store's address, given on the command line, holds a password."""
    if holds_password(address):
        remedy = "use FEDREC_STORE or a file of settings, or leave it out and keep it in ~/.pgpass"
        raise InputError(f"setting store: the URL holds a password, and others can read a command line; {remedy}")


def check_public_index(address: str) -> None:
    """Raise `InputError` if an index's address, given on the command line, is none or holds a password."""
    try:
        parsed = IndexAddress.parse(address)
    except ValueError as error:
        raise InputError(f"setting index: {error}") from None
    if parsed.has_password:
        remedy = "use FEDREC_INDEX or a file of settings, or leave it out and keep it in ~/.pgpass"
        raise InputError(f"setting index: the URL holds a password, and others can read a command line; {remedy}")


def _fault_detail(message: str) -> str:
    """Turn pydantic's message, or that of a check above, into the end of a sentence."""
    return message.removeprefix("Value error, ") if message.startswith("Value error, ") else message.lower()
