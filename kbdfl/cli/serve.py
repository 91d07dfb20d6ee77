"""`kbdfl serve`: federated tasks over HTTP, with their dashboards and keyboards."""

from pathlib import Path
from typing import Any

import click

from kbdfl.cli.common import Sectioned, json_option, show
from kbdfl.cli.guard import Guard, guard_options
from kbdfl.cli.options import SECTIONS, run_options


@click.command(cls=Sectioned, sections=SECTIONS | {"named": "Server", "enrolment": "Who may come in"})
@run_options
@click.option(
    "--task",
    "named",
    multiple=True,
    metavar="NAME=CONFIG",
    help="One of several tasks, by the file with its configuration.",
)
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), help="Kept and resumed. [runs/serve-PRESET]"
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 = a free one."
)
@click.option(
    "--port-file", type=click.Path(path_type=Path, dir_okay=False), help="Gets the port once it is served."
)
@click.option(
    "--threads", type=click.IntRange(1, 64), default=32, show_default=True, help="Requests handled at once."
)
@click.option(
    "--export-every", type=click.IntRange(1), default=50, show_default=True, help="Rounds between exports."
)
@click.option(
    "--database", metavar="ADDRESS", help="PostgreSQL, for several servers: postgresql://user@host/name"
)
@click.option(
    "--track",
    type=click.Choice(["tensorboard", "mlflow"]),
    multiple=True,
    help="Write each round for TensorBoard or MLflow too; may be repeated.",
)
@click.option("--no-evaluate", is_flag=True, help="Do not measure recall on held-out users.")
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Of the log."
)
@click.option(
    "--log-level",
    type=click.Choice(["warning", "info"]),
    default="warning",
    show_default=True,
    help="info = a line a request too.",
)
@guard_options
@json_option
def serve(
    named: tuple[str, ...],
    folder: Path | None,
    host: str,
    port: int,
    port_file: Path | None,
    threads: int,
    export_every: int,
    database: str | None,
    track: tuple[str, ...],
    no_evaluate: bool,
    log_format: str,
    log_level: str,
    as_json: bool,
    guard: Guard,
    **options: Any,
) -> None:
    """Serve a federated task, or several, until interrupted.

    Phones use /v1, people the dashboard at / and the keyboard at /keyboard; of several tasks each has the same behind
    /v1/tasks/NAME and /tasks/NAME. A folder that was served before is resumed where it was, with the reports of its
    open rounds that were acknowledged.
    """
    from kbdfl.cli.serve_plan import plan_of
    from kbdfl.cli.serve_tasks import started
    from kbdfl.params import write_atomically
    from kbdfl.server import logs, serving
    from kbdfl.server.app import create_app
    from kbdfl.server.credentials import Credentials, token_of
    from kbdfl.tracking import check_trackers

    logs.configure(log_format, log_level)
    check_trackers(track)
    plan = plan_of(folder, options, named)
    tls = guard.tls()
    shared = {"rates": guard.rates_on(host), "enrolment": guard.enrolment_on(host)}
    given = token_of(guard.admin_token_file) if guard.admin_token_file else None
    credentials = Credentials(plan.folder, given=given)
    # The port first: a server that cannot have it says so at once and leaves nothing behind.
    with (
        serving.listen(host, port) as listener,
        started(
            plan,
            evaluate=not no_evaluate,
            export_every=export_every,
            database=database,
            track=track,
            **shared,
        ) as tasks,
    ):
        app = create_app(
            tasks, credentials=credentials, secure_cookies=tls is not None or not guard.near(host)
        )
        server = serving.HttpServer(
            app,
            listener,
            threads=threads,
            max_body_bytes=tasks.max_report_bytes,
            traffic=tasks.traffic,
            trusted_proxy=guard.trusted_proxy,
            quick=app.extensions["kbdfl.express"] if database is None else None,  # a database is waited for
            tls=tls,
        )
        links = {"dashboard": f"{server.url}/", "keyboard": f"{server.url}/keyboard"}
        if credentials.configured:
            links["admin"] = f"{server.url}/admin"
        facts: dict[str, Any] = {"folder": str(plan.folder), "port": server.port} | links
        if plan.named:
            facts["tasks"] = {task.name: f"{server.url}/tasks/{task.name}/" for task in tasks}
        named_links = links | facts.get("tasks", {})
        width = max(10, *map(len, named_links))
        lines = [f"{name:<{width}} {link}" for name, link in named_links.items()]
        show(facts, as_json=as_json, text="\n".join(lines))
        if port_file is not None:
            write_atomically(port_file, f"{server.port}\n".encode())
        serving.serve(server)


def _defaults(context: click.Context, _: click.Parameter, path: str | None) -> str | None:
    """The options that the file's table `serve` has are those of this command, unless they are given."""
    from kbdfl.config import read_toml
    from kbdfl.errors import ConfigError

    table = read_toml(Path(path)).get("serve", {}) if path is not None else {}
    if not isinstance(table, dict):
        raise ConfigError(f"serve must be a table, got {table!r}"[:200])
    names = [each.name for each in _own_options(context.command)]
    for name in table:
        if name not in names:
            raise ConfigError(f"serve has no field {name!r:.80}; its fields are {', '.join(names)}")
    context.default_map = {name: table[name] for name in table}
    return path


def _own_options(command: click.Command) -> list[click.Parameter]:
    """What says how a server runs, and not which task it serves."""
    task = click.Command("task")
    run_options(task)
    others = {each.name for each in task.params} | {"named", "as_json", "help"}
    return [each for each in command.params if each.name not in others]


for _each in serve.params:
    if _each.name == "config_file":  # read first, so that the others' defaults can come from it
        _each.is_eager, _each.callback = True, _defaults
