"""The server's log on standard error: a line of text or a JSON object a record.

A JSON line names an unexpected exception by its class and by where it happened, and leaves out what it says, which may
quote what a request contained.
"""

import json
import logging
import traceback
from datetime import UTC, datetime
from pathlib import Path

FORMATS = ("text", "json")
LEVELS = ("warning", "info")
TEXT = "%(asctime)s %(name)s: %(message)s"


class JsonLines(logging.Formatter):
    """Time (UTC), level, logger, message, and a record's own `fields`, as one object."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        kind, _, at = record.exc_info or (None, None, None)
        if kind:
            line["exception"] = kind.__name__
            line["at"] = [
                f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
                for frame in traceback.extract_tb(at)
            ]
        return json.dumps(line)


def configure(form: str, level: str) -> None:
    """Log in one of FORMATS at one of LEVELS: warnings and errors of everybody, with `info` also a line a request."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter(TEXT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("kbdfl").setLevel(level.upper())
