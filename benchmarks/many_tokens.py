"""A wrk script that asks as many users in turn."""

from __future__ import annotations

import time
from pathlib import Path

from shared.settings import Settings
from shared.tokens import issue_user_token

TOKENS = 1_000

_SCRIPT = """
local requests, at = {}, 0
function init()
  for _, token in ipairs({%s}) do
    requests[#requests + 1] = wrk.format("GET", nil, {["Authorization"] = "Bearer " .. token})
  end
end
function request()
  at = at %% #requests + 1
  return requests[at]
end
"""


def rotating_tokens(settings: Settings, path: Path, *, users: int) -> Path:
    """Writes the script for the tokens of `lua_tokens`."""
    path.write_text(_SCRIPT % lua_tokens(settings, users=users, now=time.time()))
    return path


def lua_tokens(settings: Settings, *, users: int, now: float) -> str:
    """Quoted tokens of TOKENS users, spread over all `users` ids from 1."""
    step = max(1, users // TOKENS)
    tokens = [
        issue_user_token(settings, user_id=user_id, ttl_seconds=3600, now=now)
        for user_id in range(1, users + 1, step)
    ]
    return ",".join(f'"{token}"' for token in tokens[:TOKENS])
