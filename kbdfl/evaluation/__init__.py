"""How well a keyboard predicts held-out words: recall, rank, keystrokes saved, perplexity, latency, baselines."""

from kbdfl.evaluation.agreement import agreement
from kbdfl.evaluation.baselines import evaluate_baseline
from kbdfl.evaluation.bundle import Evaluation, evaluate_bundle
from kbdfl.evaluation.keystrokes import SLOTS, Scores
from kbdfl.evaluation.latency import Latency, step_latency

__all__ = [
    "SLOTS",
    "Evaluation",
    "Latency",
    "Scores",
    "agreement",
    "evaluate_baseline",
    "evaluate_bundle",
    "step_latency",
]
