"""Pieces of the OpenAPI document for what operators read: jobs and snapshots."""

from __future__ import annotations

from typing import Any

from api.documented import json_response

_TEXT: dict[str, Any] = {"type": "string"}
_NUMBER: dict[str, Any] = {"type": "number"}
_COUNT: dict[str, Any] = {"type": "integer", "format": "int64", "minimum": 0}
_INSTANT: dict[str, Any] = {"type": "string", "format": "date-time"}
_CURSOR: dict[str, Any] = {"type": ["string", "null"]}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return schema | {"type": [schema["type"], "null"]}


def _object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties, **more}


_STAGES = {"type": "array", "items": _object({"name": _TEXT, "seconds": _NUMBER})}
_JOB_STATE = {"type": "string", "enum": ["queued", "running", "succeeded", "failed", "cancelled"]}

_JOB_PROPERTIES: dict[str, Any] = {
    "id": _TEXT,
    "job_id": _TEXT | {"description": "The same as `id`."},
    "kind": {"type": "string", "enum": ["precompute"]},
    "state": _JOB_STATE,
    "status": _JOB_STATE | {"description": "The same as `state`."},
    "progress": {"type": "number", "minimum": 0, "maximum": 1},
    "stage": _or_null(_TEXT),
    "stages": _STAGES | {"description": "Those that are done, in the order they ran."},
    "peak_rss_mb": _or_null(_NUMBER),
    "origin": _TEXT
    | {
        "description": "Who asked for it: `api`, `cron`, `cli`; `repair` where the store was "
        "empty, `overlay` where lists could not be refreshed."
    },
    "error": _or_null(_TEXT) | {"description": "Why it failed, in one line."},
    "created_at": _INSTANT,
    "started_at": _or_null(_INSTANT),
    "finished_at": _or_null(_INSTANT),
    "snapshot_version": _or_null(_TEXT),
}

_POINTER_PROPERTIES: dict[str, Any] = {
    "active": _or_null(_TEXT) | {"description": "The version that is served."},
    "pinned": {
        "type": "boolean",
        "description": "While true, new snapshots are published but not activated.",
    },
}

_MANIFEST: dict[str, Any] = _object(
    {
        "version": _TEXT | {"description": "Sorts by publication."},
        "state": {
            "type": "string",
            "enum": ["active", "held", "kept"],
            "description": "`held` was never active; `kept` was, and is no longer.",
        },
        "pinned": {
            "type": "boolean",
            "description": "Whether it is active and stays so while others are published.",
        },
        "schema": {"type": "integer"},
        "created_at": _INSTANT,
        "data_as_of": _or_null(_INSTANT),
        "changes_since": _or_null(_INSTANT)
        | {"description": "Writes from here on may be missing, and are told beside it."},
        "job_id": _or_null(_TEXT) | {"description": "Of the job that published it."},
        "algorithm": {"type": "object"},
        "counts": {"type": "object"},
        "metadata_version": _TEXT,
        "bytes": {"type": "object", "additionalProperties": _COUNT},
        "quality": {"type": "object"},
        "held_because": {
            "type": "array",
            "items": _TEXT,
            "description": "What fell too far below the version that was active then.",
        },
        "warnings": {
            "type": "array",
            "items": _TEXT,
            "description": "What may go wrong with it in the store, as it was at the publication.",
        },
        "stages": _STAGES,
        "peak_rss_mb": _NUMBER,
        "checksums": {"type": "object", "additionalProperties": _TEXT},
    }
)

OPERATION_SCHEMAS: dict[str, Any] = {
    "Job": _object(_JOB_PROPERTIES),
    "SnapshotManifest": _MANIFEST,
    "SnapshotPointer": _object(_POINTER_PROPERTIES),
}

_JOB = {"$ref": "#/components/schemas/Job"}

JOB = json_response("The job.", _JOB)

CANCELLING = json_response(
    "The job was asked to end and does so within seconds: as `cancelled`, or as `succeeded` where "
    "its snapshot was published already. `Location` names it, `Retry-After` says when to ask.",
    _JOB,
)

TRIGGERED = json_response(
    "The job that does it; `Location` names it, `Retry-After` says when to ask for it.",
    {
        "allOf": [
            _JOB,
            _object(
                {
                    "coalesced": {
                        "type": "boolean",
                        "description": "Whether it was queued or running before.",
                    }
                }
            ),
        ]
    },
)

JOBS = json_response(
    'One page; `Link` with `rel="next"` leads to the next.',
    _object({"items": {"type": "array", "items": _JOB, "maxItems": 50}, "next_cursor": _CURSOR}),
)

SNAPSHOTS = json_response(
    "All versions that are kept, and the one that is served.",
    _object(
        {
            "items": {
                "type": "array",
                "items": {"$ref": "#/components/schemas/SnapshotManifest"},
            },
            "next_cursor": _CURSOR,
            **_POINTER_PROPERTIES,
        }
    ),
)

POINTER = json_response(
    "What is served from now on.", {"$ref": "#/components/schemas/SnapshotPointer"}
)

ACTIVATION_BODY: dict[str, Any] = {
    "requestBody": {
        "required": False,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "pin": {
                            "type": "boolean",
                            "default": False,
                            "description": "Also pin; false leaves a pin as it is.",
                        }
                    },
                }
            }
        },
    }
}
