"""Settings: what each variable takes, what a wrong one says, what production refuses."""

from __future__ import annotations

import json
import multiprocessing
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from shared.errors import SettingsError
from shared.settings import Settings, describe_settings, load_settings

SECRET = "0123456789abcdef0123456789abcdef"
PRODUCTION = {
    "TASTEMATCH_ENV": "production",
    "DATABASE_URL": "postgres://shop:pass@db/shop",
    "TASTEMATCH_JWT_SECRET": SECRET,
    "TASTEMATCH_SERVICE_TOKEN": SECRET[::-1],
}

# Variable, meaning and default as the interface documents them.
DOCUMENTED = {
    "REDIS_URL": None,
    "TASTEMATCH_DATA_DIR": Path(".data"),
    "TASTEMATCH_NAMESPACE": "tastematch",
    "TASTEMATCH_ENV": "development",
    "TASTEMATCH_JWT_PUBLIC_KEY": None,
    "TASTEMATCH_JWKS_FILE": None,
    "TASTEMATCH_JWT_USER_CLAIM": "sub",
    "TASTEMATCH_CORS_ORIGINS": (),
    "TASTEMATCH_METRICS_PORT": None,
    "TASTEMATCH_PRECOMPUTE_CRON": "0 * * * *",
    "TASTEMATCH_WORKER_MEMORY_MB": 512,
    "TASTEMATCH_KEEP_SNAPSHOTS": 3,
    "TASTEMATCH_MAX_QUALITY_DROP": 0.2,
    "TASTEMATCH_CUISINE_CAP": 5,
    "TASTEMATCH_DASK_SCHEDULER": None,
    "DB_POOL_SIZE": 4,
    "DB_MAX_OVERFLOW": 2,
    "DB_POOL_TIMEOUT": 10,
    "PORT": 8000,
}


def load(folder: Path, variables: Mapping[str, str] | None = None) -> Settings:
    return load_settings({"TASTEMATCH_DATA_DIR": str(folder), **(variables or {})})


def refused(folder: Path, variables: Mapping[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load(folder, variables)
    return caught.value.message


@pytest.mark.parametrize("variable", [name for name in DOCUMENTED if name != "TASTEMATCH_DATA_DIR"])
def test_defaults_are_the_documented_ones(tmp_path: Path, variable: str) -> None:
    names = {str(field.alias): name for name, field in Settings.model_fields.items()}

    assert getattr(load(tmp_path), names[variable]) == DOCUMENTED[variable]
    # An empty variable is one that is not set, as compose files write it.
    if DOCUMENTED[variable] is None:
        assert getattr(load(tmp_path, {variable: ""}), names[variable]) is None


def test_a_data_folder_that_is_empty_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings({"TASTEMATCH_DATA_DIR": ""}).data_dir == Path(".data")


def test_the_database_defaults_to_a_file_in_the_data_folder(tmp_path: Path) -> None:
    settings = load(tmp_path)

    assert settings.is_sqlite
    assert settings.sqlalchemy_url.database == str(tmp_path / "tastematch.db")
    assert load(tmp_path, {"DATABASE_URL": ""}).sqlalchemy_url == settings.sqlalchemy_url
    assert settings.database_address.database == settings.sqlalchemy_url.database

    odd = load(tmp_path, {"TASTEMATCH_DATA_DIR": f"{tmp_path}/100%41?#"})
    assert odd.sqlalchemy_url.database == f"{tmp_path}/100%41?#/tastematch.db"


@pytest.mark.parametrize(
    ("url", "password", "database"),
    [
        ("postgres://u:p@db:5432/shop", "p", "shop"),
        ("postgresql://u:p@db/shop?sslmode=require", "p", "shop"),
        ("postgres://u:p%40%2F%23@db/shop", "p@/#", "shop"),
        ("postgresql://u@[::1]:5433/shop?sslmode=disable", None, "shop"),
    ],
)
def test_addresses_as_hosts_give_them(
    tmp_path: Path, url: str, password: str | None, database: str
) -> None:
    parsed = load(tmp_path, {"DATABASE_URL": url}).sqlalchemy_url

    assert (parsed.drivername, parsed.password, parsed.database) == (
        "postgresql", password, database,
    )  # fmt: skip


WRONG = [
    ("DATABASE_URL", "mysql://u:TOPSECRET@db/shop"),
    ("DATABASE_URL", "postgresql+psycopg://u:TOPSECRET@db/shop"),
    ("DATABASE_URL", "postgres://u:TOPSECRET@db"),
    ("DATABASE_URL", "postgres://u:TOPSECRET@db:99999/shop"),
    ("DATABASE_URL", "postgres://u:TOPSECRET@db:port/shop"),
    ("DATABASE_URL", "postgres://u:TOPSECRET@db/shop?sslmode=TOPSECRET"),
    ("DATABASE_URL", "postgres://u:TOPSECRET@db/shop?unknown=1"),
    ("DATABASE_URL", "postgres://u:TOP@TOPSECRET@db/shop"),
    ("DATABASE_URL", "postgres://u:TOP@w/TOPSECRET@db/shop"),
    ("DATABASE_URL", "sqlite://TOPSECRET/shop.db"),
    ("DATABASE_URL", "sqlite://"),
    ("DATABASE_URL", "sqlite:///:memory:"),
    ("DATABASE_URL", "TOPSECRET"),
    ("REDIS_URL", "TOPSECRET"),
    ("REDIS_URL", "http://:TOPSECRET@host"),
    ("REDIS_URL", "redis://:TOPSECRET@host:99999"),
    ("REDIS_URL", "redis://:TOPSECRET@host/keys"),
    ("REDIS_URL", "redis://:TOPSECRET@host/0?socket_timeout=9"),
    ("TASTEMATCH_ENV", "TOPSECRET"),
    ("TASTEMATCH_NAMESPACE", "TOPSECRET:x"),
    ("TASTEMATCH_NAMESPACE", ""),
    ("TASTEMATCH_LOG_LEVEL", "TOPSECRET"),
    ("TASTEMATCH_CORS_ORIGINS", "TOPSECRET"),
    ("TASTEMATCH_CORS_ORIGINS", "https://shop.example/TOPSECRET"),
    ("TASTEMATCH_CORS_ORIGINS", "*"),
    ("TASTEMATCH_METRICS_PORT", "TOPSECRET"),
    ("TASTEMATCH_METRICS_PORT", "0"),
    ("TASTEMATCH_METRICS_PORT", "65536"),
    ("PORT", "TOPSECRET"),
    ("TASTEMATCH_PRECOMPUTE_CRON", "TOPSECRET"),
    ("TASTEMATCH_PRECOMPUTE_CRON", "61 * * * *"),
    ("TASTEMATCH_WORKER_MEMORY_MB", "TOPSECRET"),
    ("TASTEMATCH_WORKER_MEMORY_MB", "1"),
    ("TASTEMATCH_KEEP_SNAPSHOTS", "0"),
    ("TASTEMATCH_MAX_QUALITY_DROP", "-0.1"),
    ("TASTEMATCH_MAX_QUALITY_DROP", "1.01"),
    ("TASTEMATCH_MAX_QUALITY_DROP", "nan"),
    ("TASTEMATCH_MAX_QUALITY_DROP", "20%"),
    ("TASTEMATCH_CUISINE_CAP", "0"),
    ("TASTEMATCH_CUISINE_CAP", "11"),
    ("TASTEMATCH_CUISINE_CAP", "2.5"),
    ("TASTEMATCH_DASK_SCHEDULER", "TOPSECRET"),
    ("TASTEMATCH_DASK_SCHEDULER", "TOPSECRET:8786"),
    ("TASTEMATCH_DASK_SCHEDULER", "http://TOPSECRET:8786"),
    ("TASTEMATCH_DASK_SCHEDULER", "tcp://TOPSECRET"),
    ("TASTEMATCH_DASK_SCHEDULER", "tcp://:8786"),
    ("TASTEMATCH_DASK_SCHEDULER", "tcp://TOPSECRET:0"),
    ("TASTEMATCH_DASK_SCHEDULER", "tcp://TOPSECRET:99999"),
    ("TASTEMATCH_DASK_SCHEDULER", "tcp://TOPSECRET@dask:8786"),
    ("TASTEMATCH_DASK_SCHEDULER", "tcp://dask:8786/TOPSECRET"),
    ("TASTEMATCH_DASK_SCHEDULER", "tcp://dask:8786?x=TOPSECRET"),
    ("TASTEMATCH_SERVICE_TOKEN", "TOPSECRETé"),
    ("TASTEMATCH_VIEWER_TOKEN", "TOPSECRET and a blank"),
    ("TASTEMATCH_JWT_USER_CLAIM", ""),
    ("TASTEMATCH_JWT_MAX_LIFETIME_DAYS", "0"),
    ("TASTEMATCH_JWKS_FILE", "/TOPSECRET/keys.json"),
    ("DB_POOL_SIZE", "0"),
    ("DB_POOL_TIMEOUT", "nan"),
    ("DB_CONNECT_TIMEOUT", "-1"),
]


@pytest.mark.parametrize(("variable", "value"), WRONG)
def test_a_wrong_value_names_its_variable_and_stays_untold(
    tmp_path: Path, variable: str, value: str
) -> None:
    message = refused(tmp_path, {variable: value})

    assert message.startswith(f"{variable}: ")
    assert "TOPSECRET" not in message
    assert "\n" not in message


@pytest.mark.parametrize("address", ["tcp://dask:8786", "tls://[::1]:8786", "tcp://10.0.0.7:1"])
def test_addresses_of_schedulers(tmp_path: Path, address: str) -> None:
    settings = load(tmp_path, {"TASTEMATCH_DASK_SCHEDULER": address})

    assert settings.dask_scheduler == address


@pytest.mark.parametrize(("value", "number"), [("0", 0), ("0.05", 0.05), ("1", 1)])
def test_limits_of_a_drop(tmp_path: Path, value: str, number: float) -> None:
    assert load(tmp_path, {"TASTEMATCH_MAX_QUALITY_DROP": value}).max_quality_drop == number


def test_origins_are_separated_by_commas(tmp_path: Path) -> None:
    value = "https://shop.example, http://localhost:3000,"

    settings = load(tmp_path, {"TASTEMATCH_CORS_ORIGINS": value})

    assert settings.cors_origins == ("https://shop.example", "http://localhost:3000")


def test_an_empty_cron_means_only_when_triggered(tmp_path: Path) -> None:
    assert load(tmp_path, {"TASTEMATCH_PRECOMPUTE_CRON": ""}).precompute_cron == ""


def test_one_kind_of_key_at_a_time(tmp_path: Path) -> None:
    message = refused(
        tmp_path, {"TASTEMATCH_JWT_SECRET": SECRET, "TASTEMATCH_JWT_PUBLIC_KEY": "TOPSECRET"}
    )

    assert "TASTEMATCH_JWT_SECRET" in message
    assert "TASTEMATCH_JWT_PUBLIC_KEY" in message
    assert "TOPSECRET" not in message


def test_viewer_and_service_are_told_apart(tmp_path: Path) -> None:
    same = {"TASTEMATCH_SERVICE_TOKEN": SECRET, "TASTEMATCH_VIEWER_TOKEN": SECRET}

    assert refused(tmp_path, same).startswith("TASTEMATCH_VIEWER_TOKEN: ")


# Production


def test_production_takes_good_secrets(tmp_path: Path) -> None:
    settings = load(tmp_path, PRODUCTION)

    assert settings.is_production
    assert settings.viewer_token is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "sqlite:///shop.db"),
        ("DATABASE_URL", ""),
        ("TASTEMATCH_LOG_LEVEL", "DEBUG"),
        ("TASTEMATCH_JWT_SECRET", ""),
        ("TASTEMATCH_JWT_SECRET", "TOPSECRET-of-31-bytes-0123456789"[:31]),
        ("TASTEMATCH_SERVICE_TOKEN", ""),
        ("TASTEMATCH_SERVICE_TOKEN", "TOPSECRET"),
        ("TASTEMATCH_VIEWER_TOKEN", "TOPSECRET"),
    ],
)
def test_production_refuses(tmp_path: Path, variable: str, value: str) -> None:
    message = refused(tmp_path, PRODUCTION | {variable: value})

    assert message.startswith(f"{variable}: ")
    assert "TOPSECRET" not in message
    assert list(tmp_path.iterdir()) == []


# Generated secrets


def secrets_of(settings: Settings) -> list[str]:
    values = (settings.jwt_secret, settings.service_token, settings.viewer_token)
    return [value.get_secret_value() for value in values if value is not None]


def test_development_generates_secrets_once_for_all_commands(tmp_path: Path) -> None:
    first, second = load(tmp_path / "data"), load(tmp_path / "data")

    assert secrets_of(first) == secrets_of(second)
    assert len(set(secrets_of(first))) == 3
    assert all(len(secret) >= 32 for secret in secrets_of(first))
    file = tmp_path / "data" / "secrets.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert secrets_of(load(tmp_path / "other")) != secrets_of(first)


def test_what_is_set_is_not_generated(tmp_path: Path) -> None:
    settings = load(tmp_path, {"TASTEMATCH_SERVICE_TOKEN": "mine"})

    assert settings.service_token is not None
    assert settings.service_token.get_secret_value() == "mine"
    assert load(tmp_path, {"TASTEMATCH_JWT_PUBLIC_KEY": "pem"}).jwt_secret is None


def _load_secrets(folder: Path) -> list[str]:
    return secrets_of(load(folder))


def test_processes_that_start_together_share_the_secrets(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        seen = pool.map(_load_secrets, [tmp_path] * 12)

    assert all(secrets == seen[0] for secrets in seen)
    assert [path.name for path in tmp_path.iterdir()] == ["secrets.json"]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"jwt_secret": "TOPSECRET"}', "\xff"])
def test_a_damaged_secrets_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "secrets.json").write_text(content, encoding="latin-1")

    message = refused(tmp_path, {})

    assert message.startswith("TASTEMATCH_DATA_DIR: ")
    assert "secrets.json" in message
    assert "TOPSECRET" not in message


def test_a_data_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert refused(tmp_path / "file", {}).startswith("TASTEMATCH_DATA_DIR: ")


# Description


def test_each_setting_is_described_with_its_source(tmp_path: Path) -> None:
    environ = {"TASTEMATCH_DATA_DIR": str(tmp_path), "DB_POOL_SIZE": "7", "REDIS_URL": ""}
    rows = {row["name"]: row for row in describe_settings(load_settings(environ), environ)}

    assert set(rows) == {str(field.alias) for field in Settings.model_fields.values()}
    assert (rows["DB_POOL_SIZE"]["value"], rows["DB_POOL_SIZE"]["source"]) == ("7", "environment")
    assert rows["DB_MAX_OVERFLOW"]["source"] == "default"
    assert rows["REDIS_URL"]["source"] == "default"
    assert rows["TASTEMATCH_SERVICE_TOKEN"]["source"] == "generated"
    assert rows["TASTEMATCH_JWT_PUBLIC_KEY"]["value"] == ""


def test_no_secret_is_described(tmp_path: Path) -> None:
    environ = PRODUCTION | {
        "TASTEMATCH_DATA_DIR": str(tmp_path),
        "DATABASE_URL": "postgres://shop:MARK-1@db/shop",
        "REDIS_URL": "redis://user:MARK-2@cache:6379/1",
        "TASTEMATCH_JWT_SECRET": "MARK-3" * 10,
        "TASTEMATCH_SERVICE_TOKEN": "MARK-4" * 10,
        "TASTEMATCH_VIEWER_TOKEN": "MARK-5" * 10,
    }
    settings = load_settings(environ)

    shown = json.dumps(describe_settings(settings, environ))

    assert "MARK" not in shown
    assert "cache:6379/1" in shown
    assert "@db/shop" in shown
    assert "MARK" not in repr(settings) + str(settings)
