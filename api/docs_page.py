"""The OpenAPI document as a page that a browser shows without any script.

Everything is escaped text from the document; nothing of a request gets in. The page loads its own
style sheet and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

STYLE_PATH = "/docs/style.css"
STYLE_FILE = Path(__file__).parent / "docs_page.css"

_METHODS = ("get", "put", "post", "patch", "delete")
_EXAMPLE_VALUES = {
    "user_id": "42",
    "restaurant_id": "7",
    "job_id": "$JOB",
    "version": "$VERSION",
}

Document = Mapping[str, Any]


def render_page(document: Document) -> str:
    """The whole page, with operations grouped by their tag, in the document's order."""
    title = escape(document["info"]["title"])
    groups = {tag["name"]: list(_operations(document, tag["name"])) for tag in document["tags"]}
    return "".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{title} API</title>",
            f'<link rel="icon" href="data:,"><link rel="stylesheet" href="{STYLE_PATH}"></head>',
            '<body><a class="skip" href="#operations">Skip to the operations</a>',
            _header(document),
            '<div class="columns">',
            _navigation(groups),
            '<main id="operations">',
            *(_group(tag, groups[tag["name"]]) for tag in document["tags"]),
            _schemas(document["components"]["schemas"]),
            "</main></div></body></html>",
        )
    )


def _operations(document: Document, tag: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method in _METHODS:
            operation = operations.get(method)
            if operation is not None and tag in operation["tags"]:
                yield method, path, operation


def _header(document: Document) -> str:
    info = document["info"]
    return (
        f'<header class="top"><h1>{escape(info["title"])} API '
        f'<span class="version">{escape(info["version"])}</span></h1>'
        f"<p>{_text(info['description'])}</p>"
        '<p>Calls marked <span class="lock">token</span> take <code>Authorization: Bearer'
        "</code> with a user's JWT, the service token or the viewer token; "
        "<code>tastematch token</code> prints one. "
        '<a href="/openapi.json">openapi.json</a> is this page for programs.</p></header>'
    )


def _navigation(groups: Mapping[str, list[tuple[str, str, dict[str, Any]]]]) -> str:
    parts = ['<nav aria-label="Operations">']
    for tag, operations in groups.items():
        parts.append(f'<h2><a href="#{escape(tag)}">{escape(tag)}</a></h2><ul>')
        for _, _, operation in operations:
            name = escape(operation["operationId"])
            parts.append(f'<li><a href="#{name}">{name}</a></li>')
        parts.append("</ul>")
    return "".join((*parts, '<h2><a href="#schemas">schemas</a></h2></nav>'))


def _group(tag: Mapping[str, str], operations: list[tuple[str, str, dict[str, Any]]]) -> str:
    name = escape(tag["name"])
    return "".join(
        (
            f'<section aria-labelledby="{name}"><h2 id="{name}">{name}</h2>',
            f'<p class="lead">{_text(tag["description"])}</p>',
            *(_operation(*operation) for operation in operations),
            "</section>",
        )
    )


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    name = escape(operation["operationId"])
    lock = '<span class="lock">token</span>' if operation.get("security") else ""
    return "".join(
        (
            f'<article id="{name}"><h3><span class="method {method}">{method.upper()}</span> ',
            f"<code>{escape(path)}</code>{lock}</h3>",
            f'<p>{_text(operation["summary"])}. <span class="name">{name}</span></p>',
            f'<pre class="call">{_call(method, path, operation)}</pre>',
            _parameters(operation.get("parameters", ())),
            _body(operation.get("requestBody")),
            _responses(operation["responses"]),
            "</article>",
        )
    )


def _parameters(parameters: Any) -> str:
    if not parameters:
        return ""
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(parameter["name"])}</code></th>'
        f"<td>{escape(parameter['in'])}</td><td>{_type(parameter['schema'])}</td>"
        f"<td>{_text(parameter.get('description', ''))}</td></tr>"
        for parameter in parameters
    )
    return _table(("Parameter", "In", "Type", "Meaning"), rows)


def _body(body: Mapping[str, Any] | None) -> str:
    if body is None:
        return ""
    needed = "required" if body.get("required") else "optional"
    return "".join(
        f"<h4>Body <small>{escape(media_type)}, {needed}</small></h4>"
        f"<pre>{_sketch(content['schema'])}</pre>"
        for media_type, content in body["content"].items()
    )


def _responses(responses: Mapping[str, Any]) -> str:
    rows = []
    shown = ""
    for status, response in responses.items():
        contents = response.get("content", {})
        rows.append(
            f'<tr><th scope="row"><code>{escape(status)}</code></th>'
            f"<td>{_text(response['description'])}</td>"
            f"<td>{' '.join(map(_content, contents.items()))}</td></tr>"
        )
        if status.startswith("2") and not shown:
            shown = "".join(
                f"<h4>Answer</h4><pre>{_sketch(content['schema'])}</pre>"
                for content in contents.values()
            )
    return shown + _table(("Status", "Meaning", "Content"), "".join(rows))


def _content(item: tuple[str, Mapping[str, Any]]) -> str:
    media_type, content = item
    if "$ref" in content["schema"]:
        return _type(content["schema"])
    return escape(media_type)


def _call(method: str, path: str, operation: Mapping[str, Any]) -> str:
    for name, value in _EXAMPLE_VALUES.items():
        path = path.replace(f"{{{name}}}", value)
    words = ["curl"]
    if method != "get":
        words.append(f"-X {method.upper()}")
    if operation.get("security"):
        words.append('-H "Authorization: Bearer $TOKEN"')
    if "requestBody" in operation:
        words.append("-H 'Content-Type: application/json' -d '{}'")
    return escape(f'{" ".join(words)} "$URL{path}"', quote=False)


def _schemas(schemas: Mapping[str, Any]) -> str:
    parts = ['<section aria-labelledby="schemas"><h2 id="schemas">schemas</h2>']
    for name, schema in schemas.items():
        note = f"<p>{_text(schema['description'])}</p>" if "description" in schema else ""
        parts.append(
            f'<article id="schema-{escape(name)}"><h3><code>{escape(name)}</code></h3>{note}'
            f"<pre>{_sketch(schema)}</pre></article>"
        )
    return "".join((*parts, "</section>"))


def _table(heads: tuple[str, ...], rows: str) -> str:
    cells = "".join(f'<th scope="col">{head}</th>' for head in heads)
    head = f"<thead><tr>{cells}</tr></thead>"
    return f'<div class="scroll"><table>{head}<tbody>{rows}</tbody></table></div>'


def _sketch(schema: Mapping[str, Any], indent: str = "") -> str:
    """The shape of a JSON value, a line a member, with types in the place of values."""
    deeper = indent + "  "
    if "allOf" in schema:
        return " <b>and</b> ".join(_sketch(part, indent) for part in schema["allOf"])
    if "properties" in schema:
        required = set(schema.get("required", ()))
        lines = [
            f"{deeper}<i>{escape(name)}</i>{'' if name in required else '?'}: "
            f"{_sketch(member, deeper)}{_note(member)}"
            for name, member in schema["properties"].items()
        ]
        return "{\n" + "\n".join(lines) + f"\n{indent}}}"
    if schema.get("type") == "array":
        return f"[{_sketch(schema['items'], indent)}, …]"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"{{ name: {_sketch(schema['additionalProperties'], indent)}, … }}"
    return _type(schema)


def _note(schema: Mapping[str, Any]) -> str:
    text = schema.get("description")
    return f"  <em>{_text(text)}</em>" if text else ""


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#schema-{name}">{name}</a>'
    if "enum" in schema:
        text = " | ".join(f'"{value}"' for value in schema["enum"])
    else:
        kinds = schema.get("type", "any")
        text = kinds if isinstance(kinds, str) else " | ".join(kinds)
        if "format" in schema:
            text = text.replace("integer", schema["format"]).replace("string", schema["format"])
    if "minimum" in schema and "maximum" in schema:
        text += f", {schema['minimum']} to {schema['maximum']}"
    if "default" in schema:
        default = schema["default"]
        text += f", default {str(default).lower() if isinstance(default, bool) else default}"
    return escape(text, quote=False)


def _text(text: str) -> str:
    """Plain text, in which backticks enclose code."""
    pieces = escape(text, quote=False).split("`")
    return "".join(
        f"<code>{piece}</code>" if number % 2 else piece for number, piece in enumerate(pieces)
    )
