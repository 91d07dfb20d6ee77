"""When a persona types, where, and how much: sessions by hour of the day and day of the week."""

from dataclasses import dataclass

import numpy as np

START_S = 1_704_067_200.0  # Monday 1 January 2024, 00:00 UTC
APPS = ("chat", "social", "mail", "search", "notes")
# what the apps of a style's users get, as the parameters of a Dirichlet distribution
APP_PRIOR = {
    "formal": (4.0, 1.0, 2.5, 1.0, 0.8),
    "plain": (6.0, 1.2, 1.0, 1.0, 0.6),
    "casual": (7.0, 2.0, 0.4, 1.0, 0.5),
    "texting": (8.0, 2.0, 0.2, 0.8, 0.3),
}
_HOURS = np.arange(24) + 0.5


@dataclass(frozen=True, slots=True)
class Session:
    """Messages written one after another in one app; `times` in unix seconds, ascending."""

    app: str
    times: tuple[float, ...]


def sessions(days: int, style: str, random: np.random.Generator) -> list[Session]:
    """All sessions of one user over `days` days, by time; at least one message.

    Prior: messages a day are log-normal with median 1.9 and sigma 1.1, at most 80, so that a few users write
    most of everything; a session holds 1 + Exp(2) messages, a median of 25 s apart; the user is awake from
    about 7:30 to 23:30, with humps at breakfast, noon and night, later at the weekend, and quieter at work.
    """
    rate = min(1.9 * float(np.exp(1.1 * random.standard_normal())), 80.0)
    total = max(1, int(random.poisson(rate * days)))
    sizes = 1 + random.exponential(2.0, total).astype(np.int64)
    ends = np.cumsum(sizes)
    count = int(np.searchsorted(ends, total)) + 1
    sizes = sizes[:count]
    sizes[-1] -= ends[count - 1] - total

    weekday, weekend = _awake(random)
    share = 0.6 + 0.9 * random.random()  # how much of a weekday's typing a day of the weekend gets
    day = np.arange(days)
    weights = np.where((day % 7 >= 5)[:, None], share * weekend, weekday).ravel()
    start = np.sort(
        np.searchsorted(np.cumsum(weights), random.random(count) * weights.sum()) + random.random(count)
    )
    app = np.searchsorted(np.cumsum(random.dirichlet(APP_PRIOR[style]))[:-1], random.random(count))

    gaps = 25.0 * np.exp(0.8 * random.standard_normal(total))
    times, first = np.cumsum(gaps), np.append(0, np.cumsum(sizes)[:-1])
    times += np.repeat(START_S + 3600.0 * start - times[first], sizes)
    times = times.round(1).tolist()
    return [
        Session(APPS[which], tuple(times[begin : begin + size]))
        for which, begin, size in zip(app.tolist(), first.tolist(), sizes.tolist(), strict=True)
    ]


def _awake(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """How likely a user types in each hour of a weekday and of a weekend day, float64 (24,), summing to 1."""
    wake, bed = 7.5 + 1.2 * random.standard_normal(), 23.5 + 1.2 * random.standard_normal()
    employed = random.random() < 0.7
    curves = []
    for later in (0.0, 1.5):
        curve = 0.15 + sum(
            height * np.exp(-0.5 * ((_HOURS - centre) / width) ** 2)
            for height, centre, width in ((0.6, wake + 0.7 + later, 0.8), (0.5, 12.7, 0.9), (1.0, 20.5, 2.2))
        )
        if employed and not later:
            curve = np.where((_HOURS > 9) & (_HOURS < 17) & (abs(_HOURS - 12.7) > 1), 0.25 * curve, curve)
        asleep = (wake + later > _HOURS) & (bed + later - 24 < _HOURS) | (bed + later < _HOURS)
        curve = np.where(asleep, 0.01 * curve, curve)
        curves.append(curve / curve.sum())
    return curves[0], curves[1]
