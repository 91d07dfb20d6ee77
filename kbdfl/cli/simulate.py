"""`kbdfl simulate`: federated rounds in this process, ending in a run folder."""

import os
from pathlib import Path
from typing import Any

import click

from kbdfl.cli.common import Sectioned, given_options, json_option, progress, show
from kbdfl.cli.compare import compare_options
from kbdfl.cli.options import SECTIONS, run_options

_WITH_RESUME = {"resume", "engine", "ray_address", "workers", "snapshot_s", "track", "as_json"}


@click.command(
    cls=Sectioned,
    sections={"compare": "Finished runs"} | SECTIONS | {"dropout": "Simulated phones", "engine": "This run"},
)
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
@click.option(
    "--track",
    type=click.Choice(["tensorboard", "mlflow"]),
    multiple=True,
    help="Write each round for TensorBoard or MLflow too; may be repeated.",
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
    track: tuple[str, ...],
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
    from kbdfl.device_sim.audit import InvariantBroken
    from kbdfl.device_sim.playing import play
    from kbdfl.engines import open_engine
    from kbdfl.options import config_from
    from kbdfl.run import RunConfig, RunFolder

    if resume is not None:
        _refuse_others()
        folder = RunFolder.open(resume)
        config = RunConfig.load(folder.path / "config.toml")
    else:
        options |= {
            "dropout": dropout,
            "hazard_per_h": hazard_per_h,
            "speeds": speeds,
            "availability": availability,
            "rest_s": rest_s,
            "faults": faults,
            "virtual_days": virtual_days,
        }
        config = config_from(options)
        folder = None

    def bar(rounds: int, done: int) -> Any:
        return progress(total=rounds, initial=done, unit="round", desc="simulate")

    with open_engine(engine, workers, address=ray_address) as workplace:
        try:
            said = play(
                config,
                workplace,
                folder=folder,
                runs=runs,
                name=name,
                snapshot_s=snapshot_s,
                bar=bar,
                track=track,
                say=lambda text: click.echo(f"kbdfl: {text}", err=True),
            )
        except InvariantBroken as error:
            raise click.ClickException(str(error)) from None
    show(said | {"report": str(Path(said["run"]) / "report.html")}, as_json=as_json)


def _refuse_others() -> None:
    """A run is resumed as it was configured."""
    for name, option in given_options().items():
        if name not in _WITH_RESUME:
            raise click.UsageError(f"{option} must not come with --resume: the run has its config.toml")
