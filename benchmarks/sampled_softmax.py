"""Sampled softmax beside the exact one on real chat text: updates a second, bytes a report, held-out recall.

    python benchmarks/sampled_softmax.py --preset chat --rounds 200 --seeds 0,1,2 --candidates 0,1000,500

Every run is a `kbdfl simulate` in this process, with the defaults of that command for all that is not asked for here.
A setting is a number of candidates, or candidates:words where a round reports the rows of so many words only. Seed by
seed all settings run one after another, so that a slow hour of the machine meets all of them. Needs the extra `[chat]`.
"""

import json
import statistics
from pathlib import Path
from typing import Any

import click

from kbdfl.algorithms import Algorithm, ClientRule, FedAdam
from kbdfl.device_sim.population import Population, held_out_sentences, open_logs
from kbdfl.device_sim.simulate import Simulation
from kbdfl.metrics import evaluation_set
from kbdfl.options import SERVER_RATES
from kbdfl.run import RunConfig, Settings, build_task
from kbdfl.task import RoundRule


def play(config: RunConfig, *, workers: int) -> dict[str, Any]:
    """One run: recall at its end, and the speed of all rounds but the last, which ends in the measurement."""
    settings = config.settings
    source = open_logs(settings.source, seed=settings.seed, devices=settings.devices)
    population = Population(source)
    built = build_task(config)
    for user in population.users:  # tokenised once and outside the time, as for a run of many rounds
        population.log(user).sentences(built.vocabulary)
    held_out = evaluation_set(
        held_out_sentences(source, built.vocabulary, words=settings.evaluate_words, seed=settings.seed)
    )
    rows: list[dict[str, Any]] = []
    Simulation(config, built, population, workers=workers, held_out=held_out).rounds(rows.append)
    reports = sum(row["reports"] for row in rows)
    return {
        "candidates": config.algorithm.client.candidates,
        "report_words": config.algorithm.client.report_words,
        "seed": settings.seed,
        "updates_per_s": (reports - rows[-1]["reports"]) / rows[-2]["wall_s"],
        "train_s": rows[-2]["wall_s"],
        "bytes_per_report": sum(row["uplink_bytes"] for row in rows) / reports,
        "committed": sum(row["status"] == "committed" for row in rows),
        "recall_top1": rows[-1]["recall_top1"],
        "recall_top3": rows[-1]["recall_top3"],
    }


def table(runs: list[dict[str, Any]]) -> list[str]:
    """The runs of each setting in one line: medians, recall as mean and spread over seeds, and seed by seed."""
    lines = ["candidates  rows of   updates/s   bytes/report   recall@1 (range)         recall@3 (range)"]
    for candidates, words in dict.fromkeys((run["candidates"], run["report_words"]) for run in runs):
        of = [run for run in runs if (run["candidates"], run["report_words"]) == (candidates, words)]
        recalls = []
        for k in (1, 3):
            percent = [100 * run[f"recall_top{k}"] for run in of]
            mean, low, high = statistics.mean(percent), min(percent), max(percent)
            recalls.append(f"{mean:6.2f} % ({low:5.2f} to {high:5.2f})")
        speed = statistics.median(run["updates_per_s"] for run in of)
        size = statistics.median(run["bytes_per_report"] for run in of)
        lines.append(
            f"{candidates or 'exact':>10}  {words or 'all':>7}  {speed:>10.2f}  {size:>13,.0f}   {'   '.join(recalls)}"
        )
    for run in runs:
        lines.append(
            f"  seed {run['seed']}, {run['candidates'] or 'exact'} candidates, rows of {run['report_words'] or 'all'}: "
            f"{run['recall_top1']:.2%} / {run['recall_top3']:.2%}, {run['train_s']:.1f} s"
        )
    return lines


@click.command(help=__doc__.split("\n\n")[0])
@click.option("--preset", default="chat", show_default=True, help="Model: tiny, small, chat or gboard.")
@click.option("--source", default="chat", show_default=True, help="chat, personas or a JSONL typing log.")
@click.option("--rounds", type=click.IntRange(2), default=200, show_default=True)
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--candidates", default="0,1000,500", show_default=True, help="Settings, separated by commas.")
@click.option("--words", type=int, default=20_000, show_default=True, help="Held-out words to measure on.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Phones at once.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the runs here as JSON.")
def main(
    preset: str,
    source: str,
    rounds: int,
    seeds: str,
    candidates: str,
    words: int,
    workers: int,
    out: Path | None,
) -> None:
    settings = [[int(number) for number in pair.split(":")] for pair in candidates.split(",")]
    runs = []
    for seed in map(int, seeds.split(",")):
        for asked in settings:
            client = ClientRule(candidates=asked[0], report_words=asked[1] if asked[1:] else 0)
            server = FedAdam(SERVER_RATES[preset], decay_rounds=rounds)
            config = RunConfig(
                Settings(
                    seed=seed, preset=preset, source=source, evaluate_every=rounds + 1, evaluate_words=words
                ),
                Algorithm(client=client, server=server),
                RoundRule(rounds=rounds, over_selection=1.0),  # these phones do not drop out
            )
            runs.append(play(config, workers=workers))
            click.echo(json.dumps(runs[-1]), err=True)
    click.echo("\n".join([f"{preset}, {source}, {rounds} rounds, {workers} at once", *table(runs)]))
    if out is not None:
        document = {"preset": preset, "source": source, "rounds": rounds, "words": words, "workers": workers}
        out.write_text(json.dumps(document | {"runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
