"""The race in kbdfl itself: `device_sim.simulate.Simulation`, as `kbdfl simulate` and the experiments use it.

`--variant exact` does the peers' work: the exact softmax, reports in float32. `usual` samples 1,000 words for the
softmax and reports in int8; `sampled` and `int8` do one of the two, so that it can be told which part gives what.
"""

import os

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # read when numpy is imported

import argparse
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from common import Clock, Data, check, parsed, parser
from prepare import HELD_OUT_WORDS, expected, first_checked, logs

from kbdfl.algorithms import Algorithm, ClientRule, FedAdam, FedAvg
from kbdfl.device_sim import runtime
from kbdfl.device_sim.experiments.data import open_data
from kbdfl.device_sim.simulate import Simulation
from kbdfl.run import RunConfig, Settings, build_with
from kbdfl.task import RoundRule

# The softmax's candidates beside a phone's own words (0 = all, exactly), and how a report travels.
VARIANTS = {
    "exact": (0, "float32"),
    "int8": (0, "int8"),
    "sampled": (1_000, "float32"),
    "usual": (1_000, "int8"),
}


class Reached(Exception):
    """The race is over before the last round."""


def config_of(data: Data, options: argparse.Namespace) -> RunConfig:
    """The run; its rate falls to a tenth, as everybody's does."""
    candidates, upload = VARIANTS[options.variant]
    rate = data.config["server_rate"]
    server = FedAvg() if options.server == "fedavg" else FedAdam(rate, rate / 10, options.rounds)
    # A round more than is run: a simulation measures recall after its last one, which would be on the clock.
    rounds = options.rounds + 1
    return RunConfig(
        Settings(
            seed=options.seed,
            preset=data.config["preset"],
            source=data.config["source"],
            evaluate_every=rounds,
        ),
        Algorithm(client=ClientRule(candidates=candidates), upload=upload, server=server),
        RoundRule(cohort=options.cohort, over_selection=1.0, rounds=rounds),
    )


def leave_out_training(size: int) -> None:
    """From now on a phone's local run gives at once what a run may give, of `size` numbers at most; all else is done.

    They are not zero, of which a report would be made and read much sooner.
    """
    made = np.random.default_rng(1).normal(0, 1e-3, size).astype(np.float32)

    def nothing(params: np.ndarray, *, targets: np.ndarray, steps: np.ndarray, **_: Any) -> tuple:
        learned = int((targets >= 0).sum())
        return made[: len(params)].copy(), float(learned), learned, len(steps)

    runtime.local_sgd = nothing


def main() -> None:
    options_of = parser(__doc__)
    options_of.add_argument("--variant", choices=VARIANTS, default="exact")
    options_of.add_argument("--workers", type=int, default=2, help="threads that train")
    options = parsed(options_of)
    data = Data(options.data)
    clock = None if options.mode == "check" else Clock(data, options)
    facts = data.config
    opened = open_data(facts["source"], preset_name=facts["preset"], seed=facts["seed"], words=HELD_OUT_WORDS)
    config = config_of(data, options)
    built = build_with(opened.vocabulary, opened.frequencies, config)
    spec = built.task.config.spec
    built = replace(built, params=np.concatenate([data.params[name].ravel() for name, _ in spec.entries]))
    phones = logs(opened)  # tokenised before the clock starts, as the peers' are
    if built.vocabulary.sha256 != facts["vocabulary_sha256"] or len(phones) != len(data):
        raise SystemExit(
            f"{options.data} was made from other text or another vocabulary: run prepare.py again"
        )
    if clock is None:
        found = expected(opened, built, first_checked(phones))
        params = {name: found[name] for name in data.params}
        check("kbdfl", data, loss=float(found["loss"]), params=params)
        return

    if options.mode == "noop":
        leave_out_training(spec.size)
    simulation = Simulation(
        config, built, opened.population, workers=options.workers, held_out=opened.validation.words
    )

    def on_round(row: dict[str, Any]) -> None:
        published = simulation.coordinator.published
        if clock.round(lambda: spec.views(published), clients=row["reports"], words=row["tokens"]):
            raise Reached

    clock.start()
    with suppress(Reached):
        simulation.rounds(on_round)
    name = f"kbdfl-{options.variant}"
    clock.report(name, ("kbdfl",), variant=options.variant, workers=options.workers)


if __name__ == "__main__":
    main()
