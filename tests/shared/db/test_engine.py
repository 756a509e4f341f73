"""Database addresses as hosts give them, and what is said when one does not work."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, urlsplit

import psycopg2
import pytest
from psycopg2 import sql
from sqlalchemy import text

from shared.db.engine import async_engine, sync_engine
from shared.settings import load_settings
from tests.services.postgres import PostgresDatabases, PostgresServer, database_name
from tests.services.processes import run_tastematch

PASSWORD = "p@ss/w#rd%:?& secret"


def with_user(url: str, user: str, password: str, *, scheme: str = "postgres") -> str:
    parts = urlsplit(url)
    netloc = f"{quote(user, safe='')}:{quote(password, safe='')}@{parts.hostname}:{parts.port}"
    return parts._replace(scheme=scheme, netloc=netloc).geturl()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
@pytest.mark.parametrize("query", ["", "?sslmode=disable", "?sslmode=prefer&application_name=shop"])
async def test_forms_that_hosts_give(
    postgres_url: str, tmp_path: Path, scheme: str, query: str
) -> None:
    url = with_user(postgres_url, "postgres", PASSWORD, scheme=scheme) + query
    settings = load_settings({"DATABASE_URL": url, "TASTEMATCH_DATA_DIR": str(tmp_path)})
    synchronous = sync_engine(settings)
    with synchronous.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM orders")) == 0
    synchronous.dispose()
    engine = async_engine(settings)
    async with engine.connect() as awaited:
        assert await awaited.scalar(text("SELECT count(*) FROM orders")) == 0
    await engine.dispose()


def test_a_password_with_special_characters_reaches_the_server(tmp_path: Path) -> None:
    server = PostgresServer(settings={"password_encryption": "scram-sha-256"})
    try:
        server.start()
        url = server.create_database()
        with psycopg2.connect(server.databases.admin_url) as connection:
            role = sql.SQL("CREATE ROLE shop LOGIN SUPERUSER PASSWORD {}")
            connection.cursor().execute(role.format(sql.Literal(PASSWORD)))
        connection.close()
        (server.data_folder / "pg_hba.conf").write_text(
            "host all postgres 127.0.0.1/32 trust\nhost all shop 127.0.0.1/32 scram-sha-256\n"
        )
        server.restart()
        good = run_tastematch(
            "migrate", env={"DATABASE_URL": with_user(url, "shop", PASSWORD) + "?sslmode=disable"}
        )
        assert (good.returncode, good.stderr) == (0, "")
        wrong = run_tastematch(
            "migrate", env={"DATABASE_URL": with_user(url, "shop", f"{PASSWORD}!")}
        )
        assert (wrong.returncode, wrong.stdout) == (4, "")
        assert wrong.stderr == (
            "tastematch: the database at DATABASE_URL cannot be used (password refused)\n"
        )
    finally:
        server.stop()


@pytest.mark.parametrize("command", ["migrate", "import"])
def test_tls_that_the_server_does_not_offer_is_one_line(
    postgres_url: str, tmp_path: Path, command: str
) -> None:
    (tmp_path / "users.csv").write_text("id\n1\n")
    url = with_user(postgres_url, "postgres", PASSWORD) + "?sslmode=require"
    words = (command, str(tmp_path)) if command == "import" else (command,)
    done = run_tastematch(*words, env={"DATABASE_URL": url})
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == (
        "tastematch: the database at DATABASE_URL cannot be used (the server offers no TLS)\n"
    )


def test_a_role_without_rights_is_one_line(
    postgres: PostgresDatabases, postgres_url: str, tmp_path: Path
) -> None:
    role = f"reader_{database_name(postgres_url)}"
    (tmp_path / "users.csv").write_text("id\n1\n")
    with psycopg2.connect(postgres_url) as connection:
        cursor = connection.cursor()
        cursor.execute(f"CREATE ROLE {role} LOGIN")
        cursor.execute(f"GRANT SELECT ON alembic_version TO {role}")
    try:
        done = run_tastematch(
            "import",
            str(tmp_path),
            env={"DATABASE_URL": with_user(postgres_url, role, "unused-word")},
        )
    finally:
        with connection:
            connection.cursor().execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        connection.close()
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == (
        "tastematch: the database at DATABASE_URL cannot be used (permission denied)\n"
    )
