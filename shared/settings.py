"""Every setting of TasteMatch, read once from the environment by the entry point.

A wrong value raises `SettingsError` with a message that names the variable and never repeats the
value. Nothing else in the code base reads the environment. In development, secrets that are not
set are generated once into `<data dir>/secrets.json` (mode 0600), so that all commands on the
machine share them; production refuses that.
"""

import json
import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.database_address import DatabaseAddress, parse_database_address
from shared.errors import SettingsError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

SECRET_MIN_BYTES = 32
SECRETS_FILE = "secrets.json"
DATA_DIR = Path(".data")
REDIS_PARAMETERS = {"ssl_cert_reqs", "ssl_ca_certs"}
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

_IN_A_HEADER = re.compile(r"[!-~]+")

Source = Literal["environment", "generated", "default"]


def _database_url(value: str) -> str:
    if not value:
        return value
    try:
        url = parse_database_address(value)
        port_is_valid = url.port is None or 0 < url.port < 65536
    except ValueError:
        raise ValueError(
            "is not a database address such as postgresql://user@host/name (in a password @ is %40)"
        ) from None
    if url.scheme not in ("postgres", "postgresql", "sqlite"):
        raise ValueError("must begin with postgres://, postgresql:// or sqlite://")
    if not port_is_valid:
        raise ValueError("has a port that there is not")
    if url.scheme == "sqlite":
        if url.host:
            raise ValueError("takes three slashes for a relative, four for an absolute SQLite path")
        if not url.database or url.database == ":memory:":
            raise ValueError("needs a SQLite file: several processes share the database")
    elif not url.database:
        raise ValueError("names no database")
    unknown = sorted(set(url.query) - {"sslmode", "sslrootcert", "application_name"})
    if unknown and url.scheme != "sqlite":
        raise ValueError(f"has the unknown parameter {unknown[0]!r}")
    mode = url.query.get("sslmode", "prefer")
    if mode not in SSL_MODES:
        raise ValueError(f"has an unknown sslmode; known are {', '.join(SSL_MODES)}")
    return value


def _redis_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        is_valid = parts.scheme in ("redis", "rediss") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        is_valid = False
    if not is_valid:
        raise ValueError("must look like redis://host:6379/0 or rediss://host:6379/0")
    if {name for name, _ in parse_qsl(parts.query)} - REDIS_PARAMETERS or parts.fragment:
        raise ValueError(f"takes no parameters but {', '.join(sorted(REDIS_PARAMETERS))}")
    number = parts.path.strip("/")
    if number and not (number.isascii() and number.isdigit()):
        raise ValueError("must end in a database number or in nothing")
    return value


def _dask_scheduler(value: str) -> str:
    try:
        parts = urlsplit(value)
        is_valid = parts.scheme in ("tcp", "tls") and bool(parts.hostname) and bool(parts.port)
    except ValueError:
        is_valid = False
    if not is_valid or value != f"{parts.scheme}://{parts.netloc}" or "@" in parts.netloc:
        raise ValueError("must look like tcp://host:8786 or tls://host:8786")
    return value


def _cron(value: str) -> str:
    if value:
        try:
            CronSim(value, datetime.now(UTC))
        except CronSimError:
            raise ValueError("is not a cron expression of five fields that comes due") from None
    return value


def _split_origins(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _origins(value: tuple[str, ...]) -> tuple[str, ...]:
    for origin in value:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}":
            raise ValueError("takes origins such as https://shop.example, separated by commas")
    return value


def _namespace(value: str) -> str:
    if (
        not value
        or len(value) > 64
        or not all(c.isascii() and (c.isalnum() or c in "-_.") for c in value)
    ):
        raise ValueError("takes 1 to 64 letters, digits, dots, dashes and underscores")
    return value


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


OptionalSecret = Annotated[SecretStr | None, BeforeValidator(_none_if_empty)]
OptionalText = Annotated[str | None, BeforeValidator(_none_if_empty)]
OptionalPath = Annotated[Path | None, BeforeValidator(_none_if_empty)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


class Settings(BaseSettings):
    """The effective settings. Field names are the variables in lower case, less `tastematch_`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, populate_by_name=True
    )

    database_url: Annotated[str, AfterValidator(_database_url)] = Field(
        alias="DATABASE_URL", default="", repr=False
    )
    redis_url: Annotated[
        str | None, BeforeValidator(_none_if_empty), AfterValidator(lambda v: v and _redis_url(v))
    ] = Field(alias="REDIS_URL", default=None, repr=False)

    env: Literal["development", "production"] = Field(alias="TASTEMATCH_ENV", default="development")
    data_dir: Annotated[Path, BeforeValidator(lambda value: value or DATA_DIR)] = Field(
        alias="TASTEMATCH_DATA_DIR", default=DATA_DIR
    )
    namespace: Annotated[str, AfterValidator(_namespace)] = Field(
        alias="TASTEMATCH_NAMESPACE", default="tastematch"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        alias="TASTEMATCH_LOG_LEVEL", default="INFO"
    )

    jwt_secret: OptionalSecret = Field(alias="TASTEMATCH_JWT_SECRET", default=None)
    jwt_public_key: OptionalSecret = Field(alias="TASTEMATCH_JWT_PUBLIC_KEY", default=None)
    jwks_file: OptionalPath = Field(alias="TASTEMATCH_JWKS_FILE", default=None)
    jwt_user_claim: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        alias="TASTEMATCH_JWT_USER_CLAIM", default="sub"
    )
    jwt_max_lifetime_days: Annotated[int, Field(ge=1, le=3650)] = Field(
        alias="TASTEMATCH_JWT_MAX_LIFETIME_DAYS", default=30
    )
    jwt_audience: OptionalText = Field(alias="TASTEMATCH_JWT_AUDIENCE", default=None)
    service_token: OptionalSecret = Field(alias="TASTEMATCH_SERVICE_TOKEN", default=None)
    viewer_token: OptionalSecret = Field(alias="TASTEMATCH_VIEWER_TOKEN", default=None)

    host: Annotated[str, Field(min_length=1)] = Field(alias="TASTEMATCH_HOST", default="localhost")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(alias="PORT", default=8000)
    metrics_port: Annotated[
        Annotated[int, Field(ge=1, le=65535)] | None, BeforeValidator(_none_if_empty)
    ] = Field(alias="TASTEMATCH_METRICS_PORT", default=None)
    cors_origins: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(_split_origins), AfterValidator(_origins)
    ] = Field(alias="TASTEMATCH_CORS_ORIGINS", default=())
    max_in_flight: Annotated[int, Field(ge=1, le=10_000)] = Field(
        alias="TASTEMATCH_MAX_IN_FLIGHT", default=128
    )

    precompute_cron: Annotated[str, AfterValidator(_cron)] = Field(
        alias="TASTEMATCH_PRECOMPUTE_CRON", default="0 * * * *"
    )
    worker_memory_mb: Annotated[int, Field(ge=192, le=65_536)] = Field(
        alias="TASTEMATCH_WORKER_MEMORY_MB", default=512
    )
    snapshot_mb: Annotated[int, Field(ge=8, le=65_536)] = Field(
        alias="TASTEMATCH_SNAPSHOT_MB", default=192
    )
    keep_snapshots: Annotated[int, Field(ge=1, le=50)] = Field(
        alias="TASTEMATCH_KEEP_SNAPSHOTS", default=3
    )

    max_quality_drop: Annotated[float, Field(ge=0, le=1)] = Field(
        alias="TASTEMATCH_MAX_QUALITY_DROP", default=0.2
    )
    cuisine_cap: Annotated[int, Field(ge=1, le=10)] = Field(
        alias="TASTEMATCH_CUISINE_CAP", default=5
    )
    dask_scheduler: Annotated[
        str | None,
        BeforeValidator(_none_if_empty),
        AfterValidator(lambda v: v and _dask_scheduler(v)),
    ] = Field(alias="TASTEMATCH_DASK_SCHEDULER", default=None)

    db_pool_size: Annotated[int, Field(ge=1, le=100)] = Field(alias="DB_POOL_SIZE", default=4)
    db_max_overflow: Annotated[int, Field(ge=0, le=100)] = Field(alias="DB_MAX_OVERFLOW", default=2)
    db_pool_timeout: Seconds = Field(alias="DB_POOL_TIMEOUT", default=10)
    db_pool_recycle: Annotated[int, Field(ge=1)] = Field(alias="DB_POOL_RECYCLE", default=1800)
    db_connect_timeout: Seconds = Field(alias="DB_CONNECT_TIMEOUT", default=3)
    db_statement_timeout: Seconds = Field(alias="DB_STATEMENT_TIMEOUT", default=10)

    @property
    def is_production(self) -> bool:
        return self.env == "production"

    @property
    def is_sqlite(self) -> bool:
        return self.database_url.startswith("sqlite:") or not self.database_url

    @property
    def sqlalchemy_url(self) -> "URL":
        """The database address without a driver; `shared/db/engine.py` adds one."""
        # Here, as an API that only serves snapshots never loads it (10 MB).
        from sqlalchemy.engine import URL, make_url

        if not self.database_url:
            return URL.create("sqlite", database=str(self._default_database))
        url = make_url(self.database_url)
        return url.set(drivername="postgresql") if url.drivername == "postgres" else url

    @property
    def database_address(self) -> DatabaseAddress:
        """The same address taken apart."""
        if self.database_url:
            return parse_database_address(self.database_url)
        return DatabaseAddress("sqlite", database=str(self._default_database))

    @property
    def lacks_database_file(self) -> bool:
        """Whether SQLite would only now make its file: nothing was ever stored."""
        return self.is_sqlite and not Path(str(self.database_address.database)).exists()

    @property
    def _default_database(self) -> Path:
        return self.data_dir / "tastematch.db"

    @property
    def store_dir(self) -> Path:
        """Where the snapshot store lives when there is no Redis."""
        return self.data_dir / "store"

    @property
    def snapshots_dir(self) -> Path:
        """Where the API keeps its local copies."""
        return self.data_dir / "snapshots"

    @property
    def overlay_dir(self) -> Path:
        """Where the API keeps what changed since the snapshots it serves."""
        return self.data_dir / "overlay"

    @property
    def models_dir(self) -> Path:
        """Where the worker keeps the models of published snapshots."""
        return self.data_dir / "models"

    @property
    def scratch_dir(self) -> Path:
        """Where a precompute builds its parts."""
        return self.data_dir / "scratch"

    def with_generated_secrets(self) -> Self:
        """Fills secrets that are not set. Raises SettingsError where the file cannot be kept."""
        wanted = {
            "jwt_secret": not (self.jwt_secret or self.jwt_public_key or self.jwks_file),
            "service_token": not self.service_token,
            "viewer_token": not self.viewer_token,
        }
        names = [name for name, is_wanted in wanted.items() if is_wanted]
        if not names or self.is_production:
            return self
        kept = _kept_secrets(self.data_dir)
        return self.model_copy(update={name: SecretStr(kept[name]) for name in names})


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Reads the environment. Raises SettingsError that names the first wrong variable."""
    variables = os.environ if environ is None else environ
    known = {
        str(f.alias): variables[str(f.alias)]
        for f in Settings.model_fields.values()
        if str(f.alias) in variables
    }
    try:
        settings = Settings.model_validate(known)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        raise SettingsError(f"{name}: {_reason(first['msg'])}") from None
    _check_keys(settings)
    if settings.is_production:
        _check_production(settings)
    return settings.with_generated_secrets()


def describe_settings(
    settings: Settings, environ: Mapping[str, str] | None = None
) -> list[dict[str, str]]:
    """One row a setting: name, value (secrets and passwords masked), source."""
    variables = os.environ if environ is None else environ
    rows = []
    for field_name, field in Settings.model_fields.items():
        variable = str(field.alias)
        value = getattr(settings, field_name)
        source: Source = "environment" if variables.get(variable) else "default"
        if isinstance(value, SecretStr):
            source = source if source == "environment" else "generated"
        rows.append(
            {"name": variable, "value": _shown(settings, field_name, value), "source": source}
        )
    return rows


def _shown(settings: Settings, field_name: str, value: object) -> str:
    if field_name == "database_url":
        return settings.sqlalchemy_url.render_as_string(hide_password=True)
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return "********"
    if field_name == "redis_url":
        parts = urlsplit(str(value))
        return (
            parts._replace(netloc=f"***@{parts.netloc.rpartition('@')[2]}").geturl()
            if parts.password
            else str(value)
        )
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value)


def _reason(message: str) -> str:
    return message.removeprefix("Value error, ")


def _check_keys(settings: Settings) -> None:
    given = [
        name
        for name, value in (
            ("TASTEMATCH_JWT_SECRET", settings.jwt_secret),
            ("TASTEMATCH_JWT_PUBLIC_KEY", settings.jwt_public_key),
            ("TASTEMATCH_JWKS_FILE", settings.jwks_file),
        )
        if value
    ]
    if len(given) > 1:
        raise SettingsError(f"{given[1]}: cannot stand beside {given[0]}; set one of them")
    if settings.jwks_file and not settings.jwks_file.is_file():
        raise SettingsError("TASTEMATCH_JWKS_FILE: is not a readable file")
    for name, token in (
        ("TASTEMATCH_SERVICE_TOKEN", settings.service_token),
        ("TASTEMATCH_VIEWER_TOKEN", settings.viewer_token),
    ):
        if token and not _IN_A_HEADER.fullmatch(token.get_secret_value()):
            raise SettingsError(f"{name}: takes printable ASCII characters without blanks")
    if settings.service_token and settings.service_token == settings.viewer_token:
        raise SettingsError("TASTEMATCH_VIEWER_TOKEN: must differ from TASTEMATCH_SERVICE_TOKEN")


def _check_production(settings: Settings) -> None:
    if settings.is_sqlite:
        raise SettingsError("DATABASE_URL: production needs PostgreSQL, not SQLite")
    if settings.log_level == "DEBUG":
        raise SettingsError("TASTEMATCH_LOG_LEVEL: DEBUG is refused in production")
    if not (settings.jwt_secret or settings.jwt_public_key or settings.jwks_file):
        raise SettingsError("TASTEMATCH_JWT_SECRET: must be set in production")
    if not settings.service_token:
        raise SettingsError("TASTEMATCH_SERVICE_TOKEN: must be set in production")
    for name, secret in (
        ("TASTEMATCH_JWT_SECRET", settings.jwt_secret),
        ("TASTEMATCH_SERVICE_TOKEN", settings.service_token),
        ("TASTEMATCH_VIEWER_TOKEN", settings.viewer_token),
    ):
        if secret and len(secret.get_secret_value().encode()) < SECRET_MIN_BYTES:
            raise SettingsError(f"{name}: needs at least {SECRET_MIN_BYTES} bytes in production")


def _kept_secrets(data_dir: Path) -> dict[str, str]:
    path = data_dir / SECRETS_FILE
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            fresh = {
                n: secrets.token_urlsafe(32)
                for n in ("jwt_secret", "service_token", "viewer_token")
            }
            handle, name = tempfile.mkstemp(dir=data_dir, prefix=".secrets-")
            try:
                with os.fdopen(handle, "w") as file:
                    json.dump(fresh, file)
                os.link(name, path)  # fails when another process was first: its secrets win
            except FileExistsError:
                pass
            finally:
                os.unlink(name)
        kept = json.loads(path.read_text())
        return {name: str(kept[name]) for name in ("jwt_secret", "service_token", "viewer_token")}
    except OSError as error:
        raise SettingsError(f"TASTEMATCH_DATA_DIR: cannot be used ({error.strerror})") from None
    except (ValueError, KeyError, TypeError):
        raise SettingsError(
            f"TASTEMATCH_DATA_DIR: {SECRETS_FILE} in it is damaged; remove it"
        ) from None
