"""`openapi.json`: the committed document is the one the code makes, and says what clients need."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api import problems
from api.write_openapi import DEFAULT_PATH, openapi_bytes
from tests.api.running import Api
from tests.services.processes import REPOSITORY

DOCUMENT: dict[str, Any] = json.loads(DEFAULT_PATH.read_bytes())

OPERATION_IDS = {
    "activateSnapshot",
    "cancelJob",
    "changeRestaurant",
    "createOrder",
    "eraseUser",
    "explainUser",
    "getHealth",
    "getJob",
    "getMetadata",
    "getMyPreferences",
    "getReadiness",
    "getRestaurant",
    "hideRestaurant",
    "listJobs",
    "listMyDetailedRecommendations",
    "listMyOrders",
    "listMyRecommendations",
    "listPublic",
    "listRestaurants",
    "listSimilarRestaurants",
    "listSnapshots",
    "listUserDetailedRecommendations",
    "listUserRecommendations",
    "putMyPreferences",
    "putOrders",
    "putRestaurants",
    "putUsers",
    "triggerPrecompute",
    "unhideRestaurant",
    "unpinSnapshots",
}
PUBLIC = {
    "getHealth",
    "getMetadata",
    "getReadiness",
    "getRestaurant",
    "listPublic",
    "listRestaurants",
    "listSimilarRestaurants",
}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def schemas(value: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of the document with the member under which it stands."""
    if isinstance(value, dict):
        yield name, value
        for key, member in value.items():
            yield from schemas(member, key)
    elif isinstance(value, list):
        for member in value:
            yield from schemas(member, name)


def test_the_committed_document_is_the_one_the_code_makes() -> None:
    assert DEFAULT_PATH.read_bytes() == openapi_bytes(), "run: python -m api.write_openapi"


async def test_the_served_document_is_the_committed_one(empty_api: Api) -> None:
    answer = await empty_api.client.get("/openapi.json")

    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == DOCUMENT


def test_each_operation_has_the_verb_a_client_wants() -> None:
    found = [operation["operationId"] for _, _, operation in operations()]

    assert sorted(found) == sorted(OPERATION_IDS)
    for _, _, operation in operations():
        assert operation["summary"]
        assert set(operation["tags"]) <= {tag["name"] for tag in DOCUMENT["tags"]}


def test_ids_are_64_bit_integers() -> None:
    ids = [
        schema
        for name, schema in schemas(DOCUMENT)
        if name in ("id", "user_id", "restaurant_id", "restaurant_ids") and "type" in schema
    ]
    for _, _, operation in operations():
        ids += [
            parameter["schema"]
            for parameter in operation.get("parameters", ())
            if parameter["name"] in ("user_id", "restaurant_id")
        ]
        if operation["operationId"].startswith(("listMyRec", "listUserRec", "listP", "listSim")):
            ids.append(operation["responses"]["200"]["content"]["application/json"]["schema"])
    assert len(ids) > 8
    for schema in ids:
        inner = schema["items"] if schema["type"] == "array" else schema
        if inner["type"] == "string":  # a job's own id
            continue
        assert (inner["type"], inner["format"]) == ("integer", "int64")


def test_parameters_in_the_path_are_declared_once() -> None:
    for _, path, operation in operations():
        declared = [(p["in"], p["name"]) for p in operation.get("parameters", ())]
        assert len(set(declared)) == len(declared)
        in_path = {name for place, name in declared if place == "path"}
        assert in_path == {piece.partition("}")[0] for piece in path.split("{")[1:]}


def test_errors_are_problem_documents() -> None:
    reference = {"$ref": "#/components/schemas/Problem"}
    for _, _, operation in operations():
        assert "default" in operation["responses"]
        for status, response in operation["responses"].items():
            if status.startswith(("4", "5", "default")) and operation["operationId"] != (
                "getReadiness"
            ):
                assert response["content"] == {"application/problem+json": {"schema": reference}}
    problem = DOCUMENT["components"]["schemas"]["Problem"]
    assert {"type", "title", "status", "detail", "code", "request_id"} <= set(problem["required"])


def test_who_needs_a_token_is_declared() -> None:
    schemes = DOCUMENT["components"]["securitySchemes"]
    for _, _, operation in operations():
        is_public = operation["operationId"] in PUBLIC
        assert ("security" in operation) != is_public
        if not is_public:
            assert all(set(entry) <= set(schemes) for entry in operation["security"])
            assert {"401", "403"} <= set(operation["responses"])


def test_every_reference_leads_somewhere() -> None:
    for _, schema in schemas(DOCUMENT):
        if "$ref" in schema:
            target: Any = DOCUMENT
            for step in schema["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            assert target


@pytest.mark.parametrize(
    "operation", [o for _, _, o in operations()], ids=lambda o: o["operationId"]
)
def test_statuses_are_ones_the_api_gives(operation: dict[str, Any]) -> None:
    known = {problem.status for problem in problems.PROBLEMS.values()} | {200, 201, 202, 204, 304}

    assert {int(s) for s in operation["responses"] if s != "default"} <= known


async def test_operations_answer_as_declared(api: Api) -> None:
    """One call of each GET: its status and content type stand in the document."""
    values = {
        "user_id": "42",
        "restaurant_id": "101",
        "list_name": "new",
        "job_id": "0" * 32,
    }
    for method, path, operation in operations():
        if method != "get":
            continue
        headers = api.as_service
        if "My" in operation["operationId"]:
            headers = api.as_user(42)
        answer = await api.client.get(path.format_map(values), headers=headers)
        declared = operation["responses"].get(str(answer.status_code))
        assert declared is not None, (path, answer.status_code)
        assert answer.headers["content-type"] in declared["content"]


def test_the_document_knows_nothing_of_this_machine() -> None:
    text = DEFAULT_PATH.read_text()

    assert "localhost" not in text
    assert str(Path.home()) not in text


def test_every_code_is_explained_to_clients() -> None:
    explained = (REPOSITORY / "docs" / "api.md").read_text()
    standing = [value for value in vars(problems).values() if isinstance(value, problems.Problem)]
    codes = {problem.code for problem in (*standing, *problems.PROBLEMS.values())}
    assert {code for code in codes if f"`{code}`" not in explained} == set()
