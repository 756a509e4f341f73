"""Pieces of the OpenAPI document that several routes share. Nothing here runs per request."""

from __future__ import annotations

from typing import Any

SECURED: dict[str, Any] = {"security": [{"bearer": []}]}

COMPONENTS: dict[str, Any] = {
    "securitySchemes": {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "A user's JWT, the service token or the viewer token.",
        }
    },
    "schemas": {
        "Problem": {
            "type": "object",
            "description": "RFC 9457; `code` is what programs compare.",
            "required": ["type", "title", "status", "detail", "code", "request_id"],
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "code": {"type": "string"},
                "request_id": {"type": "string"},
                "errors": {
                    "type": "array",
                    "items": {"$ref": "#/components/schemas/FieldError"},
                },
            },
        },
        "FieldError": {
            "type": "object",
            "description": "One bad value: where it stands, its name, what is wrong.",
            "required": ["in", "name", "detail"],
            "properties": {
                "in": {"type": "string"},
                "name": {"type": "string"},
                "detail": {"type": "string"},
            },
        },
        "RestaurantProjection": {
            "type": "object",
            "required": [
                "id",
                "name",
                "cuisine_type",
                "rating",
                "price_range",
                "city",
                "image_url",
            ],
            "properties": {
                "id": {"type": "integer", "format": "int64"},
                "name": {"type": "string"},
                "cuisine_type": {"type": ["string", "null"]},
                "rating": {"type": ["number", "null"]},
                "price_range": {"type": ["integer", "null"]},
                "city": {"type": ["string", "null"]},
                "image_url": {"type": ["string", "null"]},
            },
        },
    },
}

PROBLEM_CONTENT: dict[str, Any] = {
    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
}

_ID: dict[str, Any] = {"type": "integer", "format": "int64"}
_PROJECTION = {"$ref": "#/components/schemas/RestaurantProjection"}


def json_response(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Entries for the problem documents a route may answer with."""
    return {
        status: {"description": _MEANINGS[status], "content": PROBLEM_CONTENT}
        for status in statuses
    }


_MEANINGS = {
    400: "The request cannot be read.",
    401: "No valid bearer token.",
    403: "The token is good, but not for this.",
    404: "There is no such thing.",
    406: "No acceptable content coding.",
    408: "The body did not arrive in time.",
    409: "The state of the thing does not allow this.",
    410: "The snapshot that the cursor belongs to is no longer kept: begin again without it.",
    413: "The body is too large: see `detail`.",
    415: "The body is not of the media type that is read here.",
    422: "A parameter is unknown or its value is not valid.",
    503: "Not now: see `code` and `Retry-After`.",
}

UNCHANGED: dict[int | str, dict[str, Any]] = {
    304: {"description": "`If-None-Match` names what the client has already."}
}

ID_LIST = json_response(
    "Restaurant ids, best first.", {"type": "array", "items": _ID, "maxItems": 50}
)

DETAILED_LIST = json_response(
    "The list joined with the restaurants, and the reason for each.",
    {
        "type": "object",
        "required": [
            "items",
            "list",
            "snapshot_version",
            "metadata_version",
            "generated_at",
            "next_cursor",
        ],
        "properties": {
            "items": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["id", "source", "reason", "restaurant"],
                    "properties": {
                        "id": _ID,
                        "source": {
                            "type": "string",
                            "enum": ["personal", "preferences", "popular-city", "popular"],
                        },
                        "reason": {
                            "type": "object",
                            "required": ["code", "restaurant_ids"],
                            "properties": {
                                "code": {
                                    "type": "string",
                                    "enum": [
                                        "ordered-before",
                                        "similar-to",
                                        "preference",
                                        "popular-in-city",
                                        "popular",
                                        "new",
                                    ],
                                },
                                "restaurant_ids": {"type": "array", "items": _ID},
                            },
                        },
                        "restaurant": _PROJECTION,
                    },
                },
            },
            "list": {"type": "string"},
            "snapshot_version": {"type": "string"},
            "metadata_version": {"type": "string"},
            "generated_at": {"type": "string", "format": "date-time"},
            "next_cursor": {"type": ["string", "null"]},
        },
    },
)


def _metadata_form(kind: str, description: str, fields: dict[str, Any]) -> dict[str, Any]:
    properties = {"kind": {"type": "string", "enum": [kind]}, "version": {"type": "string"}}
    return {
        "type": "object",
        "description": description,
        "required": [*properties, *fields],
        "properties": properties | fields,
    }


_PROJECTIONS: dict[str, Any] = {"type": "array", "items": _PROJECTION}

METADATA = json_response(
    "One of three forms; `kind` tells which.",
    {
        "oneOf": [
            _metadata_form(
                "full", "All active restaurants, ascending by id.", {"restaurants": _PROJECTIONS}
            ),
            _metadata_form(
                "delta",
                "What makes the version `from` the newest one, ascending by id.",
                {
                    "from": {"type": "string"},
                    "changed": _PROJECTIONS,
                    "removed": {"type": "array", "items": _ID},
                },
            ),
            _metadata_form(
                "subset",
                "The restaurants asked for.",
                {"restaurants": _PROJECTIONS | {"maxItems": 100}},
            ),
        ]
    },
)

CATALOGUE = json_response(
    "A page of active restaurants.",
    {
        "type": "object",
        "required": ["items", "next_cursor"],
        "properties": {
            "items": {"type": "array", "items": _PROJECTION, "maxItems": 50},
            "next_cursor": {"type": ["string", "null"]},
        },
    },
)

RESTAURANT = json_response(
    "Everything a visitor may see of one restaurant.",
    {
        "allOf": [
            _PROJECTION,
            {
                "type": "object",
                "required": ["description", "latitude", "longitude", "is_active"],
                "properties": {
                    "description": {"type": ["string", "null"]},
                    "latitude": {"type": ["number", "null"]},
                    "longitude": {"type": ["number", "null"]},
                    "is_active": {"type": "boolean"},
                },
            },
        ]
    },
)

HEALTH = json_response(
    "The process answers.",
    {
        "type": "object",
        "required": ["status"],
        "properties": {"status": {"type": "string", "enum": ["ok"]}},
    },
)

READINESS = json_response(
    "This process can serve lists; `degraded` names in `checks` what does not answer.",
    {
        "type": "object",
        "required": ["status", "checks"],
        "properties": {
            "status": {"type": "string", "enum": ["ready", "degraded", "unavailable"]},
            "reason": {"type": "string"},
            "checks": {
                "type": "object",
                "required": ["store", "database", "worker", "snapshot"],
                "properties": {
                    "store": {"type": "string", "enum": ["ok", "down", "empty"]},
                    "database": {"type": "string", "enum": ["ok", "down", "not-migrated"]},
                    "worker": {"type": "string", "enum": ["ok", "down", "unknown"]},
                    "snapshot": {
                        "type": "object",
                        "required": ["version", "age_seconds"],
                        "properties": {
                            "version": {"type": ["string", "null"]},
                            "age_seconds": {"type": ["integer", "null"]},
                            "problem": {"type": "string"},
                        },
                    },
                },
            },
        },
    },
)
