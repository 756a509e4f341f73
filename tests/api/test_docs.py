"""`/docs`: every operation on one page, nothing from elsewhere, nothing that runs."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import httpx
import pytest

from tests.api.running import Api

VOID = {"meta", "link", "br", "hr", "img"}


class Page(HTMLParser):
    """Collects what a page refers to, and checks that its elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        given = dict(attrs)
        if "id" in given:
            self.ids.append(str(given["id"]))
        self.addresses += [str(given[name]) for name in ("href", "src") if name in given]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


async def get(api: Api, path: str, **headers: str) -> httpx.Response:
    return await api.client.get(path, headers=headers)


async def test_the_page_shows_every_operation(empty_api: Api) -> None:
    answer = await get(empty_api, "/docs")
    document = (await get(empty_api, "/openapi.json")).json()

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = Page(answer.text)
    operations = [
        (path, operation)
        for path, operations in document["paths"].items()
        for operation in operations.values()
    ]
    assert len(operations) > 10
    for path, operation in operations:
        assert operation["operationId"] in page.ids
        assert path in page.words
        assert operation["summary"] in page.words.replace("`", "")
        for parameter in operation.get("parameters", ()):
            assert parameter["name"] in page.words
    for name in document["components"]["schemas"]:
        assert f"schema-{name}" in page.ids


async def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(empty_api: Api) -> None:
    answer = await get(empty_api, "/docs")
    page = Page(answer.text)

    assert len(set(page.ids)) == len(page.ids)
    for address in page.addresses:
        if address.startswith("#"):
            assert address[1:] in page.ids
        else:
            assert address in {"/docs/style.css", "/openapi.json", "data:,"}
    assert not page.tags & {"script", "style", "iframe", "object", "embed", "base", "form"}
    assert not {name for name in page.attributes if name == "style" or name.startswith("on")}
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self';")
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_the_style_sheet_loads_nothing_and_knows_the_dark(empty_api: Api) -> None:
    answer = await get(empty_api, "/docs/style.css")

    assert answer.headers["content-type"] == "text/css; charset=utf-8"
    assert not re.search(r"url\(|@import|@font-face", answer.text)
    assert "prefers-color-scheme: dark" in answer.text


@pytest.mark.parametrize("path", ["/docs", "/docs/style.css", "/openapi.json"])
async def test_a_page_that_did_not_change_is_not_sent_again(empty_api: Api, path: str) -> None:
    first = await get(empty_api, path)
    again = await empty_api.client.get(path, headers={"If-None-Match": first.headers["etag"]})

    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["cache-control"] == first.headers["cache-control"]
    head = await empty_api.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(first.content))


@pytest.mark.parametrize(
    "path", ["/docs/", "/docs/../etc/passwd", "/docs/%2e%2e%2fetc", "/docs/style.css/x", "/redoc"]
)
async def test_nothing_else_is_under_it(empty_api: Api, path: str) -> None:
    answer = await get(empty_api, path)

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await get(empty_api, "/docs?url=https://elsewhere.example")).status_code == 422


async def test_no_secret_is_on_the_page(empty_api: Api) -> None:
    settings = empty_api.settings
    for path in ("/docs", "/openapi.json"):
        text = (await get(empty_api, path)).text
        for secret in (settings.jwt_secret, settings.service_token, settings.viewer_token):
            assert secret is not None
            assert secret.get_secret_value() not in text
        assert str(settings.data_dir) not in text
