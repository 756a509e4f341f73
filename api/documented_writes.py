"""Pieces of the OpenAPI document for what is written: preferences, and rows of the catalogue."""

from __future__ import annotations

from typing import Any

from api.documented import json_response

_ID: dict[str, Any] = {"type": "integer", "format": "int64", "minimum": 0}
_LINES = "application/x-ndjson"
# What no text holds; a name holds something besides blanks.
_CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f"
_NOT_BLANK = rf"^[^{_CONTROLS}]*[^\s\x85{_CONTROLS}][^{_CONTROLS}]*$"
_ONE_CUISINE = _NOT_BLANK.replace("[^", "[^|")
_ADDRESS = rf"[hH][tT]{{2}}[pP][sS]?://[^\s/?#\\@{_CONTROLS}]+([/?#][^\s{_CONTROLS}]*)?"


def _text(max_chars: int) -> dict[str, Any]:
    return {"type": ["string", "null"], "maxLength": max_chars, "pattern": f"^[^{_CONTROLS}]*$"}


def _number(low: float, high: float) -> dict[str, Any]:
    return {"type": ["number", "null"], "minimum": low, "maximum": high}


_NAME: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": _NOT_BLANK}
_RESTAURANT: dict[str, Any] = {
    "name": _NAME,
    "cuisine_type": _text(200)
    | {"description": "One cuisine, or several separated by `|`, the main one first."},
    "description": _text(65_535),
    "rating": _number(0, 5),
    "price_range": {"type": ["integer", "null"], "minimum": 1, "maximum": 4},
    "city": _text(100),
    "latitude": _number(-90, 90),
    "longitude": _number(-180, 180),
    "image_url": _text(2_048) | {"pattern": f"^ *({_ADDRESS})? *$"},
    "is_active": {"type": "boolean"},
}
_TASTE: dict[str, Any] = {
    "cuisines": {
        "type": ["array", "null"],
        "maxItems": 20,
        "items": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": _ONE_CUISINE},
    },
    "price_ranges": {
        "type": ["array", "null"],
        "maxItems": 4,
        "items": {"type": "integer", "minimum": 1, "maximum": 4},
    },
    "city": _text(100),
}

WRITE_SCHEMAS: dict[str, Any] = {
    "RestaurantRow": {
        "type": "object",
        "description": "All of a restaurant; what is absent is empty, and `is_active` true.",
        "required": ["id", "name"],
        "additionalProperties": False,
        "properties": {"id": _ID, **_RESTAURANT},
    },
    "RestaurantChange": {
        "type": "object",
        "description": "What is absent stays as it is.",
        "additionalProperties": False,
        "properties": _RESTAURANT,
    },
    "UserRow": {
        "type": "object",
        "description": "All of a user; what is absent is empty.",
        "required": ["id"],
        "additionalProperties": False,
        "properties": {"id": _ID, "name": _text(200), "email": _text(254), "city": _text(100)},
    },
    "Outcome": {
        "type": "object",
        "required": ["line", "id", "outcome"],
        "properties": {
            "line": {"type": "integer", "minimum": 1},
            "id": {"anyOf": [_ID, {"type": "null"}]},
            "outcome": {
                "type": "string",
                "enum": ["created", "updated", "unchanged", "rejected"],
            },
            "errors": {
                "type": "array",
                "description": "Why it is rejected.",
                "items": {"$ref": "#/components/schemas/FieldError"},
            },
        },
    },
    "Preferences": {
        "type": "object",
        "required": ["cuisines", "price_ranges", "city", "hidden"],
        "properties": {
            "cuisines": {"type": "array", "items": {"type": "string"}, "maxItems": 20},
            "price_ranges": {"type": "array", "items": {"type": "integer"}, "maxItems": 4},
            "city": {"type": ["string", "null"]},
            "hidden": {
                "type": "array",
                "description": "Restaurants that are not shown to this user, ascending.",
                "items": _ID,
                "maxItems": 1000,
            },
        },
    },
}


def rows_body(schema: str) -> dict[str, Any]:
    """The request body of a route that takes one object of that component a line."""
    return {
        "requestBody": {
            "required": True,
            "content": {
                _LINES: {
                    "schema": {
                        "type": "string",
                        "description": f"One JSON object a line, each a `{schema}`.",
                    }
                }
            },
        }
    }


def _json_body(schema: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


ROW_OUTCOMES: dict[str, Any] = {
    "description": "One `Outcome` a line, in the order of the lines.",
    "content": {_LINES: {"schema": {"type": "string"}}},
}
RESTAURANT_ROWS = rows_body("RestaurantRow")
USER_ROWS = rows_body("UserRow")
RESTAURANT_CHANGE = _json_body({"$ref": "#/components/schemas/RestaurantChange"})

PREFERENCES = json_response("All that the user said.", {"$ref": "#/components/schemas/Preferences"})
PREFERENCES_BODY = _json_body(
    {"type": "object", "additionalProperties": False, "properties": _TASTE}
)
HIDDEN: dict[str, Any] = {"description": "It is so, whether or not it was before."}
ERASED: dict[str, Any] = {"description": "There is no such user, whether or not there was one."}
