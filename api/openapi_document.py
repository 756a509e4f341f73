"""The OpenAPI document of the API: what FastAPI collects of the routes, made whole.

It depends on nothing but the code, so that the committed `openapi.json` is true on every machine
(`python -m api.write_openapi` writes it).
"""

from __future__ import annotations

from typing import Any

from api.documented import COMPONENTS, PROBLEM_CONTENT
from api.documented_headers import describe_headers, header_components
from api.documented_operation import OPERATION_SCHEMAS
from api.documented_orders import ORDER_SCHEMAS
from api.documented_writes import WRITE_SCHEMAS

DESCRIPTION = (
    "Restaurant recommendations as ids, best first, and the restaurants' metadata to join them "
    "with. Errors are RFC 9457 problem documents. Every GET also answers HEAD. Unknown query "
    "parameters are refused. Every answer names its request in `X-Request-ID`."
)

TAGS = (
    ("recommendations", "What to show to whom. An answer names its snapshot and its source."),
    ("restaurants", "What a frontend shows of restaurants; public and cacheable."),
    ("lists", "The same for everybody; public and cacheable."),
    ("orders", "What users order; written to the database before it is answered."),
    ("preferences", "What users like, and what they do not want to see."),
    ("users", "Users as the shop's backend knows them."),
    ("jobs", "Background work, for schedulers and operators."),
    ("snapshots", "The published versions, for operators."),
    ("operation", "For load balancers and monitoring."),
)

_ANY_ERROR = {"description": "Any other error, in the same form.", "content": PROBLEM_CONTENT}


def complete_document(document: dict[str, Any]) -> None:
    """Adds in place what the routes refer to by name, and what concerns all of them."""
    document["info"]["description"] = DESCRIPTION
    document["tags"] = [{"name": name, "description": text} for name, text in TAGS]
    components = document.setdefault("components", {})
    for kind, entries in COMPONENTS.items():
        components.setdefault(kind, {}).update(entries)
    components["schemas"].update(OPERATION_SCHEMAS | ORDER_SCHEMAS | WRITE_SCHEMAS)
    components["headers"] = header_components()
    for operations in document["paths"].values():
        for operation in operations.values():
            responses = operation["responses"]
            responses.setdefault("default", _ANY_ERROR)
            # Routes share pieces; what is added here belongs to one response of one route.
            operation["responses"] = {status: dict(piece) for status, piece in responses.items()}
            describe_headers(operation)
            if "parameters" in operation:
                operation["parameters"] = _each_once(operation["parameters"])


def _each_once(parameters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last of a name wins: a route's own words over what FastAPI made of its signature."""
    found = {(parameter["in"], parameter["name"]): parameter for parameter in parameters}
    return list(found.values())
