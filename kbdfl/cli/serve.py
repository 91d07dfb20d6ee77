"""`kbdfl serve`: one federated task over HTTP, with its dashboard and its keyboard."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kbdfl.cli.common import json_option, show
from kbdfl.cli.guard import Guard, guard_options
from kbdfl.cli.options import config_from, run_options

if TYPE_CHECKING:
    import numpy as np

    from kbdfl.device_sim.typing.sources import Source
    from kbdfl.run import Built, RunConfig
    from kbdfl.server.service import Background
    from kbdfl.server.store import SqliteStore

CONFIG = "config.toml"


@click.command()
@run_options
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
    folder: Path | None,
    host: str,
    port: int,
    port_file: Path | None,
    threads: int,
    export_every: int,
    no_evaluate: bool,
    log_format: str,
    log_level: str,
    as_json: bool,
    guard: Guard,
    **options: Any,
) -> None:
    """Serve a federated task until interrupted.

    Phones use /v1, people the dashboard at / and the keyboard at /keyboard. A folder that was served before
    is resumed where it was, with the reports of its open round that were acknowledged.
    """
    from kbdfl.coordinator import Coordinator
    from kbdfl.params import write_atomically
    from kbdfl.rng import stream
    from kbdfl.run import build_task, checkpoint_facts
    from kbdfl.server import logs, serving
    from kbdfl.server.administration import Administration
    from kbdfl.server.app import create_app
    from kbdfl.server.credentials import Credentials, token_of
    from kbdfl.server.service import TaskService
    from kbdfl.server.store import SqliteStore

    logs.configure(log_format, log_level)
    folder, config = _resume(folder, options)
    rates = guard.rates_on(host)
    given = token_of(guard.admin_token_file) if guard.admin_token_file else None
    credentials = Credentials(folder, given=given)
    # The port first: a server that cannot have it says so at once and leaves nothing behind.
    with serving.listen(host, port) as listener:
        source, texts = _logs(config, evaluate=not no_evaluate)
        built = build_task(config, training_texts=texts)
        facts = checkpoint_facts(config, built, round=0, version=0)
        store = SqliteStore(folder, built.task.config.spec, facts=facts)
        try:
            background = _background(config, built, source, store=store, export_every=export_every)
            random = stream(config.settings.seed, "pace")
            coordinator = Coordinator(built.task, built.params, store=store, random=random)
            write_atomically(folder / CONFIG, config.to_toml().encode())
            built.vocabulary.save(folder / "tokenizer.json")
            enrolment = guard.enrolment_on(host)
            administration = Administration(folder, wall_clock=time.time, enrolment=enrolment, rates=rates)
        except BaseException:
            store.close()
            raise
        service = TaskService(coordinator, store, background=background, administration=administration)
        service.start()
        try:
            limit = built.task.max_report_bytes
            server = serving.HttpServer(
                create_app(service, credentials=credentials, secure_cookies=not guard.near(host)),
                listener,
                threads=threads,
                max_body_bytes=limit,
                traffic=service.traffic,
                trusted_proxy=guard.trusted_proxy,
            )
            links = {"dashboard": f"{server.url}/", "keyboard": f"{server.url}/keyboard"}
            if credentials.configured:
                links["admin"] = f"{server.url}/admin"
            lines = "\n".join(f"{name:<10} {link}" for name, link in links.items())
            show({"folder": str(folder), "port": server.port} | links, as_json=as_json, text=lines)
            click.get_text_stream("stdout").flush()
            if port_file is not None:
                write_atomically(port_file, f"{server.port}\n".encode())
            serving.serve(server)
        finally:
            service.close()


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
    task = {each.name for each in run_options(click.Command("task")).params}
    return [each for each in command.params if each.name not in task | {"as_json", "help"}]


for _each in serve.params:
    if _each.name == "config_file":  # read first, so that the others' defaults can come from it
        _each.is_eager, _each.callback = True, _defaults


def _resume(folder: Path | None, options: dict[str, Any]) -> tuple[Path, "RunConfig"]:
    """The folder and its configuration; a folder that was served before must be asked for the same again."""
    from kbdfl.errors import ConfigError
    from kbdfl.run import RunConfig

    asked = any(value is not None for value in options.values())
    if folder is None:
        config = config_from(options)
        folder = Path("runs") / f"serve-{config.settings.preset}"
    kept = folder / CONFIG
    if not kept.is_file():
        return folder, config_from(options)
    before = RunConfig.load(kept)
    if not asked:
        return folder, before
    config = config_from(options if options["config_file"] else options | {"config_file": str(kept)})
    if config != before:
        raise ConfigError(f"{folder} holds a run with another configuration; choose another --folder")
    return folder, config


def _logs(config: "RunConfig", *, evaluate: bool) -> tuple["Source | None", Any]:
    """The source of held-out users if recall is measured; training texts if the words come from them."""
    from kbdfl.device_sim.population import Population, open_logs

    settings = config.settings
    counted = settings.vocabulary != "public"
    if not evaluate and not counted:
        return None, ()
    source = open_logs(settings.source, seed=settings.seed, devices=settings.devices)
    texts = Population(source, devices=settings.devices).texts() if counted else ()
    return (source if evaluate else None), texts


def _background(
    config: "RunConfig",
    built: "Built",
    source: "Source | None",
    *,
    store: "SqliteStore",
    export_every: int,
) -> "Background":
    """What the server does beside its rounds: recall on the source's held-out users, and bundles."""
    from kbdfl.device_sim.population import held_out_sentences
    from kbdfl.export.run import bundle_facts
    from kbdfl.metrics import evaluation_set, recall
    from kbdfl.run import checkpoint_facts
    from kbdfl.server.bundles import write_precisions
    from kbdfl.server.service import Background

    settings, shape = config.settings, built.task.config
    held_out = None
    if source is not None:
        sentences = held_out_sentences(
            source, built.vocabulary, words=settings.evaluate_words, seed=settings.seed
        )
        held_out = evaluation_set(sentences)

    def evaluate(params: "np.ndarray") -> dict[str, float]:
        return recall(params, shape, held_out)

    def export(params: "np.ndarray", folder: Path, *, round: int, version: int) -> None:
        rows, _ = store.metrics(since=0)
        facts = bundle_facts(checkpoint_facts(config, built, round=round, version=version), rows)
        write_precisions(folder, params=params, config=shape, vocabulary=built.vocabulary, facts=facts)

    return Background(
        evaluate=evaluate if held_out is not None else None,
        evaluate_every=settings.evaluate_every,
        export=export,
        export_every=export_every,
    )
