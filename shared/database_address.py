"""The address of a database taken apart, without the packages that talk to one.

Settings are read by every process, and SQLAlchemy, whose notation this is, costs one that only
serves snapshots 10 MB. A test holds both to the same reading.
"""

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

_FORM = re.compile(
    r"(?P<scheme>[\w+]+)://"
    r"(?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?"
    r"(?:\[(?P<ipv6>[^/?]+)\]|(?P<host>[^/:?]+))?"
    r"(?::(?P<port>[^/?]*))?"
    r"(?:/(?P<database>[^?]*))?"
    r"(?:\?(?P<query>.*))?"
)


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """`host` and what follows are None where the address does not name them."""

    scheme: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    host: str | None = None
    port: int | None = None
    database: str | None = None
    query: dict[str, str] = field(default_factory=dict)


def parse_database_address(text: str) -> DatabaseAddress:
    """Raises ValueError, which never repeats the text."""
    found = _FORM.match(text)
    if found is None:
        raise ValueError("is no address")
    if found["user"] is not None and "@" in f"{found['host']}{found['database']}":
        raise ValueError("has an @ in its password that is not written %40")
    port = found["port"]
    if port is not None and not (port.isascii() and port.isdigit()):
        raise ValueError("has a port that is no number")
    pairs = parse_qsl(found["query"] or "")
    if len(dict(pairs)) != len(pairs):
        raise ValueError("names a parameter twice")
    return DatabaseAddress(
        found["scheme"],
        _unquoted(found["user"]),
        _unquoted(found["password"]),
        found["ipv6"] or found["host"],
        None if port is None else int(port),
        _unquoted(found["database"]),
        dict(pairs),
    )


def _unquoted(text: str | None) -> str | None:
    return None if text is None else unquote(text)
