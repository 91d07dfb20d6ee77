"""One step of the exported model in onnxruntime on one thread: float32, int8 and int4 side by side.

    python benchmarks/step.py --preset gboard
    python benchmarks/step.py --run runs/NAME --json

Softmax and the top three are part of the step. All precisions live in this process and take turns, a sentence each, so
that a slow moment of the machine meets all of them. Each gets a warm-up word before its sentence: what is measured is a
model at work, not one that the others have just driven from the cache. Weights are drawn unless a run gives them; the
time does not depend on them.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from kbdfl.export.bundle import load_bundle, write_bundle
from kbdfl.export.precision import PRECISIONS
from kbdfl.export.run import read_run
from kbdfl.export.runtime import Stepper, open_session
from kbdfl.model import init_params, preset
from kbdfl.rng import stream
from kbdfl.text import SPECIALS, Vocabulary

WORDS = 10  # a sentence


def steppers(run: Path | None, name: str, folder: Path) -> dict[str, tuple[Stepper, int]]:
    """By precision: a stepper of its bundle, and the bytes of its model."""
    if run is not None:
        model = read_run(run)
        config, params, vocabulary = model.config, model.params, model.vocabulary
    else:
        config = preset(name)
        words = [f"w{i}" for i in range(config.vocab - len(SPECIALS))]
        params, vocabulary = init_params(config, seed=1), Vocabulary.of_words(words, "made up")
    made = {}
    for precision in PRECISIONS:
        write_bundle(
            folder / precision,
            params=params,
            config=config,
            vocabulary=vocabulary,
            precision=precision,
            facts={},
        )
        bundle = load_bundle(folder / precision)
        made[precision] = (Stepper(open_session(bundle), bundle), len(bundle.model))
    return made


def race(contestants: dict[str, Stepper], *, vocab: int, sentences: int, seed: int) -> dict[str, np.ndarray]:
    """By name: the microseconds of every step, float64 (sentences * WORDS,)."""
    size = (sentences, WORDS + 1)
    tokens = stream(seed, "benchmark", "step").integers(len(SPECIALS), vocab, size).tolist()
    times = {name: np.empty((sentences, WORDS)) for name in contestants}
    for lap, (first, *sentence) in enumerate(tokens):
        for name, stepper in contestants.items():
            stepper.begin()
            stepper.step(first)
            for place, token in enumerate(sentence):
                start = time.perf_counter_ns()
                stepper.step(token)
                times[name][lap, place] = (time.perf_counter_ns() - start) / 1e3
    return {name: each.ravel() for name, each in times.items()}


@click.command()
@click.option("--preset", "name", default="gboard", show_default=True, help="Shape of the model.")
@click.option("--run", type=click.Path(path_type=Path), help="A run folder instead of drawn weights.")
@click.option("--sentences", default=1_000, show_default=True, type=click.IntRange(min=1), help="Laps.")
@click.option("--seed", default=1, show_default=True, help="Draws the words.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(name: str, run: Path | None, sentences: int, seed: int, as_json: bool) -> None:
    """Medians, 99th percentiles, and how much of float32's median each precision takes."""
    with tempfile.TemporaryDirectory() as folder:
        made = steppers(run, name, Path(folder))
    contestants = {precision: stepper for precision, (stepper, _) in made.items()}
    vocab = contestants["float32"].logits.shape[1]
    race(contestants, vocab=vocab, sentences=20, seed=seed)  # warm
    times = race(contestants, vocab=vocab, sentences=sentences, seed=seed)
    exact = float(np.median(times["float32"]))
    result: dict[str, Any] = {}
    for precision, each in times.items():
        p50, p99 = np.percentile(each, (50, 99)).tolist()
        result[precision] = {"bytes": made[precision][1], "p50_us": p50, "p99_us": p99, "ratio": p50 / exact}
    if as_json:
        click.echo(json.dumps(result))
        return
    click.echo(f"{'':<10}{'bytes':>12}{'p50 us':>10}{'p99 us':>10}{'p50 / float32':>16}")
    for precision, row in result.items():
        figures = f"{row['p50_us']:>10.1f}{row['p99_us']:>10.1f}{row['ratio']:>16.2f}"
        click.echo(f"{precision:<10}{row['bytes']:>12,}{figures}")


if __name__ == "__main__":
    main()
