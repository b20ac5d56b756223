"""How the endpoint is run: from flags, then the environment (`FEDREC_…`), then a TOML file, then what is here."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from data.errors import InputError

Key = Annotated[SecretStr, Field(min_length=16)]


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
    """Keys of callers who may change items, reload, and see or erase users; none: nobody may."""
    rate_per_minute: int = Field(default=0, ge=0)
    """Requests a minute of a key, or else of an address; 0: no limit."""
    max_body_bytes: int = Field(default=2_000_000, ge=1000)
    """Bytes of a request at most."""
    time_limit: float = Field(default=30.0, gt=0)
    """Seconds for an answer at most."""
    cors_origins: tuple[str, ...] = ()
    """Web pages that may call from a browser; none: only those served from here."""

    @classmethod
    def read(cls, file: Path | None, flags: dict[str, Any]) -> "Settings":
        """Raises `InputError` naming the setting that is wrong, and never its value: it may be a key."""
        if file and not file.is_file():
            raise InputError(f"--settings {file} does not exist; give a TOML file")

        class FromFile(cls):
            @classmethod
            def settings_customise_sources(
                cls, settings_cls: type[BaseSettings], *args: Any, **sources: PydanticBaseSettingsSource
            ) -> tuple[PydanticBaseSettingsSource, ...]:
                given = (sources["init_settings"], sources["env_settings"])
                return (*given, TomlConfigSettingsSource(settings_cls, file)) if file else given

        try:
            return FromFile(**{name: value for name, value in flags.items() if value is not None})
        except ValidationError as error:
            first = error.errors()[0]
            said = "is not known" if first["type"] == "extra_forbidden" else first["msg"].lower()
            known = ", ".join(cls.model_fields)
            raise InputError(f"setting {'.'.join(map(str, first['loc']))}: {said}; the settings are {known}") from None
        except SettingsError as error:  # it names the setting, and not the value
            raise InputError(f"{error}; lists are written in JSON, such as FEDREC_ADMIN_KEYS='[\"…\"]'") from None
        except ValueError as error:  # the file is no TOML
            raise InputError(f"--settings {file} is not TOML ({error}); mend it") from None
