"""Logging: one JSON line an event on stderr, or readable lines on a terminal.

Fields are named in docs/operations.md. Callers pass an event name and fields, never a formatted
sentence, a secret, or text a user wrote.
"""

import logging
import os
import sys
from typing import Any

# structlog loads rich for tracebacks that nothing here prints: 4 MB of every process. What is
# absent it does without; commands import rich later, as they need it.
_IS_HIDDEN = "rich" not in sys.modules
if _IS_HIDDEN:
    sys.modules["rich"] = None  # type: ignore[assignment]
import structlog  # noqa: E402

if _IS_HIDDEN:
    del sys.modules["rich"]

Logger = structlog.typing.FilteringBoundLogger


def configure_logs(*, service: str, level: str) -> None:
    """Called once by an entry point. `service` is api, worker or cli."""
    is_terminal = sys.stderr.isatty()
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _rename_logger,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
    ]
    if is_terminal:
        # The default formatter would print the variables of every frame, secrets included.
        plain = structlog.dev.plain_traceback
        processors.append(structlog.dev.ConsoleRenderer(colors=True, exception_formatter=plain))
    else:
        processors += [_one_line_errors, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service, pid=os.getpid())


def get_logger(name: str) -> Logger:
    # structlog keeps the word `logger` for itself; `_rename_logger` gives it back to the line.
    logger: Logger = structlog.get_logger(logger_name=name)
    return logger


def _rename_logger(_logger: object, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    event["logger"] = event.pop("logger_name", "tastematch")
    return event


def _one_line_errors(_logger: object, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Exceptions become a type and place: their messages may repeat what a client or DSN said."""
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event["error.type"] = type(error).__name__
        frame = error.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        if frame is not None:
            code = frame.tb_frame.f_code
            event["error.place"] = f"{os.path.basename(code.co_filename)}:{frame.tb_lineno}"
    return event
