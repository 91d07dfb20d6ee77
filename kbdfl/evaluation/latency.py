"""How long a model step takes on this machine, as a keyboard runs it."""

import time
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np

from kbdfl.export.bundle import Bundle
from kbdfl.export.predictor import Predictor
from kbdfl.text import BOS, SPECIALS

_WARM_UP = 100


@dataclass(frozen=True, slots=True)
class Latency:
    """Microseconds of a step: the median, and what one step in a hundred exceeds."""

    latency_p50_us: float
    latency_p99_us: float


def step_latency(bundle: Bundle, *, steps: int = 2000) -> Latency:
    """Time `steps` steps of `Predictor.step` on one thread, each from the context of the one before."""
    predictor = Predictor(bundle)
    context, times = predictor.step(BOS), []
    for token in islice(cycle(range(len(SPECIALS), len(bundle.vocabulary))), _WARM_UP + steps):
        started = time.perf_counter_ns()
        context = predictor.step(token, context)
        times.append(time.perf_counter_ns() - started)
    p50, p99 = np.percentile(times[_WARM_UP:], (50, 99)) / 1000
    return Latency(float(p50), float(p99))
