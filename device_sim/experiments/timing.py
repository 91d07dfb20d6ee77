"""How soon a training reaches a recall, read from its learning curve."""

from collections.abc import Mapping, Sequence
from math import inf

from kbdfl.device_sim.experiments.study import Tried, best_by

Curve = Sequence[Mapping[str, float]]


def until(curve: Curve, recall: float, *, count: str = "hours") -> float:
    """What `count` of the curve is where recall@1 first is `recall`, linear between its points; infinite if never.

    A curve that begins above it has its first point's, which is later than the truth.
    """
    before = None
    for point in curve:
        if point["recall_top1"] >= recall:
            if before is None:
                return point[count]
            share = (recall - before["recall_top1"]) / (point["recall_top1"] - before["recall_top1"])
            return before[count] + share * (point[count] - before[count])
        before = point
    return inf


def soonest(tried: Sequence[Tried], recall: float) -> dict[str, Tried]:
    """Of every method the value that has `recall` soonest, among those that never have it the one with the most."""
    return best_by(tried, lambda one: (-until(one.curve, recall), one.recall_top1))


def spoken(values: Sequence[float], form: str) -> str:
    """Their mean as a table says it, or "never" if one of them is infinite."""
    mean = sum(values) / len(values)
    return "never" if mean == inf else format(mean, form)
