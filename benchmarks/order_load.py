"""wrk scripts that place orders: many users in turn, each request with another restaurant."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.many_tokens import lua_tokens
from shared.settings import Settings

# Ids are printed so that they can be looked for after a kill; numbers in Lua are doubles, which
# hold them exactly.
_SCRIPT = """
local tokens, run, keyed, printed = {%s}, "%s", %s, %s
local number = 0
function request()
  number = number + 1
  local headers = {
    ["Authorization"] = "Bearer " .. tokens[number %% #tokens + 1],
    ["Content-Type"] = "application/json",
  }
  if keyed then headers["Idempotency-Key"] = run .. "-" .. number end
  local body = string.format('{"restaurant_id":%%d,"total_amount":24.5}', number %% %d + 1)
  return wrk.format("POST", nil, headers, body)
end
if printed then
  function response(status, headers, body)
    if status == 201 then io.write("PLACED ", string.match(body, '"id":(%%d+)'), "\\n") end
  end
end
"""


def placing(
    settings: Settings,
    path: Path,
    *,
    users: int,
    restaurants: int,
    keyed: bool,
    printed: bool = False,
) -> Path:
    """Writes a script for the tokens of `lua_tokens`. `printed`: also the ids of answers."""
    now = time.time()
    quoted = lua_tokens(settings, users=users, now=now)
    flags = ("true" if keyed else "false", "true" if printed else "false")
    path.write_text(_SCRIPT % (quoted, f"{now:.6f}", *flags, restaurants))
    return path
