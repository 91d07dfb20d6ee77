"""`kbdfl experiment`: a comparison of ways to learn, with its table, plot and JSON."""

import os
from datetime import datetime
from pathlib import Path

import click

from kbdfl.cli.common import json_option, show
from kbdfl.errors import ConfigError

WORDS, QUICK_WORDS = 60_000, 9_000  # of held-out users


@click.command()
@click.argument("name")
@click.option("--rounds", type=click.IntRange(1), help="Rounds of every federated run.  [default: by NAME]")
@click.option("--seeds", help="Numbers with commas; the first one chooses.  [default: 0,1,2; quick: 0]")
@click.option("--logs", default="chat", show_default=True, help="chat, personas or a JSONL typing log.")
@click.option(
    "--public",
    help="Public text to start from: chat, personas or a JSONL log; for warm-start (which has one by default) and "
    "personalise.",
)
@click.option("--preset", default="small", show_default=True, help="Model: tiny, small, chat or gboard.")
@click.option("--quick", is_flag=True, help="A minute's version: few rounds, one seed.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=os.cpu_count(),
    show_default=True,
    help="Phones trained at once.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the results.  [default: runs/NAME-...]"
)
@json_option
def experiment(
    name: str,
    rounds: int | None,
    seeds: str | None,
    logs: str,
    public: str | None,
    preset: str,
    quick: bool,
    workers: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare ways to learn on the same text; NAME is compare-server-rules, central-gap, personalise, warm-start,
    heterogeneity, silos, async, selection, bandwidth, backdoor, privacy or words.

    Settings are chosen on validation users and reported on held-out users; neither of them trains.
    """
    from kbdfl.device_sim.experiments import EXPERIMENTS
    from kbdfl.device_sim.experiments.data import open_data
    from kbdfl.device_sim.experiments.report import rows, table, write_results
    from kbdfl.device_sim.experiments.study import carry_out

    if name not in EXPERIMENTS:
        raise ConfigError(f"NAME must be one of {', '.join(EXPERIMENTS)}, got {name!r}"[:200])
    chosen = EXPERIMENTS[name]
    rounds = rounds or (chosen.quick_rounds if quick else chosen.rounds)
    numbers = _seeds(seeds or ("0" if quick else "0,1,2"))
    words = QUICK_WORDS if quick else WORDS
    public = chosen.public_text(public, logs=logs)
    data = open_data(logs, preset_name=preset, seed=numbers[0], words=words, public=public)
    folder = out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "results.json").exists():
        raise ConfigError(f"there are results in {folder} already; choose another --out")

    study = carry_out(
        chosen.settings(rounds=rounds, quick=quick),
        data,
        seeds=numbers,
        workers=workers,
        watch=lambda line: click.echo(line, err=True),
        choose=chosen.choose,
    )
    figures, columns = chosen.figures(study), chosen.columns(study)
    document = {
        "experiment": name,
        "question": chosen.question,
        "logs": Path(logs).name,
        "public": Path(public).name if public else None,
        "preset": preset,
        "rounds": rounds,
        "seeds": numbers,
        "users": {
            "training": len(data.population),
            "validation": len(data.validation.users),
            "held_out": len(data.held_out.users),
        },
    } | figures
    write_results(folder, document, study, columns=columns, axis=chosen.axis, against=chosen.against(study))
    lines = [
        table(study, columns),
        *(f"{name}: {figure:.3f}" for name, figure in figures.items() if isinstance(figure, float | int)),
    ]
    if quick:
        lines.append("--quick: so few rounds show that it runs, not which method is better")
    show(
        {"folder": str(folder)} | document | {"table": rows(study)},
        as_json=as_json,
        text="\n".join([*lines, f"results in {folder}"]),
    )


def _seeds(text: str) -> list[int]:
    """`0,1,2` as numbers. Raises ConfigError."""
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError:
        raise ConfigError(f"seeds must be whole numbers with commas, got {text!r}"[:200]) from None
    if min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise ConfigError(f"seeds must be distinct and >= 0, got {text!r}"[:200])
    return numbers
