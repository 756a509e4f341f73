"""Cross-origin rules: which origins may read answers, and what of them (fetch.spec.whatwg.org).

Bearer tokens travel in a header, so credentials are never allowed. An origin that is not named
gets no field at all.
"""

from api import problems
from api.answers import Answer, HeaderField, Headers
from api.problems import problem_answer

PREFLIGHT_SECONDS = 600
EXPOSED_HEADERS = (
    b"ETag, Last-Modified, Link, Location, Retry-After, Server-Timing, X-Metadata-Version, "
    b"X-Process-Time, X-Recommendation-Source, X-Request-ID, X-Snapshot-Age, X-Snapshot-Version"
)
ALLOWED_HEADERS = b"Authorization, Content-Type, Idempotency-Key, If-None-Match, X-Request-ID"
ALLOWED_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"


class CrossOrigin:
    """The rules for the origins of TASTEMATCH_CORS_ORIGINS."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._fields: dict[bytes, list[HeaderField]] = {
            origin.encode(): [
                (b"access-control-allow-origin", origin.encode()),
                (b"access-control-expose-headers", EXPOSED_HEADERS),
            ]
            for origin in origins
        }

    def fields(self, headers: Headers) -> list[HeaderField]:
        """What to add to an answer, whatever its status."""
        if not self._fields or b"origin" not in headers:
            return []
        return self._fields.get(headers[b"origin"], [])

    def preflight(self, headers: Headers, *, request_id: str) -> Answer:
        if headers.get(b"origin") not in self._fields:
            return problem_answer(
                problems.ORIGIN_REFUSED,
                "this origin is not among those that TASTEMATCH_CORS_ORIGINS names",
                request_id=request_id,
            )
        return Answer(
            204,
            [
                (b"access-control-allow-methods", ALLOWED_METHODS),
                (b"access-control-allow-headers", ALLOWED_HEADERS),
                (b"access-control-max-age", b"%d" % PREFLIGHT_SECONDS),
                (b"cache-control", b"no-store"),  # browsers keep it by the field above alone
                (b"vary", b"Origin"),
            ],
        )


def is_preflight(method: str, headers: Headers) -> bool:
    return method == "OPTIONS" and b"access-control-request-method" in headers
