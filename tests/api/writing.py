"""An API over a database of a test's own, for what is written through it and stands there then."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from httpx import Response
from sqlalchemy import Engine, Row, insert, select

from shared.db.engine import sync_engine
from shared.db.models import Audit, Change
from shared.settings import Settings, load_settings
from tests.api.running import Api, running

NDJSON = {"Content-Type": "application/x-ndjson"}


@dataclass(frozen=True, slots=True)
class Writing:
    api: Api
    engine: Engine

    def add(self, model: Any, *rows: Mapping[str, Any]) -> None:
        with self.engine.begin() as connection:
            for row in rows:
                connection.execute(insert(model).values(row))

    def rows(self, *columns: Any) -> list[Row[Any]]:
        """All rows of these columns, in the order of the first."""
        with self.engine.connect() as connection:
            return list(connection.execute(select(*columns).order_by(columns[0])))

    def changes(self, subject: str) -> dict[int, int]:
        """The revision of each subject that changed."""
        return {
            row.subject_id: row.revision
            for row in self.rows(Change.subject_id, Change.revision, Change.subject)
            if row.subject == subject
        }

    def audit(self) -> list[tuple[str, str, str, dict[str, Any]]]:
        """(actor, action, subject, detail without the request) of each row, the oldest first."""
        rows = self.rows(Audit.id, Audit.actor, Audit.action, Audit.subject, Audit.detail)
        for row in rows:
            assert row.detail["request_id"]
        told = []
        for row in rows:
            detail = {name: value for name, value in row.detail.items() if name != "request_id"}
            told.append((row.actor, row.action, row.subject, detail))
        return told

    async def put_lines(self, path: str, lines: Iterable[Any]) -> list[dict[str, Any]]:
        """The outcomes of lines, each a JSON value or bytes as they are."""
        body = b"\n".join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines)
        answer = await self.api.client.put(path, content=body, headers=self.api.as_service | NDJSON)
        assert answer.status_code == 200, answer.text
        return outcomes(answer)


def outcomes(answer: Response) -> list[dict[str, Any]]:
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.text.endswith("\n") or not answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def shortly(told: Iterable[Mapping[str, Any]]) -> list[tuple[int, int | None, str]]:
    return [(each["line"], each["id"], each["outcome"]) for each in told]


@asynccontextmanager
async def writing(database_url: str, folder: Path) -> AsyncIterator[Writing]:
    settings: Settings = load_settings(
        {"TASTEMATCH_DATA_DIR": str(folder / "data"), "DATABASE_URL": database_url}
    )
    engine = sync_engine(settings)
    try:
        async with running(settings) as api:
            yield Writing(api, engine)
    finally:
        engine.dispose()
