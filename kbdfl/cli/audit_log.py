"""`kbdfl audit-log`: what was done to a served task, and whether nobody changed the record of it."""

import json
from pathlib import Path

import click

from kbdfl.cli.common import Group, json_option, show

folder_argument = click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))


@click.group("audit-log", cls=Group)
def audit_log() -> None:
    """Read and check the audit log of a server's FOLDER; it may be served meanwhile."""


@audit_log.command()
@folder_argument
@json_option
def verify(folder: Path, as_json: bool) -> None:
    """Say how many entries are whole, or name the first that is not and end with exit code 2.

    The last entry's sha256 stands for all before it: noted elsewhere, it shows whether the log was written anew.
    """
    from kbdfl.server import audit_log as log
    from kbdfl.server.places import existing_records

    records = existing_records(folder)
    try:
        head = log.verify(records)
    finally:
        records.close()
    facts = {"entries": head.entries, "sha256": head.sha256}
    whole = f"{head.entries} {'entry is' if head.entries == 1 else 'entries are'} whole"
    show(
        facts,
        as_json=as_json,
        text=f"{whole}; the last one's sha256 is {head.sha256}",
    )


@audit_log.command("show")
@folder_argument
@click.option(
    "--last", type=click.IntRange(1), default=50, show_default=True, help="Entries, the newest last."
)
def show_entries(folder: Path, last: int) -> None:
    """Print entries, one JSON object a line."""
    from kbdfl.server import audit_log as log
    from kbdfl.server.places import existing_records

    records = existing_records(folder)
    try:
        found = log.entries(records, most=last)
    finally:
        records.close()
    for entry in reversed(found):
        click.echo(json.dumps(entry))
