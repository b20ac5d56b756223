"""How the endpoint is run: from flags, then the environment (`FEDREC_…`), then a TOML file, then what is here."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from data.errors import InputError
from data.reading import read_toml

Key = Annotated[SecretStr, Field(min_length=16)]


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="FEDREC_", extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    store: Path | None = None  # SQLite file of items put in and of feedback; None: in memory, gone with the process
    read_keys: tuple[Key, ...] = ()  # who may ask; none: everybody
    admin_keys: tuple[Key, ...] = ()  # who may change items, reload, and see or erase users; none: nobody
    rate_per_minute: int = Field(default=0, ge=0)  # requests of a key, or else of an address; 0: as many as come
    max_body_bytes: int = Field(default=2_000_000, ge=1000)
    time_limit: float = Field(default=30.0, gt=0, allow_inf_nan=False)  # seconds for an answer
    cors_origins: tuple[str, ...] = ()  # web pages that may call from a browser; none: only those served from here

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
            said = "is not known" if first["type"] == "extra_forbidden" else first["msg"].lower()
            known = ", ".join(cls.model_fields)
            raise InputError(f"setting {'.'.join(map(str, first['loc']))}: {said}; the settings are {known}") from None
        except SettingsError as error:  # it names the setting, and not the value
            raise InputError(f"{error}; lists are written in JSON, such as FEDREC_ADMIN_KEYS='[\"…\"]'") from None
