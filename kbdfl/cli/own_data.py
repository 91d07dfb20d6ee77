"""`kbdfl data import` and `kbdfl data export`: typing out of other programs' exports, and back."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kbdfl.cli.common import counted, json_option, show

if TYPE_CHECKING:
    from datetime import tzinfo

FORMATS = ("auto", "jsonl", "csv", "leaf", "datasets", "sms", "whatsapp", "telegram", "mbox")
STAYS = "read and written on this machine alone; nothing was sent anywhere"


def out_option(help: str) -> Callable[..., Any]:
    """`--out`, a file to write."""
    return click.option("--out", type=click.Path(path_type=Path), required=True, help=help)


@click.command("import")
@click.argument("path", metavar="PATH", type=click.Path(path_type=Path))
@out_option("The typing log to write, .jsonl or .jsonl.gz.")
@click.option("--format", "format_", type=click.Choice(FORMATS), default="auto", show_default=True)
@click.option("--me", multiple=True, help="Who you are in it: a name, an id, an address. May be repeated.")
@click.option("--user", default="me", show_default=True, help="The user of messages whose format names none.")
@click.option(
    "--mask/--no-mask", default=True, show_default=True, help="Mask e-mails, URLs and long numbers."
)
@click.option("--strict", is_flag=True, help="End at the first malformed record, or at dates in doubt.")
@click.option(
    "--dates",
    type=click.Choice(["auto", "dmy", "mdy", "ymd"]),
    default="auto",
    show_default=True,
    help="What 3/4/24 means; auto: whatever fits the whole file.",
)
@click.option("--time-zone", help="Of times without one, as Europe/Berlin.  [default: this machine's]")
@click.option("--text-column", help="Column or field of the text (tables, JSON lines, datasets).")
@click.option("--user-column", help="Column or field of the user.")
@click.option("--time-column", help="Column or field of the time.")
@json_option
def import_(
    path: Path,
    out: Path,
    format_: str,
    me: tuple[str, ...],
    user: str,
    mask: bool,
    strict: bool,
    dates: str,
    time_zone: str | None,
    text_column: str | None,
    user_column: str | None,
    time_column: str | None,
    as_json: bool,
) -> None:
    """Make a typing log of what other programs export; only what you typed, where the format says who you are.

    PATH is JSON lines, a CSV table, LEAF's JSON, a Hugging Face datasets folder, the XML of an Android SMS backup, a
    WhatsApp or Telegram export (a zip or not), or an mbox. A malformed record is counted and named by its line. The
    file may be larger than memory. Everything stays on this machine.
    """
    from kbdfl.device_sim.typing.imports.importing import import_typing
    from kbdfl.device_sim.typing.imports.items import Options

    _check_out(out, (".jsonl", ".jsonl.gz"))
    options = Options(me, user, dates, _zone(time_zone), text_column, user_column, time_column)
    summary = import_typing(path, out, format=format_, options=options, masked=mask, strict=strict)
    result = {"file": str(out), **asdict(summary), "bytes": out.stat().st_size}
    for note in summary.notes:
        click.echo(f"note: {note}", err=True)
    if summary.masked is None:
        click.echo(
            "note: nothing was masked (--no-mask): addresses and numbers stand as they were typed", err=True
        )
    click.echo(STAYS, err=True)
    show(result, as_json=as_json, text=_text(result))


@click.command("export")
@click.argument("log", metavar="LOG", type=click.Path(path_type=Path))
@out_option("The file to write: .jsonl or .jsonl.gz, or .json for leaf.")
@click.option("--format", "format_", type=click.Choice(["jsonl", "leaf"]), default="jsonl", show_default=True)
@json_option
def export(log: Path, out: Path, format_: str, as_json: bool) -> None:
    """Write a typing log as JSON lines, or as LEAF's JSON: users, num_samples, user_data."""
    from kbdfl.device_sim.typing.imports.exporting import export_typing

    _check_out(out, (".json",) if format_ == "leaf" else (".jsonl", ".jsonl.gz"))
    counts = export_typing(log, out, format=format_)
    result = {"file": str(out), "format": format_, **counts, "bytes": out.stat().st_size}
    text = (
        f"{counted(counts['messages'], 'message')} of {counted(counts['users'], 'user')} in {out}"
        f" ({result['bytes']:,} bytes)"
    )
    show(result, as_json=as_json, text=text)


def _check_out(out: Path, endings: tuple[str, ...]) -> None:
    from kbdfl.errors import ConfigError

    if not out.name.endswith(endings):
        raise ConfigError(f"--out must end in {' or '.join(endings)}, got {out}")
    if out.is_dir() or not out.parent.is_dir():
        raise ConfigError(f"--out must name a file in a folder that exists, got {out}")


def _zone(name: str | None) -> "tzinfo | None":
    from zoneinfo import ZoneInfo

    from kbdfl.errors import ConfigError

    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # KeyError: ZoneInfoNotFoundError
        raise ConfigError(f"--time-zone must be a name such as Europe/Berlin, got {name!r}") from None


def _text(result: dict[str, Any]) -> str:
    """The counts, a line each; never a word of the file."""
    lines = [
        f"{counted(result['messages'], 'message')} of {counted(result['users'], 'user')}, "
        f"{counted(result['words'], 'word')}, in {result['file']}",
        f"{'format':>10}  {result['format']}",
    ]
    if result["masked"] is not None:
        masked = ", ".join(f"{kind} {count:,}" for kind, count in result["masked"].items())
        renamed = f"; users renamed {result['renamed']:,}" if result["renamed"] else ""
        lines.append(f"{'masked':>10}  {masked}{renamed}")
    for reason, count in sorted(result["skipped"].items(), key=lambda each: -each[1]):
        lines.append(f"{'skipped':>10}  {count:,}: {reason}")
    if result["malformed"]:
        named = "; ".join(
            " ".join(f"{key} {value}" if key != "reason" else f"({value})" for key, value in each.items())
            for each in result["malformed_lines"]
        )
        more = " ..." if result["malformed"] > len(result["malformed_lines"]) else ""
        lines.append(f"{'malformed':>10}  {result['malformed']:,}: {named}{more}")
    if result["lines_not_utf8"]:
        lines.append(
            f"{'encoding':>10}  {result['lines_not_utf8']:,} lines were no UTF-8 and read as Windows-1252"
        )
    return "\n".join(lines)
