"""`compare-server-rules`: what the server does with a mean delta, at equal rounds, each rule at its best rate.

Reddi et al. 2020, arXiv 2003.00295, figure 1, on other text. The client rule is the same for all.
"""

from kbdfl.algorithms import SERVER_RULES, Algorithm, ClientRule
from kbdfl.device_sim.experiments.settings import Federated, Setting
from kbdfl.device_sim.experiments.study import Study

# FedAvg's 1 takes the mean delta as it is, FedAvgM gathers ten times as much, adaptive rules set a step's own size.
GRIDS: dict[str, tuple[float, ...]] = {
    "fedavg": (1.0, 2.0, 4.0, 8.0),
    "fedavgm": (0.25, 0.5, 1.0, 2.0),
    "fedadagrad": (0.03, 0.06, 0.12, 0.24),
    "fedadam": (0.0075, 0.015, 0.03, 0.06),
    "fedyogi": (0.0075, 0.015, 0.03, 0.06),
}
ADAPTIVE = ("fedadagrad", "fedadam", "fedyogi")
CANDIDATES = 1_000  # of the sampled softmax


def settings(*, rounds: int, quick: bool) -> list[Setting]:
    """Every rule at every rate of its grid; a rate falls to a tenth over the rounds."""
    client = ClientRule(candidates=CANDIDATES)
    return [
        Federated(
            name,
            f"server rate {rate:g}",
            Algorithm(client=client, server=SERVER_RULES[name](rate, rate / 10, rounds)),
            rounds,
        )
        for name, grid in GRIDS.items()
        for rate in grid
    ]


def figures(study: Study) -> dict[str, float]:
    """Points of recall@1 that each rule is above FedAvg, and the best adaptive one above the best other."""
    mean = {name: 100 * study.mean(name) for name in GRIDS}
    others = max(mean[name] for name in mean if name not in ADAPTIVE)
    above = {f"{name}_over_fedavg": mean[name] - mean["fedavg"] for name in GRIDS if name != "fedavg"}
    return above | {"adaptive_over_others": max(mean[name] for name in ADAPTIVE) - others}
