"""Federated algorithms as rows of a table."""

from kbdfl.algorithms.aggregate import AGGREGATES, Aggregate, Mean
from kbdfl.algorithms.base import PRESETS, WEIGHTS, Algorithm
from kbdfl.algorithms.client import ClientRule
from kbdfl.algorithms.mode import MODES, FedBuff, Mode, Synchronous
from kbdfl.algorithms.robust import Krum, Median, TrimmedMean
from kbdfl.algorithms.server import (
    SERVER_RULES,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedYogi,
    ServerRule,
)

__all__ = [
    "AGGREGATES",
    "MODES",
    "PRESETS",
    "SERVER_RULES",
    "WEIGHTS",
    "Aggregate",
    "Algorithm",
    "ClientRule",
    "FedAdagrad",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedBuff",
    "FedYogi",
    "Krum",
    "Mean",
    "Median",
    "Mode",
    "ServerRule",
    "Synchronous",
    "TrimmedMean",
]
