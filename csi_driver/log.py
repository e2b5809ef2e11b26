"""Logs: one line a message, on standard error, as JSON or for a person. structlog does the work."""

from __future__ import annotations

import logging
import sys

# structlog asks whether Rich is there, for tracebacks that we don't show; it and Pygments are 50 ms and 5 MiB.
_loaded = "rich" in sys.modules
if not _loaded:
    sys.modules["rich"] = None  # type: ignore[assignment]
import structlog  # noqa: E402

if not _loaded:
    del sys.modules["rich"]


def _printable(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Write what a terminal would obey, in a name that a caller chose, as escapes."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = value.encode("unicode_escape").decode()
    return event


def configure(log_format: str, level: str) -> None:
    """Set up structlog: `log_format` is json or console, `level` a level's name in small letters."""
    # Not the traceback that Rich makes: it shows the local variables, and a request may hold secrets.
    plain = structlog.dev.plain_traceback
    console = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0, exception_formatter=plain)
    renderer: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [_printable, console]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
