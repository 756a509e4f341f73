"""`python -m api.write_openapi [FILE]` writes the OpenAPI document, by default `openapi.json`."""

from __future__ import annotations

import sys
from pathlib import Path

import orjson

from api.app import create_app
from shared.settings import load_settings

DEFAULT_PATH = Path(__file__).resolve().parent.parent / "openapi.json"

# The document knows no setting; these keep the machine's own, and its secrets, out of it.
_NEUTRAL = {
    "TASTEMATCH_JWT_SECRET": "only-to-put-the-routes-together-0",
    "TASTEMATCH_SERVICE_TOKEN": "only-to-put-the-routes-together-1",
    "TASTEMATCH_VIEWER_TOKEN": "only-to-put-the-routes-together-2",
}


def openapi_bytes() -> bytes:
    """The document as it is committed: indented by two, a line break at the end."""
    document = create_app(load_settings(_NEUTRAL)).openapi()
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_PATH
    path.write_bytes(openapi_bytes())
