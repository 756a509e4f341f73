"""The client of docs/api.md, run by Node as it stands there."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from shared.settings import load_settings
from shared.snapshot.opening import open_store
from shared.tokens import issue_user_token
from tests.api.running import OSAKA, PERSONAL, SPEC
from tests.house.repository import ROOT
from tests.services.children import wait_until
from tests.services.processes import start_serve
from tests.services.snapshots import publish_snapshot

NODE = shutil.which("node")
CHANGED = replace(SPEC, names={OSAKA[1]: "Renamed"})
# In place of its own last lines: prints the same list each time a line comes in.
DRIVER = """
import { createInterface } from "node:readline";
const names = createClient(process.env.URL, process.env.TOKEN);
for await (const line of createInterface({ input: process.stdin })) {
  const { items, missing, source } = await names({ list: "order_again", limit: 3 });
  console.log([source, missing.length, ...items.map(({ name }) => name)].join());
}
"""


@pytest.mark.skipif(NODE is None, reason="needs Node")
def test_it_joins_ids_with_metadata_that_it_brings_up_to_date(tmp_path: Path) -> None:
    assert NODE is not None
    documented = re.search(r"```js\n(.*?)```", (ROOT / "docs/api.md").read_text(), re.DOTALL)
    assert documented is not None
    functions = documented[1].partition("\nconst recommendations = ")[0]
    (tmp_path / "client.mjs").write_text(functions + DRIVER)
    environ = {
        "TASTEMATCH_DATA_DIR": str(tmp_path / "data"),
        "TASTEMATCH_JWT_SECRET": "0123456789abcdef0123456789abcdef",
    }
    settings = load_settings(environ)
    store = open_store(settings)
    first = publish_snapshot(store, SPEC, with_history=True).version
    with start_serve(env=environ) as serving:

        def is_served(version: str) -> bool:
            answer = httpx.get(f"{serving.url}/api/restaurants/metadata")
            return answer.headers.get("x-snapshot-version") == version

        wait_until(lambda: is_served(first), timeout_seconds=10, describe="the first snapshot")
        token = issue_user_token(settings, user_id=PERSONAL, ttl_seconds=3600, now=time.time())
        with subprocess.Popen(
            [NODE, tmp_path / "client.mjs"],
            env={"URL": serving.url, "TOKEN": token},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as client:

            def ask() -> str:
                assert client.stdin is not None
                assert client.stdout is not None
                client.stdin.write("\n")
                client.stdin.flush()
                return client.stdout.readline().strip()

            assert ask() == "personal,0,Restaurant 101,Restaurant 103,Restaurant 105"
            second = publish_snapshot(store, CHANGED, with_history=True).version
            wait_until(lambda: is_served(second), timeout_seconds=10, describe="the second")
            assert ask() == "personal,0,Restaurant 101,Renamed,Restaurant 105"
            client.communicate(timeout=10)
        served = httpx.get(f"{serving.url}/metrics").text
    store.close()
    assert 'tastematch_metadata_responses_total{kind="delta"} 1.0' in served
