"""Whether one phone took part: an attacker who knows its update looks for it in what is released."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kbdfl.audit.chance import auc
from kbdfl.audit.mechanism import Mechanism
from kbdfl.errors import ConfigError
from kbdfl.rng import stream


@dataclass(frozen=True, slots=True)
class Membership:
    """AUC of telling releases with the phone from those without it: of sums as they are, and of protected ones."""

    plain_auc: float
    protected_auc: float
    cohort: int
    trials: int


def membership(
    updates: Sequence[np.ndarray], mechanism: Mechanism, *, cohort: int, trials: int, seed: int
) -> Membership:
    """`trials` releases of `cohort` of the `updates` float32 (P,), every other one with a given phone's among them.

    The attacker knows that phone's update u, and some of phones that did not take part, whose mean is what all have in
    common; with d the rest of u, a release x scores <x, d> / |d|^2. The phone is another one in every trial. Raises
    ConfigError for too few updates.
    """
    if len(updates) < cohort + 2:
        raise ConfigError(f"membership needs at least {cohort + 2} updates, got {len(updates)}")
    random = stream(seed, "audit", "membership")
    scores: dict[str, list[float]] = {"plain": [], "protected": []}
    there = np.arange(trials) % 2 == 1
    for trial in range(trials):
        order = random.permutation(len(updates))
        target, others = updates[order[0]], [updates[i] for i in order[1 : cohort + 1]]
        shadow = np.mean([updates[i] for i in order[cohort + 1 :]], axis=0)
        if there[trial]:
            others[0] = target
        stack, direction = np.array(others), target - shadow
        direction /= max(float(direction @ direction), 1e-12)
        for name, release in (
            ("plain", stack.sum(0) - cohort * shadow),
            ("protected", mechanism.release(stack, round=trial)),
        ):
            scores[name].append(float(release @ direction))
    return Membership(
        auc(np.array(scores["plain"]), there), auc(np.array(scores["protected"]), there), cohort, trials
    )
