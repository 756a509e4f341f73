"""Pieces of the OpenAPI document for orders. Nothing here runs per request."""

from __future__ import annotations

from typing import Any, Final

from api.documented import json_response

MAX_BATCH_LINES: Final = 1000

_ID: dict[str, Any] = {"type": "integer", "format": "int64", "minimum": 0}
_TEXT: dict[str, Any] = {"type": "string"}
_INSTANT: dict[str, Any] = {"type": "string", "format": "date-time"}
_AMOUNT: dict[str, Any] = {"type": ["number", "null"], "minimum": 0}
_RATING: dict[str, Any] = {"type": ["number", "null"], "minimum": 1, "maximum": 5}

_SENT: dict[str, Any] = {
    "total_amount": _AMOUNT
    | {
        "exclusiveMaximum": 10**10,
        "description": "In your currency, with at most four decimals.",
    },
    "rating": _RATING,
}

ORDER_SCHEMAS: dict[str, Any] = {
    "Order": {
        "type": "object",
        "required": ["id", "restaurant", "order_date", "total_amount", "rating"],
        "properties": {
            "id": _ID,
            "restaurant": {
                "type": "object",
                "required": ["id", "name", "image_url"],
                "properties": {
                    "id": _ID,
                    "name": _TEXT,
                    "image_url": {"type": ["string", "null"]},
                },
            },
            "order_date": _INSTANT,
            "total_amount": _AMOUNT,
            "rating": _RATING,
        },
    },
    "NewOrder": {
        "type": "object",
        "required": ["restaurant_id"],
        "additionalProperties": False,
        "properties": {
            "restaurant_id": _ID | {"description": "An active restaurant."},
            **_SENT,
            "order_date": {
                "type": ["string", "null"],
                "format": "date-time",
                "description": "By default now; never in the future.",
            },
        },
    },
    "BatchOrder": {
        "type": "object",
        "required": ["id", "user_id", "restaurant_id", "order_date"],
        "additionalProperties": False,
        "properties": {
            "id": _ID,
            "user_id": _ID,
            "restaurant_id": _ID,
            "order_date": _INSTANT,
            **_SENT,
        },
    },
}

_ORDER = {"$ref": "#/components/schemas/Order"}

ORDER = json_response("The order, which is committed.", _ORDER)

ORDERS = json_response(
    'One page; `Link` with `rel="next"` leads to the next.',
    {
        "type": "object",
        "required": ["items", "next_cursor"],
        "properties": {
            "items": {"type": "array", "items": _ORDER, "maxItems": 50},
            "next_cursor": {"type": ["string", "null"]},
        },
    },
)

ORDER_REQUEST: dict[str, Any] = {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": (
                "The same key with the same body gets the same answer again, and places nothing; "
                "with another body 422. Kept for a day at least."
            ),
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
        }
    ],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/NewOrder"}}},
    },
}

BATCH_REQUEST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-ndjson": {
                "schema": {
                    "type": "string",
                    "description": (
                        f"One JSON object a line, each a `BatchOrder`; {MAX_BATCH_LINES} at most."
                    ),
                }
            }
        },
    },
}
