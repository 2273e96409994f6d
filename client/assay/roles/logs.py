"""Logs of roles: lines of text, or JSON lines with task, segment, transaction and gas."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TextIO

from assay.errors import printable

_PLAIN = set(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}


def extras(record: logging.LogRecord) -> dict[str, object]:
    """What was given beside the message."""
    return {name: value for name, value in vars(record).items() if name not in _PLAIN}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, role, event, and what belongs to it."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role

    def format(self, record: logging.LogRecord) -> str:
        document = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "role": self.role,
            "event": record.getMessage(),
            **extras(record),
        }
        if record.exc_info:
            document["trace"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


class TextFormatter(logging.Formatter):
    """Time, level, event, then `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        details = " ".join(f"{name}={_short(value)}" for name, value in extras(record).items())
        line = printable(f"{clock} {record.levelname.lower():7} {record.getMessage()} {details}".rstrip())
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}..{text[-6:]}"


class LastingHandler(logging.StreamHandler[TextIO]):
    """Writes logs while they can be written: a full disk or a reader that has left ends no role."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the library's name)
        """A line that cannot be written is lost; anything else is a mistake in this program."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def set_up_logs(role: str, form: str, level: str, as_json: bool = False) -> None:
    """Send the logs of this package to standard error, as `text` or `json`; under `as_json` to standard output, as JSON
    lines."""
    handler = LastingHandler(sys.stdout if as_json else sys.stderr)
    handler.setFormatter(JsonFormatter(role) if as_json or form == "json" else TextFormatter())
    root = logging.getLogger("assay")
    root.handlers = [handler]
    root.setLevel(level.upper())
    root.propagate = False
