"""`privacy`: recall against epsilon, with noise for millions of devices and as many clients as the text has.

Noise that hides one device among few would drown everything, so a task with privacy needs far more devices than any
public text has users. What is trained here is a small cohort of real clients, who come again and again; the noise in
each mean is that of a large cohort, which the statement is about. Epsilon is accounted for that stated population, in
which nobody comes again before the separation is over; the real clients, who do, are promised nothing. A mean over the
large cohort would be a better one than that over the small, and its clients would bring new text each time, so recall
is not flattered. Rows with noise and without have the same clients in cohorts of one size. Where updates are clipped
the clients also take turns, as bands of noise demand; the row that is clipped alone says what that and clipping do.

Nearly all updates are longer than the clip norm, so it is a unit and no more: with noise and FedAdam's floor in
proportion a smaller one trains the same model. What is tuned is the server's rate and that floor.

The noise comes from the operating system as in any run, so the rows with noise are not the same twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from kbdfl.algorithms import Algorithm, ClientRule, FedAdam
from kbdfl.device_sim.experiments.data import Data, Part
from kbdfl.device_sim.experiments.report import Against, Columns
from kbdfl.device_sim.experiments.settings import Around, Federated, Setting, Trained
from kbdfl.device_sim.experiments.study import Run, Study
from kbdfl.model import preset
from kbdfl.privacy import Privacy
from kbdfl.privacy.plan import Plan, plan, usual_separation
from kbdfl.task import RoundRule

COHORT = 20  # of real clients, none of whom is in a cohort with noise twice in BANDS rounds
POPULATION, STATED_COHORT = 6_000_000, 10_000  # in 300 rounds each device of them takes part once
DELTA = 1e-10
BANDS = 32
RATES = (0.015, 0.03, 0.06)  # of the server, without clipping and noise
CLIP = 1.0
# With clipping: the server's rate, and FedAdam's epsilon, a floor under what a coordinate's step is divided by.
CLIPPED_RATES = ((0.05, 5e-4), (0.1, 2e-3))
STILL = 1e-6  # noise in clip norms that is none: as long as one step of the updates' grid
CANDIDATES = 1_000  # of the sampled softmax
PLAIN, CLIPPED = "no noise", "clipped"
TARGET = 8.9
EPSILONS = (TARGET, 4.0, 2.0, 1.0)
OTHERS = ("gaussian", "tree")  # mechanisms, at the first epsilon


@dataclass(frozen=True, slots=True, eq=False)
class Stated(Trained):
    """A model with what is stated of it: figures of its plan."""

    stated: dict[str, float] = field(default_factory=dict)

    def details(self, part: Part) -> dict[str, float]:
        return dict(self.stated)


@dataclass(frozen=True, slots=True)
class Small(Around):
    """A federated setting without noise, in cohorts as small as those with noise."""

    inner: Federated

    def train(self, data: Data, *, seed: int, workers: int) -> Trained:
        """As `Setting.train`."""
        return replace(self.inner, rule=_rule(data)).train(data, seed=seed, workers=workers)


@dataclass(frozen=True, slots=True)
class Noised:
    """A setting with the noise that `asked` needs for the stated population, in the means of a small cohort."""

    method: str
    value: str
    algorithm: Algorithm
    asked: Privacy
    rounds: int

    def stated(self, size: int) -> Plan:
        """What is promised the stated population, for updates of `size` numbers."""
        separation = usual_separation(POPULATION, rounds=self.rounds, cohort=STATED_COHORT)
        bands = min(BANDS, separation) if self.asked.mechanism == "banded" else 0
        asked = replace(self.asked, population=POPULATION, separation=separation, bands=bands)
        return plan(asked, rounds=self.rounds, cohort=STATED_COHORT, size=size)

    def train(self, data: Data, *, seed: int, workers: int) -> Trained:
        """As `Setting.train`, but for the noise, which nobody can repeat."""
        shape, rule = replace(preset(data.preset), vocab=len(data.vocabulary)), _rule(data)
        made = self.stated(shape.spec.size)
        stated = made.account.privacy
        # In a sum of few updates the noise of one mean of many: as much less as the divisor is smaller.
        noise = stated.noise_multiplier * rule.cohort / STATED_COHORT
        small = Privacy(
            stated.mechanism,
            noise_multiplier=noise,
            bands=stated.bands,
            separation=min(BANDS, stated.separation),
            delta=DELTA,
        )
        trained = Federated(
            self.method, self.value, replace(self.algorithm, privacy=small), self.rounds, rule=rule
        ).train(data, seed=seed, workers=workers)
        figures = {
            "epsilon": made.epsilon,
            "rho": made.rho,
            "participations": stated.parts(self.rounds),
            "noise_multiplier": stated.noise_multiplier,
            "noise_norm": made.noise_norm,
            "running_noise": made.running_noise,
        }
        return trained.known_as(Stated, stated=figures)


def _rule(data: Data) -> RoundRule:
    """Rounds of real clients, whom no cohort needs again before the bands are over."""
    return RoundRule(cohort=max(1, min(COHORT, len(data.population) // BANDS)), over_selection=1.0)


def settings(*, rounds: int, quick: bool) -> list[Setting]:
    """Without noise, clipped alone, and every epsilon, each with values of its own."""
    client = ClientRule(candidates=CANDIDATES)

    def server(rate: float, **more: float) -> FedAdam:
        return FedAdam(rate, rate / 10, rounds, **more)

    def small(method: str, value: str, algorithm: Algorithm) -> Small:
        return Small(Federated(method, value, algorithm, rounds))

    values = {
        f"rate {rate:g}, floor {floor:g}": Algorithm(
            client, server=server(rate, epsilon=floor), update_clip_norm=CLIP, weights="uniform"
        )
        for rate, floor in (CLIPPED_RATES[:1] if quick else CLIPPED_RATES)
    }
    rows: list[Setting] = [
        small(PLAIN, f"rate {rate:g}", Algorithm(client, server=server(rate)))
        for rate in (RATES[1:2] if quick else RATES)
    ]
    epsilons = (EPSILONS[0], EPSILONS[-1]) if quick else EPSILONS
    asked = {f"epsilon {epsilon:g}": Privacy("banded", epsilon=epsilon, delta=DELTA) for epsilon in epsilons}
    if not quick:
        still = Privacy("gaussian", noise_multiplier=STILL, separation=BANDS, delta=DELTA)
        rows += [small(CLIPPED, value, replace(one, privacy=still)) for value, one in values.items()]
        asked |= {
            f"epsilon {TARGET:g}, {name}": Privacy(name, epsilon=TARGET, delta=DELTA) for name in OTHERS
        }
    rows += [
        Noised(method, value, one, privacy, rounds)
        for method, privacy in asked.items()
        for value, one in values.items()
    ]
    return rows


def figures(study: Study) -> dict[str, float]:
    """Points of top-1 that each epsilon costs, and all that the statement is about.

    They are counted from the better of the rows without noise: clipping alone may teach more than it costs.
    """
    best = max(study.mean(method) for method in (PLAIN, CLIPPED) if method in study.methods)
    lost = {
        f"points_lost_at_{method.removeprefix('epsilon ').replace(', ', '_')}": 100
        * (best - study.mean(method))
        for method in study.methods
        if method.startswith("epsilon")
    }
    return lost | {"delta": DELTA, "stated_population": POPULATION, "stated_cohort": STATED_COHORT}


def against(study: Study) -> Against:
    """Recall over epsilon; rows without noise have none."""
    known = {
        method: run.details["epsilon"]
        for method in study.methods
        for run in study.of(method)[:1]
        if run.details
    }
    return {"epsilon": known}


def columns(study: Study) -> Columns:
    """What is stated of each row, and how long the noise in a mean is."""

    def stated(name: str, form: str) -> dict[str, str]:
        return {method: _spoken(study.of(method), name, form) for method in study.methods}

    return {
        "epsilon": stated("epsilon", ".3g"),
        "rho": stated("rho", ".3g"),
        "noise in clip norms": stated("noise_multiplier", ".3g"),
        "noise of a mean": stated("noise_norm", ".2g"),
        "of a running sum": stated("running_noise", ".2g"),
    }


def _spoken(runs: Sequence[Run], name: str, form: str) -> str:
    known = [run.details[name] for run in runs if name in run.details]
    return format(known[0], form) if known else "none"
