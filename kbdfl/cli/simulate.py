"""`kbdfl simulate`: federated rounds in this process, ending in a run folder."""

import os
from pathlib import Path
from typing import Any

import click

from kbdfl.cli.common import given_options, json_option, progress, show
from kbdfl.cli.compare import compare_options
from kbdfl.cli.options import config_from, run_options

_WITH_RESUME = {"resume", "engine", "ray_address", "workers", "snapshot_s", "as_json"}


@click.command()
@compare_options
@run_options
@click.option("--dropout", type=float, help="Chance that a selected phone never reports.  [default: 0]")
@click.option(
    "--hazard-per-h",
    type=float,
    help="How often an hour a phone at work is unplugged or loses its network.  [default: 0]",
)
@click.option("--speeds", help="Of phones: equal, tiers or heavy-tailed.  [default: equal]")
@click.option(
    "--availability",
    help="Of phones: always; nightly, while they charge; weekly, by day and hour; or a trace, .csv or .parquet."
    "  [default: always]",
)
@click.option("--rest-s", type=float, help="Seconds a phone rests after it took part.  [default: 0]")
@click.option(
    "--faults",
    help="none, or storm: reports lost, doubled, late, broken, a clock that jumps, a server that crashes, and a watch"
    " on all sums.  [default: none]",
)
@click.option("--virtual-days", type=click.FloatRange(0.001), help="Stop after so many simulated days.")
@click.option("--engine", default="threads", show_default=True, help="threads, processes or ray.")
@click.option(
    "--ray-address", help="Of a Ray cluster that runs already; without, one is begun on this machine."
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=os.cpu_count(),
    show_default=True,
    help="Phones trained at once.",
)
@click.option(
    "--snapshot-s",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="Keep the run's state every so many seconds; 0 = after every round.",
)
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with the run in this folder.")
@click.option("--name", help="Name of the run folder.")
@click.option(
    "--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Where runs go."
)
@json_option
def simulate(
    dropout: float | None,
    hazard_per_h: float | None,
    speeds: str | None,
    availability: str | None,
    rest_s: float | None,
    faults: str | None,
    virtual_days: float | None,
    engine: str,
    ray_address: str | None,
    workers: int,
    snapshot_s: float,
    resume: Path | None,
    name: str | None,
    runs: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Run federated rounds in this process: the server's coordinator on a virtual clock, phones on workers.

    The same configuration and seed end in the same bytes, whatever the engine and the number of its workers, and
    however often the run was killed and resumed.

    With --compare it draws runs that are there already, RUN RUN..., over each other.
    """
    from kbdfl.engines import open_engine
    from kbdfl.run import RunConfig, RunFolder

    if resume is not None:
        _refuse_others()
        folder = RunFolder.open(resume)
        config = RunConfig.load(folder.path / "config.toml")
    else:
        config = config_from(
            options,
            dropout=dropout,
            hazard_per_h=hazard_per_h,
            speeds=speeds,
            availability=availability,
            rest_s=rest_s,
            faults=faults,
            virtual_days=virtual_days,
        )
        folder = None
    with open_engine(engine, workers, address=ray_address) as workplace:
        show(_run(config, folder, workplace, snapshot_s, name, runs), as_json=as_json)


def _run(
    config: Any, folder: Any, engine: Any, snapshot_s: float, name: str | None, runs: Path
) -> dict[str, Any]:
    """Begin a run, or go on with the one in `folder`, to its end; what the command says of it."""
    from kbdfl import secure
    from kbdfl.device_sim.audit import InvariantBroken
    from kbdfl.device_sim.faults import Storm
    from kbdfl.device_sim.keeping import Keeper
    from kbdfl.device_sim.population import Population, held_out_sentences, open_logs
    from kbdfl.device_sim.simulate import Simulation
    from kbdfl.metrics import evaluation_set
    from kbdfl.privacy import FileBooks, statement
    from kbdfl.report import finish_run
    from kbdfl.run import RunFolder, build_task, checkpoint_facts

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
    with progress(total=config.rule.rounds, initial=done, unit="round", desc="simulate") as bar:
        try:
            _play(simulation, keeper, bar)
        except InvariantBroken as error:
            raise click.ClickException(
                f"a fault of kbdfl, found with seed {settings.seed} of {folder.path}: {error}"
            ) from None
    coordinator = simulation.coordinator
    facts = checkpoint_facts(config, built, round=coordinator.round - 1, version=coordinator.version)
    if rows := books.rows():
        facts["privacy"] = statement(rows[-1])
    if config.algorithm.secure.on:
        facts["privacy"] = secure.statement(built.task, simulated=True)
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


def _play(simulation: Any, keeper: Any, bar: Any) -> None:
    """The rounds, with what they did beside the bar."""
    measured, reports = "", 0

    def on_round(row: dict[str, Any]) -> None:
        nonlocal measured, reports
        keeper.add(row)
        reports += row["reports"]
        if row["recall_top1"] is not None:
            measured = f"recall {row['recall_top1']:.1%} / {row['recall_top3']:.1%}, "
        rate = reports / bar.format_dict["elapsed"] if bar.format_dict["elapsed"] else 0.0
        bar.set_postfix_str(
            f"{measured}{rate:,.0f} updates/s, day {row['virtual_s'] / 86_400:.2f}", refresh=False
        )
        bar.update()

    simulation.rounds(on_round)


def _refuse_others() -> None:
    """A run is resumed as it was configured."""
    for name, option in given_options().items():
        if name not in _WITH_RESUME:
            raise click.UsageError(f"{option} must not come with --resume: the run has its config.toml")
