"""A simulated run from its configuration to its report, for `kbdfl simulate` and for `kbdfl.simulate`."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from kbdfl import secure
from kbdfl.device_sim.audit import InvariantBroken
from kbdfl.device_sim.faults import Storm
from kbdfl.device_sim.keeping import Keeper
from kbdfl.device_sim.population import Population, held_out_sentences, open_logs
from kbdfl.device_sim.simulate import Simulation
from kbdfl.engines import Engine
from kbdfl.metrics import evaluation_set
from kbdfl.privacy import FileBooks, statement
from kbdfl.report import finish_run
from kbdfl.run import RunConfig, RunFolder, build_task, checkpoint_facts
from kbdfl.tracking import Tracking, check_trackers, open_tracking


class Bar(Protocol):
    """What a progress bar must know: tqdm's own."""

    format_dict: Any

    def set_postfix_str(self, s: str = ..., refresh: bool = ...) -> None: ...

    def update(self, n: float | None = ...) -> Any: ...


def play(
    config: RunConfig,
    engine: Engine,
    *,
    folder: RunFolder | None,
    runs: Path,
    name: str | None,
    snapshot_s: float,
    bar: Callable[[int, int], AbstractContextManager[Bar]],
    track: Sequence[str] = (),
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Begin a run below `runs`, or go on with the one in `folder`, to its end; what a command says of it.

    `snapshot_s` is as in `Keeper`. `bar` is asked for a progress bar once it is known how many rounds there are and
    how many of them are done. `track` names those of `kbdfl.tracking` that follow the run, and `say` is told of one
    that cannot any more. Raises ConfigError, DataError where the disk takes no more, and in a storm InvariantBroken.
    """
    check_trackers(track)
    settings = config.settings
    source = open_logs(settings.source, seed=settings.seed, devices=settings.devices)
    population = Population(source, devices=settings.devices)
    built = build_task(config, training_texts=population.texts())
    held_out = evaluation_set(
        held_out_sentences(source, built.vocabulary, words=settings.evaluate_words, seed=settings.seed)
    )
    kind = Storm if settings.faults == "storm" else Simulation
    simulation = kind(config, built, population, engine=engine, held_out=held_out)
    begun = folder is not None
    if folder is None:
        folder = RunFolder.create(runs, name, default=f"simulate-{settings.preset}")
        folder.write_config(config.to_toml())
    books = FileBooks(folder.path)
    simulation.keep_books(books)
    keeper, done = Keeper(folder, simulation, every_s=snapshot_s), 0
    if begun:
        done = keeper.resume()
    else:
        keeper.begin()
    with open_tracking(
        track, folder.path, begins=not begun, done=done if begun else None, say=say
    ) as tracking:
        try:
            with bar(config.rule.rounds, done) as shown:
                _rounds(simulation, keeper, shown, tracking)
        except InvariantBroken as error:
            found = f"a fault of kbdfl, found with seed {settings.seed} of {folder.path}: {error}"
            raise InvariantBroken(found) from None
        coordinator = simulation.coordinator
        facts = checkpoint_facts(config, built, round=coordinator.round - 1, version=coordinator.version)
        if rows := books.rows():
            facts["privacy"] = statement(rows[-1])
        if config.algorithm.secure.on:
            facts["privacy"] = secure.statement(built.task, simulated=True, row=rows[-1] if rows else None)
        try:
            checkpoint = folder.save(coordinator.published, built, facts)
            folder.write_fleet(simulation.facts())
            summary = finish_run(folder, coordinator.published, built, facts)
        except OSError as error:
            raise keeper.lost(error) from None
        keeper.finished()
    if coordinator.phase == "open":  # its days were over before its rounds
        summary |= simulation.measure()
    said = {"run": str(folder.path), "devices": len(population), "checkpoint": str(checkpoint)} | summary
    if "privacy" in facts:
        said["privacy"] = facts["privacy"]
    if isinstance(simulation, Storm):
        said["faults"] = dict(simulation.happened)
    return said


def _rounds(simulation: Simulation, keeper: Keeper, bar: Bar, tracking: Tracking) -> None:
    """The rounds, with what they did beside the bar."""
    measured, reports = "", 0

    def on_round(row: dict[str, Any]) -> None:
        nonlocal measured, reports
        keeper.add(row)
        tracking.add(row)
        reports += row["reports"]
        if row["recall_top1"] is not None:
            measured = f"recall {row['recall_top1']:.1%} / {row['recall_top3']:.1%}, "
        rate = reports / bar.format_dict["elapsed"] if bar.format_dict["elapsed"] else 0.0
        bar.set_postfix_str(
            f"{measured}{rate:,.0f} updates/s, day {row['virtual_s'] / 86_400:.2f}", refresh=False
        )
        bar.update()

    simulation.rounds(on_round)
