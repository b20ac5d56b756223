"""How the endpoint is run: from flags, then the environment (`FEDREC_…`), then a TOML file, then what is here."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, IPvAnyNetwork, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from fedrec.data.errors import InputError
from fedrec.data.storage.reading import read_toml

SECRET_BYTES = 32
"""Bytes of a token secret at least: as many as the digest that it signs (RFC 7518, 3.2)."""


def _sendable(key: SecretStr) -> SecretStr:
    if not re.fullmatch("[!-~]*", key.get_secret_value()):
        raise ValueError("a key is printable ASCII without blanks, since a header carries nothing else; choose another")
    return key


def _long_enough(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value().encode()) < SECRET_BYTES:
        raise ValueError(f"give {SECRET_BYTES} bytes or more, such as `openssl rand -hex 32` prints")
    return secret


Key = Annotated[SecretStr, Field(min_length=16), AfterValidator(_sendable)]
Secret = Annotated[SecretStr, AfterValidator(_long_enough)]


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="FEDREC_", extra="forbid", use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    store: Path | None = None
    """SQLite file of items put in and of feedback; without it they are in memory, gone with the process."""
    read_keys: tuple[Key, ...] = ()
    """Keys of callers who may ask; none: everybody may."""
    admin_keys: tuple[Key, ...] = ()
    """Keys of callers who may change items, reload, and see or erase all users; none: nobody may."""
    token_secret: Secret | None = None
    """Signs the tokens by which users see and erase their own; without it there are no tokens."""
    rate_per_minute: int = Field(default=0, ge=0)
    """Plain questions a minute of a key, a user, or else of an address; 0: no limit."""
    max_body_bytes: int = Field(default=2_000_000, ge=1000)
    """Bytes of a request at most."""
    time_limit: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    """Seconds for an answer at most."""
    receive_limit: float = Field(default=20.0, gt=0, allow_inf_nan=False)
    """Seconds for a request to arrive whole."""
    cors_origins: tuple[str, ...] = ()
    """Web pages that may call from a browser; none: only those served from here."""
    allowed_hosts: tuple[str, ...] = ()
    """Names to be addressed by; none: this machine's own if it listens on loopback, else any."""
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    """Addresses of proxies whose X-Forwarded-For is believed."""

    @classmethod
    def read(cls, file: Path | None, flags: dict[str, Any]) -> "Settings":
        """Raises `InputError` naming the setting that is wrong, and never its value: it may be a key."""
        if file and not file.exists():
            raise InputError(f"--settings {file} does not exist; give a TOML file")

        table = read_toml(file, "mend it", "--settings ") if file else {}

        class FromFile(cls):
            @classmethod
            def settings_customise_sources(
                cls, settings_cls: type[BaseSettings], *args: Any, **sources: PydanticBaseSettingsSource
            ) -> tuple[PydanticBaseSettingsSource, ...]:
                given = (sources["init_settings"], sources["env_settings"])
                return (*given, InitSettingsSource(settings_cls, table))

        try:
            return FromFile(**{name: value for name, value in flags.items() if value is not None})
        except ValidationError as error:
            first = error.errors()[0]
            said = "is not known" if first["type"] == "extra_forbidden" else _said(first["msg"])
            known = ", ".join(cls.model_fields)
            raise InputError(f"setting {'.'.join(map(str, first['loc']))}: {said}; the settings are {known}") from None
        except SettingsError as error:  # it names the setting, and not the value
            raise InputError(f"{error}; lists are written in JSON, such as FEDREC_ADMIN_KEYS='[\"…\"]'") from None


def _said(message: str) -> str:
    """What pydantic says, or what a rule of ours says, as the end of a sentence."""
    return message.removeprefix("Value error, ") if message.startswith("Value error, ") else message.lower()
