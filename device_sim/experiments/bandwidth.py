"""`bandwidth`: bytes on the wire both ways against recall, at equal rounds.

A ratio is four bytes a parameter, what an update or a model takes as plain float32, over the bytes of the frames that
were really encoded and decoded, headers included.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kbdfl.algorithms import Algorithm, ClientRule, Download, FedAdam
from kbdfl.device_sim.experiments.data import Data, Part
from kbdfl.device_sim.experiments.report import Against, Columns
from kbdfl.device_sim.experiments.settings import Around, Federated, Setting, Trained
from kbdfl.device_sim.experiments.study import Study

CANDIDATES = 1_000  # of the sampled softmax
PLAIN = "float32"
FEEDBACK = 300  # rounds after which what a report lost is forgotten
FLOAT32, GRID, COARSE = Download(), Download("grid", steps=2.0), Download("grid", steps=1.0)
# The norm of an update that a phone sends with `summable`; real ones have at most 3, a step's rate times its clip.
NORM = 3.0
RATES = (0.015, 0.02)  # 0.01 was worse for float32, 0.03 for the smallest chains (one seed)


@dataclass(frozen=True, slots=True)
class Chain:
    """A way up and a way down."""

    upload: str
    download: Download = FLOAT32
    feedback_rounds: int = 0
    clip_norm: float = 0.0


CHAINS: dict[str, Chain] = {
    PLAIN: Chain("float32"),
    "int8": Chain("int8"),
    "compact": Chain("compact"),
    "summable": Chain("summable", clip_norm=NORM),
    "drive": Chain("nonzero+outliers:0.01+rotate+sample:0.6+sign"),
    "tiny-uplink without feedback": Chain("tiny-uplink"),
    "tiny-uplink": Chain("tiny-uplink", feedback_rounds=FEEDBACK),
    "half of that": Chain("topk:0.018+int4", feedback_rounds=FEEDBACK),
    "compact, grid": Chain("compact", GRID),
    "tiny-uplink, grid": Chain("tiny-uplink", GRID, FEEDBACK),
    "tiny-uplink, coarse grid": Chain("tiny-uplink", COARSE, FEEDBACK),
}


@dataclass(frozen=True, slots=True, eq=False)
class Measured(Trained):
    """A training with the mean bytes of a report and of a download, and how many reports there were."""

    uplink: float = 0.0
    downlink: float = 0.0
    reports: int = 0

    def details(self, part: Part) -> dict[str, float]:
        plain = 4.0 * self.config.spec.size
        return {"plain": plain, "uplink": self.uplink, "downlink": self.downlink, "reports": self.reports}


@dataclass(frozen=True, slots=True)
class Counting(Around):
    """A federated setting, the bytes of whose frames are counted."""

    inner: Federated

    def train(self, data: Data, *, seed: int, workers: int) -> Trained:
        """As `Setting.train`."""
        reports = up = down = 0

        def count(row: dict[str, Any]) -> None:
            nonlocal reports, up, down
            reports += row["reports"]
            up += row["uplink_bytes"]
            down += row["downlink_bytes"]

        trained = self.inner.train(data, seed=seed, workers=workers, watch=count)
        return trained.known_as(Measured, uplink=up / reports, downlink=down / reports, reports=reports)


def settings(*, rounds: int, quick: bool) -> list[Setting]:
    """Every chain at every server rate; a rate falls to a tenth over the rounds."""
    return [
        Counting(
            Federated(
                name,
                f"server rate {rate:g}",
                Algorithm(
                    client=ClientRule(candidates=CANDIDATES, feedback_rounds=chain.feedback_rounds),
                    server=FedAdam(rate, rate / 10, rounds),
                    upload=chain.upload,
                    update_clip_norm=chain.clip_norm,
                    download=chain.download,
                ),
                rounds,
            )
        )
        for name, chain in CHAINS.items()
        for rate in (RATES[1:2] if quick else RATES)
    ]


def figures(study: Study) -> dict[str, Any]:
    """`chains`: for each its ratios to float32 and what it loses of recall@1, in points, on held-out users."""
    return {"chains": list(_chains(study).values())}


def _chains(study: Study) -> dict[str, dict[str, Any]]:
    return {name: _chain(study, name) for name in study.methods}


def _chain(study: Study, name: str) -> dict[str, Any]:
    plain, uplink, downlink, reports = (
        _mean([run.details[what] for run in study.of(name)]) for what in _COUNTED
    )
    return {
        "name": name,
        "uplink_ratio": plain / uplink,
        "downlink_ratio": plain / downlink,
        "total_ratio": 2 * plain / (uplink + downlink),
        "recall_top1": study.mean(name),
        "top1_loss_points": 100 * (study.mean(PLAIN) - study.mean(name)),
        "uplink_bytes": round(uplink),
        "downlink_bytes": round(downlink),
        "run_uplink_bytes": round(uplink * reports),
        "run_downlink_bytes": round(downlink * reports),
    }


_COUNTED = ("plain", "uplink", "downlink", "reports")


def columns(study: Study) -> Columns:
    """Ratios to float32, up, down and together, what is lost of recall@1, and the megabytes of a run, up and down."""
    found = _chains(study)
    shown = {"up": "uplink_ratio", "down": "downlink_ratio", "together": "total_ratio"}
    ratios = {
        title: {name: f"{chain[what]:.1f}x" for name, chain in found.items()} for title, what in shown.items()
    }
    lost = {"points lost": {name: f"{chain['top1_loss_points']:+.2f}" for name, chain in found.items()}}
    run = {
        "MB a run": {
            name: f"{chain['run_uplink_bytes'] / 1e6:,.0f} / {chain['run_downlink_bytes'] / 1e6:,.0f}"
            for name, chain in found.items()
        }
    }
    return ratios | lost | run


def against(study: Study) -> Against:
    """The curves that the experiment is about: recall over how many times fewer bytes there are."""
    found = _chains(study)
    wanted = {
        "how many times fewer bytes go up": "uplink_ratio",
        "how many times fewer go both ways": "total_ratio",
    }
    return {title: {name: chain[what] for name, chain in found.items()} for title, what in wanted.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
