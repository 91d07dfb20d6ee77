"""The course of every experiment: values are chosen on validation users, then seeds run, then held-out users judge."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kbdfl.device_sim.experiments.data import Data
from kbdfl.device_sim.experiments.settings import Setting, Trained

Watch = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Tried:
    """One value of a method at the first seed, on validation users; the best at top-1, then top-3, is `chosen`."""

    method: str
    value: str
    recall_top1: float
    recall_top3: float
    chosen: bool


@dataclass(frozen=True, slots=True)
class Run:
    """A method, with the value that was chosen, and a seed: its recall on held-out users and what it took."""

    method: str
    value: str
    seed: int
    recall_top1: float
    recall_top3: float
    tokens: int
    wall_s: float
    curve: list[dict[str, float]]


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
    settings: Sequence[Setting], data: Data, *, seeds: Sequence[int], workers: int, watch: Watch
) -> Study:
    """Train every setting at the first seed, then each method's best at the other seeds, interleaved.

    Settings of equal `method` are its grid, in ascending order of what is tuned. The first seed's models are kept and
    not trained again. `watch` gets a line for every model that was trained.
    """
    grids: dict[str, list[Setting]] = {}
    for setting in settings:
        grids.setdefault(setting.method, []).append(setting)
    total = len(settings) + len(grids) * (len(seeds) - 1)
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

    best: dict[str, tuple[Setting, Trained]] = {}
    tried: list[Tried] = []
    for method, grid in grids.items():
        results = [train(setting, seeds[0]) for setting in grid]
        at = max(range(len(grid)), key=lambda i: (results[i][1]["recall_top1"], results[i][1]["recall_top3"]))
        best[method] = grid[at], results[at][0]
        tried += [
            Tried(method, setting.value, **found, chosen=i == at)
            for i, (setting, (_, found)) in enumerate(zip(grid, results, strict=True))
        ]
    runs: list[Run] = []
    for seed in seeds:
        for method, (setting, trained) in best.items():
            if seed != seeds[0]:
                trained, _ = train(setting, seed)
            found = trained.recall(data.held_out)
            took = {"tokens": trained.tokens, "wall_s": trained.wall_s, "curve": trained.curve}
            runs.append(Run(method, setting.value, seed, **found, **took))
    return Study(tried, runs)
