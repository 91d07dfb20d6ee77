"""The tasks of a `kbdfl serve`, made ready and started: their models, stores, logs and what is done in between."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbdfl.cli.serve_plan import CONFIG, Plan, PlannedTask

if TYPE_CHECKING:
    import numpy as np

    from kbdfl.coordinator import Coordinator
    from kbdfl.device_sim.typing.sources import Source
    from kbdfl.params import ParamSpec
    from kbdfl.privacy import Central
    from kbdfl.run import Built, RunConfig
    from kbdfl.server.postgres.address import Address
    from kbdfl.server.postgres.store import PostgresStore
    from kbdfl.server.store import SqliteStore
    from kbdfl.server.tasks import Tasks
    from kbdfl.server.worker import Background, Evaluate


@contextmanager
def started(
    plan: Plan,
    *,
    evaluate: bool,
    export_every: int,
    database: str | None = None,
    track: Sequence[str] = (),
    **shared: Any,
) -> "Iterator[Tasks]":
    """The tasks of a plan while the block lasts; `shared` are options of `Administration`.

    They are kept in PostgreSQL at the address `database`, or in their folders. `track` names those of `kbdfl.tracking`
    that follow each of them.
    """
    from kbdfl.params import write_atomically
    from kbdfl.server.administration import Administration, TaskAdministration
    from kbdfl.server.database import lock_folder
    from kbdfl.server.followed import following
    from kbdfl.server.service import TaskService
    from kbdfl.server.tasks import ServedTask, Tasks

    with ExitStack() as open_:
        if plan.named:
            plan.folder.mkdir(parents=True, exist_ok=True)
            open_.enter_context(lock_folder(plan.folder))
        address = _address(plan, database)
        prepared, services, served = [], [], []
        begin = [not (task.folder / CONFIG).is_file() for task in plan.tasks]
        for task in plan.tasks:
            prepared.append(_prepare(task, evaluate=evaluate, export_every=export_every, address=address))
            open_.callback(prepared[-1][1].close)
        # Last, so that a folder which cannot be served is left as it was.
        write_atomically(plan.folder / CONFIG, plan.to_toml().encode())
        if address is not None:
            address.keep(plan.folder)
        server = Administration(plan.folder, wall_clock=time.time, **shared)
        open_.callback(server.close)
        follow = open_.enter_context(following(track))
        for task, begins, parts in zip(plan.tasks, begin, prepared, strict=True):
            coordinator, store, background = parts
            own = TaskAdministration(server, name=task.name, begins=task.begins)
            service = TaskService(coordinator, store, background=background, administration=own)
            open_.callback(service.close)
            follow(service, begins=begins)
            service.start()
            services.append(service)
            if task.name is not None:
                served.append(ServedTask(task.name, task.population, service))
        yield Tasks(served, folder=plan.folder) if served else Tasks.alone(services[0])


def _address(plan: Plan, database: str | None) -> "Address | None":
    """Of the server's records, if these are in PostgreSQL. Raises ConfigError where they cannot be."""
    from kbdfl.server.postgres.address import Address

    if database is None:
        return Address.of_folder(plan.folder)
    address = Address(database)
    address.check(plan.folder)
    return address


def _store(
    task: PlannedTask, address: "Address | None", spec: "ParamSpec", facts: dict[str, Any]
) -> "SqliteStore | PostgresStore":
    """Where the task is kept. Raises ConfigError if others serve it with another configuration."""
    import tomllib

    from kbdfl.errors import ConfigError
    from kbdfl.run import RunConfig
    from kbdfl.server.postgres.store import PostgresStore
    from kbdfl.server.store import SqliteStore

    if address is None:
        return SqliteStore(task.folder, spec, facts=facts)
    own = address if task.name is None else replace(address, task=task.name)
    store = PostgresStore(task.folder, spec, address=own, facts=facts)
    document = tomllib.loads(store.agreed("config", task.config.to_toml()))
    if RunConfig.from_document(document, where=own.schema) != task.config:
        store.close()
        raise ConfigError(f"{own.schema} is a task of another configuration; all its servers need the same")
    return store


def _prepare(
    task: PlannedTask, *, evaluate: bool, export_every: int, address: "Address | None"
) -> "tuple[Coordinator, SqliteStore | PostgresStore, Background]":
    """A task's coordinator, its store, and the work beside its rounds."""
    from kbdfl.coordinator import Coordinator
    from kbdfl.params import write_atomically
    from kbdfl.rng import stream
    from kbdfl.run import build_task, checkpoint_facts

    config, named = task.config, {} if task.name is None else {"name": task.name}
    source, texts = _logs(config, evaluate=evaluate)
    built = build_task(config, training_texts=texts, **named)
    facts = checkpoint_facts(config, built, round=0, version=0)
    store = _store(task, address, built.task.config.spec, facts)
    try:
        privacy = built.task.central(store.books) if config.algorithm.privacy.on else None
        background = _background(
            config, built, source, store=store, privacy=privacy, export_every=export_every
        )
        random = stream(config.settings.seed, "pace")
        coordinator = Coordinator(built.task, built.params, store=store, random=random, privacy=privacy)
        write_atomically(task.folder / CONFIG, config.to_toml().encode())
        built.vocabulary.save(task.folder / "tokenizer.json")
    except BaseException:
        store.close()
        raise
    return coordinator, store, background


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
    store: "SqliteStore | PostgresStore",
    privacy: "Central | None",
    export_every: int,
) -> "Background":
    """What the server does beside its rounds: recall on the source's held-out users, and bundles."""
    from kbdfl.device_sim.population import held_out_sentences
    from kbdfl.export.run import bundle_facts
    from kbdfl.metrics import evaluation_set, recall
    from kbdfl.privacy import so_far
    from kbdfl.run import checkpoint_facts
    from kbdfl.server.bundles import write_precisions
    from kbdfl.server.worker import Background

    settings, shape = config.settings, built.task.config
    evaluate: Evaluate | None = None
    if source is not None:
        sentences = held_out_sentences(
            source, built.vocabulary, words=settings.evaluate_words, seed=settings.seed
        )
        evaluate = partial(recall, config=shape, batches=evaluation_set(sentences))

    def export(params: "np.ndarray", folder: Path, *, round: int, version: int) -> None:
        rows, _ = store.metrics(since=0)
        facts = checkpoint_facts(config, built, round=round, version=version)
        if privacy is not None:
            facts["privacy"] = so_far(privacy.ledger)  # of all releases so far, of which this is one
        facts = bundle_facts(facts, rows)
        write_precisions(folder, params=params, config=shape, vocabulary=built.vocabulary, facts=facts)

    return Background(
        evaluate=evaluate,
        evaluate_every=settings.evaluate_every,
        export=export,
        export_every=export_every,
    )
