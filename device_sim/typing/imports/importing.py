"""An import: what an importer yields, cleaned, masked, counted, and written as a typing log."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kbdfl.device_sim.typing.imports.detect import open_export
from kbdfl.device_sim.typing.imports.items import NO_TEXT, Malformed, Note, Options, Skipped, listed
from kbdfl.device_sim.typing.imports.masking import MARKS, mask
from kbdfl.device_sim.typing.records import Message, write_messages
from kbdfl.errors import ConfigError, DataError

LONGEST_MESSAGE = 10_000  # characters; what is longer was pasted, not typed
MOST_OTHERS = 8  # names that are remembered for whoever gave a wrong one
NAMED_LINES = 10  # malformed records that are named; all are counted
_INVISIBLE = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\x00-\x08\x0b-\x1f\x7f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
# Words as kbdfl.text counts them, but for marks that combine with letters; an order of magnitude quicker.
_WORD = re.compile(r"<(?:EMAIL|URL|#)>|[^\W_]+(?:['’][^\W_]+)*")


@dataclass(slots=True)
class Summary:
    """What came of an import; nothing in it is a word of the file.

    `skipped` counts whole records that were not kept, by reason; `malformed_lines` names the first of `malformed`;
    `masked` counts the marks in the log by kind and is None where masking was off; `renamed` users had names that had
    to be masked.
    """

    format: str = ""
    users: int = 0
    messages: int = 0
    words: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    malformed: int = 0
    malformed_lines: list[dict[str, int | str]] = field(default_factory=list)
    masked: dict[str, int] | None = None
    renamed: int = 0
    lines_not_utf8: int = 0
    notes: list[str] = field(default_factory=list)


def import_typing(
    path: Path, out: Path, *, format: str, options: Options, masked: bool = True, strict: bool = False
) -> Summary:
    """Write the typing that `path` holds to the log `out`, in the order of the file, and say what came of it.

    With `strict` the first malformed record, and dates that fit two orders, raise DataError. So does a file without a
    message to keep; `out` is then as it was.
    """
    if out.exists() and path.exists() and out.samefile(path):
        raise ConfigError(f"out must be another file than the one that is read, got {out}")
    summary = Summary(masked=dict.fromkeys(MARKS, 0) if masked else None)
    summary.format, file, items = open_export(path, format, options, masked=masked)

    def kept() -> Iterator[Message]:
        names: dict[str, str] = {}
        others: dict[str, None] = {}
        for item in items:
            if isinstance(item, Skipped):
                _skip(summary, item.reason)
                if item.of and len(others) < MOST_OTHERS:
                    others[item.of] = None
            elif isinstance(item, Malformed):
                _count_malformed(summary, item, path, strict)
            elif isinstance(item, Note):
                if strict:
                    raise DataError(f"{path}: {item.text}")
                summary.notes.append(item.text)
            elif text := _finished(item.text, summary):
                user = names.get(item.user)
                if user is None:
                    user = names[item.user] = _user(item.user, names, summary)
                summary.messages += 1
                summary.words += len(_WORD.findall(text))
                yield Message(user, text, item.time, item.app)
        summary.users = len(names)
        if not summary.messages:
            reasons = [f"{reason} {count:,}" for reason, count in summary.skipped.items()]
            reasons += [f"malformed {summary.malformed:,}"] if summary.malformed else []
            known = f"; --me must be one of {listed(others)}" if options.me and others else ""
            raise DataError(
                f"no message to keep in {path}, read as {summary.format}: {', '.join(reasons) or 'empty'}{known}"
            )

    write_messages(out, kept())
    summary.lines_not_utf8 = file.fallback_lines if file is not None else 0
    return summary


def _skip(summary: Summary, reason: str) -> None:
    summary.skipped[reason] = summary.skipped.get(reason, 0) + 1


def _count_malformed(summary: Summary, item: Malformed, path: Path, strict: bool) -> None:
    unit = "row" if summary.format == "datasets" else "line"
    if strict:
        raise DataError(f"{path} {unit} {item.line}: {item.reason}")
    summary.malformed += 1
    if len(summary.malformed_lines) < NAMED_LINES:
        summary.malformed_lines.append({unit: item.line, "reason": item.reason})


def _finished(text: str, summary: Summary) -> str:
    """The text as it is kept; "" for one that is not, and is counted."""
    if not text.isascii() and _SURROGATE.search(text):  # halves that fit are joined, others replaced
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    text = (text if text.isprintable() else _INVISIBLE.sub("", text)).strip()
    if not text:
        _skip(summary, NO_TEXT.reason)
        return ""
    if len(text) > LONGEST_MESSAGE:
        _skip(summary, f"longer than {LONGEST_MESSAGE:,} characters")
        return ""
    if summary.masked is not None:
        text = mask(text)
        if "<" in text:
            for kind, mark in MARKS.items():
                summary.masked[kind] += text.count(mark)
    return text


def _user(name: str, names: dict[str, str], summary: Summary) -> str:
    """The name that a user gets: another one where it holds an address or a number, or cannot be written."""
    renamed = bool(_SURROGATE.search(name)) or (summary.masked is not None and mask(name) != name)
    if not renamed:
        return name
    summary.renamed += 1
    return f"user-{len(names) + 1}"
