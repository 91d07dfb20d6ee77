"""The course of every experiment: values are chosen on validation users, then seeds run, then held-out users judge."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kbdfl.device_sim.experiments.data import Data
from kbdfl.device_sim.experiments.settings import Setting, Trained

Watch = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Tried:
    """One value of a method at the first seed, on validation users, with its learning curve there."""

    method: str
    value: str
    recall_top1: float
    recall_top3: float
    curve: list[dict[str, float]]
    details: dict[str, float]
    chosen: bool = False


Choose = Callable[[list[Tried]], dict[str, Tried]]


def best_by(tried: Sequence[Tried], key: Callable[[Tried], Any]) -> dict[str, Tried]:
    """Of every method the value with the greatest `key`, among equals the first."""
    best: dict[str, Tried] = {}
    for one in tried:
        before = best.get(one.method)
        if before is None or key(one) > key(before):
            best[one.method] = one
    return best


def by_recall(tried: list[Tried]) -> dict[str, Tried]:
    """Of every method the value with the best recall@1, among equals with the best recall@3."""
    return best_by(tried, lambda one: (one.recall_top1, one.recall_top3))


@dataclass(frozen=True, slots=True)
class Run:
    """A method, with the value that was chosen, and a seed: recall and learning curve on held-out users, and cost."""

    method: str
    value: str
    seed: int
    recall_top1: float
    recall_top3: float
    tokens: int
    wall_s: float
    curve: list[dict[str, float]]
    details: dict[str, float]


@dataclass(frozen=True, slots=True)
class Study:
    """All that was tried, and all that was run with what was chosen."""

    tried: list[Tried]
    runs: list[Run]

    def at_edge(self, method: str) -> bool:
        """Whether the chosen value lies at an end of a grid of three or more: a better one may lie beyond."""
        grid = [tried for tried in self.tried if tried.method == method]
        return len(grid) > 2 and (grid[0].chosen or grid[-1].chosen)

    @property
    def methods(self) -> list[str]:
        """In the order in which they were given."""
        return list(dict.fromkeys(tried.method for tried in self.tried))

    def of(self, method: str) -> list[Run]:
        """The runs of one method, seed by seed."""
        return [run for run in self.runs if run.method == method]

    def mean(self, method: str) -> float:
        """Recall@1 on held-out users, the mean over seeds."""
        runs = self.of(method)
        return sum(run.recall_top1 for run in runs) / len(runs)


def carry_out(
    settings: Sequence[Setting],
    data: Data,
    *,
    seeds: Sequence[int],
    workers: int,
    watch: Watch,
    choose: Choose = by_recall,
) -> Study:
    """Train every setting at the first seed, then each method's best at the other seeds, interleaved.

    Settings of equal `method` are its grid, in ascending order of what is tuned; `choose` names the best of each. The
    first seed's models are not trained again. `watch` gets a line for every model that was trained.
    """
    methods = list(dict.fromkeys(setting.method for setting in settings))
    total = len(settings) + len(methods) * (len(seeds) - 1)
    done = 0

    def train(setting: Setting, seed: int) -> tuple[Trained, dict[str, float]]:
        nonlocal done
        trained = setting.train(data, seed=seed, workers=workers)
        found = trained.recall(data.validation)
        done += 1
        watch(
            f"[{done}/{total}] seed {seed}, {setting.method}, {setting.value}: {found['recall_top1']:.2%} / "
            f"{found['recall_top3']:.2%} on validation users, {trained.wall_s:.1f} s"
        )
        return trained, found

    tried: list[Tried] = []
    first: list[Trained] = []
    for setting in settings:
        trained, found = train(setting, seeds[0])
        first.append(trained)
        top1, top3 = found["recall_top1"], found["recall_top3"]
        curve, details = trained.curve(data.validation), trained.details(data.validation)
        tried.append(Tried(setting.method, setting.value, top1, top3, curve, details))
    chosen = {
        method: next(i for i, one in enumerate(tried) if one is best)
        for method, best in choose(tried).items()
    }
    tried = [replace(one, chosen=chosen[one.method] == i) for i, one in enumerate(tried)]
    runs: list[Run] = []
    for seed in seeds:
        for method in methods:
            at = chosen[method]
            trained = first[at] if seed == seeds[0] else train(settings[at], seed)[0]
            found = trained.recall(data.held_out)
            top1, top3 = found["recall_top1"], found["recall_top3"]
            tokens, wall_s = trained.tokens, trained.wall_s
            curve, details = trained.curve(data.held_out), trained.details(data.held_out)
            runs.append(Run(method, settings[at].value, seed, top1, top3, tokens, wall_s, curve, details))
    return Study(tried, runs)
