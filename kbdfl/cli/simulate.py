"""`kbdfl simulate`: federated rounds in this process, ending in a run folder."""

import os
from pathlib import Path
from typing import Any

import click

from kbdfl.cli.common import json_option, progress, show
from kbdfl.cli.compare import compare_options
from kbdfl.cli.options import config_from, run_options


@click.command()
@compare_options
@run_options
@click.option("--dropout", type=float, help="Chance that a selected phone never reports.  [default: 0]")
@click.option("--speeds", help="Of phones: equal, tiers or heavy-tailed.  [default: equal]")
@click.option("--availability", help="Of phones: always, or nightly while they charge.  [default: always]")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=os.cpu_count(),
    show_default=True,
    help="Phones trained at once.",
)
@click.option("--name", help="Name of the run folder.")
@click.option(
    "--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Where runs go."
)
@json_option
def simulate(
    dropout: float | None,
    speeds: str | None,
    availability: str | None,
    workers: int,
    name: str | None,
    runs: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Run federated rounds in this process: the server's coordinator on a virtual clock, phones on threads.

    The same configuration and seed end in the same bytes, whatever the number of workers.

    With --compare it draws runs that are there already, RUN RUN..., over each other.
    """
    from kbdfl.device_sim.population import Population, held_out_sentences, open_logs
    from kbdfl.device_sim.simulate import Simulation
    from kbdfl.metrics import evaluation_set
    from kbdfl.report import finish_run
    from kbdfl.run import RunFolder, build_task, checkpoint_facts

    config = config_from(options, dropout=dropout, speeds=speeds, availability=availability)
    settings = config.settings
    source = open_logs(settings.source, seed=settings.seed, devices=settings.devices)
    population = Population(source, devices=settings.devices)
    built = build_task(config, training_texts=population.texts())
    held_out = evaluation_set(
        held_out_sentences(source, built.vocabulary, words=settings.evaluate_words, seed=settings.seed)
    )
    simulation = Simulation(config, built, population, workers=workers, held_out=held_out)
    folder = RunFolder.create(runs, name, default=f"simulate-{settings.preset}")
    folder.write_config(config.to_toml())
    with progress(total=config.rule.rounds, unit="round", desc="simulate") as bar:

        def on_round(row: dict[str, Any]) -> None:
            folder.add_row(row)
            bar.update()
            if row["recall_top1"] is not None:
                bar.set_postfix_str(f"recall {row['recall_top1']:.1%} / {row['recall_top3']:.1%}")

        simulation.rounds(on_round)
    coordinator = simulation.coordinator
    facts = checkpoint_facts(config, built, round=coordinator.round - 1, version=coordinator.version)
    checkpoint = folder.save(coordinator.published, built, facts)
    summary = finish_run(folder, coordinator.published, built, facts)
    show(
        {"run": str(folder.path), "devices": len(population), "checkpoint": str(checkpoint)} | summary,
        as_json=as_json,
    )
