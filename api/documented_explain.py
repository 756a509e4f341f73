"""Pieces of the OpenAPI document for the look into one user. Nothing here runs per request."""

from __future__ import annotations

from typing import Any

from api.documented import DETAILED_LIST, json_response

_ID: dict[str, Any] = {"type": "integer", "format": "int64", "minimum": 0}
_TEXT: dict[str, Any] = {"type": "string"}
_SOURCE: dict[str, Any] = {
    "type": "string",
    "enum": ["personal", "preferences", "popular-city", "popular"],
}


def _object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties, **more}


def _list_of(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


def _item() -> dict[str, Any]:
    """As in the detailed form, with the names of what a reason rests on."""
    detailed = DETAILED_LIST["content"]["application/json"]["schema"]
    item: dict[str, Any] = detailed["properties"]["items"]["items"]
    reason = item["properties"]["reason"]
    named = reason["properties"] | {"restaurant_names": _list_of(_TEXT)}
    return item | {"properties": item["properties"] | {"reason": _object(named)}}


_LIST = _object({"source": _SOURCE, "items": _list_of(_item())})

EXPLANATION = json_response(
    "The user's newest orders, and each list with the reason for each restaurant.",
    _object(
        {
            "user_id": _ID,
            "is_known": {"type": "boolean", "description": "Whether the snapshot has a record."},
            "city": {"type": ["string", "null"]},
            "source": _SOURCE,
            "snapshot_version": _TEXT,
            "metadata_version": _TEXT,
            "generated_at": {"type": "string", "format": "date-time"},
            "changes": _object(
                {
                    "revision": {
                        "type": "integer",
                        "format": "int64",
                        "description": "Of lists that were made anew since; 0: the snapshot's.",
                    },
                    "is_erased": {"type": "boolean"},
                    "new_orders": _list_of(_ID),
                    "hidden": _list_of(_ID),
                },
                description="What holds beside the snapshot.",
            ),
            "history": _object(
                {
                    "items": _list_of({"$ref": "#/components/schemas/Order"}),
                    "has_more": {"type": "boolean"},
                },
                description="From the database, the newest first.",
            ),
            "lists": _object({"for_you": _LIST, "discover": _LIST, "order_again": _LIST}),
        }
    ),
)
