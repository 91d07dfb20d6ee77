"""`selection`: time to target by the rule that selects phones, on heavy-tailed speeds and nightly hours.

Every rule but uniform selection passes phones over; whom, the table's last columns show.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kbdfl.algorithms import (
    Algorithm,
    AvailabilityAware,
    ClientRule,
    DeadlineAware,
    FedAdam,
    Oort,
    Selection,
    Uniform,
)
from kbdfl.device_sim.devices import make_device
from kbdfl.device_sim.experiments.data import Data, Part
from kbdfl.device_sim.experiments.report import Columns
from kbdfl.device_sim.experiments.settings import Around, Federated, Setting, Trained
from kbdfl.device_sim.experiments.study import Study, Tried
from kbdfl.device_sim.experiments.timing import soonest, spoken, until
from kbdfl.task import RoundRule

COHORT = 30
RATE = 0.03  # of the server, for all rules
UNIFORM = "uniform"
RULES: dict[str, dict[str, Selection]] = {
    UNIFORM: {"separation 0": Uniform(), "separation 3": Uniform(min_separation=3)},
    "available": {"separation 0": AvailabilityAware(), "separation 3": AvailabilityAware(min_separation=3)},
    "deadline": {f"target {seconds:g} s": DeadlineAware(target_s=seconds) for seconds in (5.0, 10.0, 20.0)},
    "oort": {f"penalty {penalty:g}": Oort(penalty=penalty) for penalty in (0.25, 0.5, 2.0)},
}
CANDIDATES = 1_000  # of the sampled softmax
SHARE = 0.95  # of the recall that uniform selection ends with is the target
POINTS = 12
SPEEDS, AVAILABILITY = "heavy-tailed", "nightly"
SLOW = ("low", "old")  # tiers


@dataclass(frozen=True, slots=True, eq=False)
class Heard(Trained):
    """A model that knows the `tiers` of all phones that might have taught it."""

    tiers: Mapping[str, str] = field(default_factory=dict)

    def details(self, part: Part) -> dict[str, float]:
        """`heard`, the share of phones that were counted once or more, and `slow`, of reports from slow tiers."""
        slow = sum(count for phone, count in self.counted.items() if self.tiers[phone] in SLOW)
        return {"heard": len(self.counted) / len(self.tiers), "slow": slow / sum(self.counted.values())}


@dataclass(frozen=True, slots=True)
class Selecting(Around):
    """A federated setting whose models know whom they heard."""

    def train(self, data: Data, *, seed: int, workers: int) -> Trained:
        trained = self.inner.train(data, seed=seed, workers=workers)
        tiers = {
            phone: make_device(seed, phone, speeds=SPEEDS, availability=AVAILABILITY).tier
            for phone in data.population.users
        }
        return trained.known_as(Heard, tiers=tiers)


def settings(*, rounds: int, quick: bool) -> list[Setting]:
    """Each rule with the values of its own grid."""
    client = ClientRule(candidates=CANDIDATES)
    return [
        Selecting(
            Federated(
                method,
                value,
                Algorithm(client=client, server=FedAdam(RATE, RATE / 10, rounds), selection=rule),
                rounds,
                points=POINTS,
                rule=RoundRule(cohort=COHORT),
                speeds=SPEEDS,
                availability=AVAILABILITY,
            )
        )
        for method, grid in RULES.items()
        for value, rule in (list(grid.items())[:1] if quick else grid.items())
    ]


def choose(tried: Sequence[Tried]) -> dict[str, Tried]:
    """Of each rule the value that has the target soonest on validation users."""
    most = max(one.recall_top1 for one in tried if one.method == UNIFORM)
    return soonest(tried, SHARE * most)


def figures(study: Study) -> dict[str, float]:
    """How many times sooner than uniform selection each rule has the target on held-out users: mean over seeds."""
    return {
        f"{method}_speedup": _mean(
            [
                uniform / hours
                for uniform, hours in zip(_hours(study, UNIFORM), _hours(study, method), strict=True)
            ]
        )
        for method in study.methods
        if method != UNIFORM
    }


def columns(study: Study) -> Columns:
    """Hours to each seed's target, and whom the rules heard."""

    def share(name: str) -> dict[str, str]:
        return {
            method: f"{100 * _mean([run.details[name] for run in study.of(method)]):.0f} %"
            for method in study.methods
        }

    return {
        "hours to target": {method: spoken(_hours(study, method), ".3f") for method in study.methods},
        "phones heard": share("heard"),
        "reports of slow tiers": share("slow"),
    }


def _hours(study: Study, method: str) -> list[float]:
    targets = [SHARE * run.recall_top1 for run in study.of(UNIFORM)]
    return [until(run.curve, target) for run, target in zip(study.of(method), targets, strict=True)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
