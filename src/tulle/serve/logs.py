"""Structured logs on stderr: one line per event, as text for people or JSON for machines. Never key material.

Events are words with fields; there is no line per push at info.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

LOGGER = logging.getLogger("tulle.control")
_FIELDS = "tulle_fields"


def event(level: int, name: str, **fields: object) -> None:
    """Log one event."""
    if LOGGER.isEnabledFor(level):
        LOGGER.log(
            level, name, extra={_FIELDS: {key: value for key, value in fields.items() if value not in ("", None)}}
        )


def start(style: str, level: int = logging.INFO) -> None:
    """Send everything to stderr; `style` is `text` or `json`. Call once."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if style == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
    LOGGER.setLevel(level)


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    found: dict[str, Any] = getattr(record, _FIELDS, {})
    if record.exc_info:
        found = {**found, "traceback": logging.Formatter().formatException(record.exc_info)}
    return found


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _moment(record), "level": record.levelname.lower(), "event": record.getMessage()}
        return json.dumps({**line, **_fields(record)}, default=str, separators=(",", ":"))


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        traceback = fields.pop("traceback", "") if fields else ""
        shown = "".join(f" {key}={value}" for key, value in fields.items())
        return f"{_moment(record)} {record.levelname.lower():7} {record.getMessage()}{shown}" + (
            f"\n{traceback}" if traceback else ""
        )
