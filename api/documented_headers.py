"""Header fields in the OpenAPI document: which ones an answer has, by its operation and status.

Fields that every answer of a kind carries are `required`; a test compares real answers with this.
"""

from __future__ import annotations

from typing import Any

_OPTIONAL: dict[str, tuple[str, dict[str, Any]]] = {
    "Content-Encoding": (
        "The coding that `Accept-Encoding` chose; absent for plain JSON.",
        {"type": "string", "enum": ["zstd", "br", "gzip"]},
    ),
    "Link": ('`rel="next"` leads to the next page; absent on the last.', {"type": "string"}),
}
_REQUIRED: dict[str, tuple[str, dict[str, Any]]] = {
    "X-Request-ID": (
        "Yours, if it was well-formed; else one of the server's.",
        {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    ),
    "X-Process-Time": ("Seconds until the answer began.", {"type": "number", "minimum": 0}),
    "Server-Timing": ("The same in milliseconds: `app;dur=1.234`.", {"type": "string"}),
    "Cache-Control": ("Who may keep the answer, and for how long.", {"type": "string"}),
    "Vary": ("The request's fields that the answer depends on.", {"type": "string"}),
    "ETag": (
        "Strong validator, for `If-None-Match`.",
        {"type": "string", "pattern": '^"[^"]+"$'},
    ),
    "Last-Modified": ("When the snapshot was created.", {"type": "string"}),
    "X-Snapshot-Version": ("The snapshot that the answer comes from.", {"type": "string"}),
    "X-Snapshot-Age": (
        "Seconds since the snapshot was created.",
        {"type": "integer", "minimum": 0},
    ),
    "X-Metadata-Version": ("The metadata that the ids are joined with.", {"type": "string"}),
    "X-Recommendation-Source": (
        "Where the first id comes from.",
        {"type": "string", "enum": ["personal", "preferences", "popular-city", "popular"]},
    ),
    "WWW-Authenticate": ("`Bearer`: which kind of token is wanted.", {"type": "string"}),
    "Retry-After": (
        "Seconds after which to ask again.",
        {"type": "integer", "minimum": 1},
    ),
    "Location": ("The path of the job.", {"type": "string"}),
}

_ALWAYS = ("X-Request-ID", "X-Process-Time", "Server-Timing", "Cache-Control")
_VALIDATED = ("ETag", "Vary")
_PERSONAL = ("X-Snapshot-Version", "X-Snapshot-Age", "X-Metadata-Version", "Last-Modified")
_PERSONAL_SOURCE = (*_PERSONAL, "X-Recommendation-Source")
_OF_SUCCESS: dict[str, tuple[str, ...]] = {
    "listMyRecommendations": (*_PERSONAL_SOURCE, "Link"),
    "listUserRecommendations": (*_PERSONAL_SOURCE, "Link"),
    "listMyDetailedRecommendations": (*_PERSONAL_SOURCE, "Link"),
    "listUserDetailedRecommendations": (*_PERSONAL_SOURCE, "Link"),
    "listSimilarRestaurants": _PERSONAL,
    "listPublic": _PERSONAL,
    "getMetadata": ("X-Snapshot-Version", "X-Metadata-Version", "Content-Encoding"),
    "listRestaurants": ("Link",),
    "listMyOrders": ("Link",),
    "listJobs": ("Link",),
    "cancelJob 202": ("Location", "Retry-After"),
    "triggerPrecompute": ("Location", "Retry-After"),
}
_OF_STATUS: dict[str, tuple[str, ...]] = {
    "401": ("WWW-Authenticate", "Vary"),
    "503": ("Retry-After",),
}


def header_components() -> dict[str, Any]:
    """The header objects, by the name they are referred to with."""
    described = {
        name: {"description": text, "required": True, "schema": schema}
        for name, (text, schema) in _REQUIRED.items()
    }
    return described | {
        name: {"description": text, "schema": schema} for name, (text, schema) in _OPTIONAL.items()
    }


def describe_headers(operation: dict[str, Any]) -> None:
    """Adds to each response of the operation, in place, the header fields it has."""
    responses = operation["responses"]
    for status, response in responses.items():
        names = [*_ALWAYS, *_OF_STATUS.get(status, ())]
        if status.startswith(("2", "3")):
            names += _VALIDATED if "304" in responses else ()
            names += ("Vary",) if "security" in operation else ()
            names += _OF_SUCCESS.get(operation["operationId"], ())
            names += _OF_SUCCESS.get(f"{operation['operationId']} {status}", ())
        elif status != "503":  # that of /ready is no problem document
            names.append("Vary")
        if status == "304":
            names = [name for name in names if name != "Content-Encoding"]
        response["headers"] = {
            name: {"$ref": f"#/components/headers/{name}"} for name in dict.fromkeys(names)
        }
