"""`kbdfl admin`: credentials of an administrator and tokens for phones, made in a served folder."""

import sys
import time
from pathlib import Path

import click

from kbdfl.cli.common import json_option, show

BY = "command line"

folder_argument = click.argument(
    "folder", type=click.Path(path_type=Path, exists=True, file_okay=False, writable=True)
)


@click.group()
def admin() -> None:
    """Let an administrator, and phones, into a server's FOLDER; it may be served meanwhile."""


@admin.command()
@folder_argument
@json_option
def token(folder: Path, as_json: bool) -> None:
    """Make a new token for /v1/admin in place of the one before. It is shown this once."""
    from kbdfl.server.credentials import Credentials

    made = Credentials(folder).new_token()
    _note(folder, "administrator's token made")
    show({"token": made}, as_json=as_json, text=made)


@admin.command()
@folder_argument
def password(folder: Path) -> None:
    """Set the password of /admin. It is asked for, or read from standard input if that is no terminal."""
    from kbdfl.server.credentials import Credentials

    if sys.stdin.isatty():
        typed = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        typed = sys.stdin.readline().rstrip("\r\n")
    Credentials(folder).set_password(typed)
    _note(folder, "administrator's password set")


@admin.command()
@folder_argument
@click.option("--count", type=int, default=1, show_default=True, help="Phones that may enrol.")
@json_option
def tokens(folder: Path, count: int, as_json: bool) -> None:
    """Make single-use enrolment tokens, one a line. They are shown this once."""
    from kbdfl.server import audit_log, registry
    from kbdfl.server.records import Records

    records, now = Records(folder), time.time()
    try:
        with records.writing():
            made = registry.make_tokens(records, count, now)
            audit_log.append(records, at_s=now, by=BY, what="tokens made", count=count)
    finally:
        records.close()
    show({"tokens": made}, as_json=as_json, text="\n".join(made))


def _note(folder: Path, what: str) -> None:
    from kbdfl.server import audit_log
    from kbdfl.server.records import Records

    records = Records(folder)
    try:
        audit_log.append(records, at_s=time.time(), by=BY, what=what)
    finally:
        records.close()
