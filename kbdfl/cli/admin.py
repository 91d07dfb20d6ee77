"""`kbdfl admin`: credentials and tokens, made in a served folder; and what is asked of a server that runs."""

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from kbdfl.cli.common import Group, json_option, show

BY = "command line"

folder_argument = click.argument(
    "folder", type=click.Path(path_type=Path, exists=True, file_okay=False, writable=True)
)


@click.group(cls=Group)
def admin() -> None:
    """Let an administrator, and phones, into a server's FOLDER; start, pause, stop and roll back a server's tasks."""


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
    from kbdfl.server.places import records_of

    records, now = records_of(folder), time.time()
    try:
        with records.writing():
            made = registry.make_tokens(records, count, now)
            audit_log.append(records, at_s=now, by=BY, what="tokens made", count=count)
    finally:
        records.close()
    show({"tokens": made}, as_json=as_json, text="\n".join(made))


def _note(folder: Path, what: str) -> None:
    from kbdfl.server import audit_log
    from kbdfl.server.places import records_of

    records = records_of(folder)
    try:
        audit_log.append(records, at_s=time.time(), by=BY, what=what)
    finally:
        records.close()


# of a running server

Ask = Callable[..., Any]


def _asks(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which task of which server; the command gets as `ask` what asks the API about that task."""

    @click.option("--server", "url", required=True, help="Address of a running `kbdfl serve`.")
    @click.option(
        "--token-file",
        required=True,
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help="Holds an administrator's token, as `kbdfl admin token` prints it.",
    )
    @click.option("--task", help="One of the server's tasks. [its first]")
    @json_option
    @functools.wraps(command)
    def asking(url: str, token_file: Path, task: str | None, **more: Any) -> None:
        from kbdfl.device_sim.agent import ServerClient
        from kbdfl.server.credentials import token_of
        from kbdfl.server.tasks import check_name

        client, shown = ServerClient(url, connections=1), token_of(token_file)
        name = task if task is None else check_name("task", task)

        def ask(method: str, path: str, value: Any = None, *, of_first: str = "/task") -> Any:
            about = of_first if name is None else f"/tasks/{name}"
            return client.as_administrator(shown, method, f"/v1/admin{about}{path}", value)

        command(ask=ask, **more)

    return asking


@admin.command()
@_asks
def task(ask: Ask, as_json: bool) -> None:
    """Show a task: its state, its round, its version and those that it can go back to."""
    _show_task(ask("GET", ""), as_json=as_json)


@admin.command()
@_asks
def start(ask: Ask, as_json: bool) -> None:
    """Open a task, whether it is new, paused or stopped: phones that check in may be selected."""
    _show_task(ask("POST", "/start"), as_json=as_json)


@admin.command()
@_asks
def pause(ask: Ask, as_json: bool) -> None:
    """Pause a task: phones that check in are told to wait. Reports on their way still count."""
    _show_task(ask("POST", "/pause"), as_json=as_json)


@admin.command()
@_asks
def stop(ask: Ask, as_json: bool) -> None:
    """Stop a task: phones that check in are told that all is over."""
    _show_task(ask("POST", "/stop"), as_json=as_json)


@admin.command("roll-back")
@click.argument("version", type=click.IntRange(0))
@_asks
def roll_back(ask: Ask, version: int, as_json: bool) -> None:
    """Abandon a task's round in flight; the next one begins from VERSION, one of those that are kept."""
    _show_task(ask("POST", "/roll-back", {"version": version}), as_json=as_json)


@admin.command()
@_asks
def rounds(ask: Ask, as_json: bool) -> None:
    """Show how a task's last rounds ended, and why reports were refused; the newest first."""
    found = ask("GET", "/rounds", of_first="")
    lines = []
    for row in found["rounds"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in row["reasons"].items())
        counted = f"{row['reports']} reports, {row['dropped']} dropped, version {row['version']}"
        lines.append(
            f"{row['what']:<15} {row['round']:>5}: {counted}{f'; refused: {reasons}' if reasons else ''}"
        )
    show(found, as_json=as_json, text="\n".join(lines) or "no round has been closed yet")


def _show_task(told: dict[str, Any], *, as_json: bool) -> None:
    kept = ", ".join(map(str, told["kept_versions"])) or "none"
    text = (
        f"{told['name']} is {told['state']}: round {told['round']} of {told['rounds']}, version {told['version']};"
        f" it can go back to {kept}"
    )
    show(told, as_json=as_json, text=text)
