"""Federated algorithms as rows of a table."""

from kbdfl.algorithms.aggregate import AGGREGATES, Aggregate, Mean
from kbdfl.algorithms.base import PRESETS, WEIGHTS, Algorithm
from kbdfl.algorithms.client import ClientRule
from kbdfl.algorithms.download import Download
from kbdfl.algorithms.mode import MODES, FedBuff, Mode, Synchronous
from kbdfl.algorithms.oort import Oort
from kbdfl.algorithms.robust import Krum, Median, TrimmedMean
from kbdfl.algorithms.selection import SELECTIONS, AvailabilityAware, DeadlineAware, Selection, Uniform
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
    "SELECTIONS",
    "SERVER_RULES",
    "WEIGHTS",
    "Aggregate",
    "Algorithm",
    "AvailabilityAware",
    "ClientRule",
    "DeadlineAware",
    "Download",
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
    "Oort",
    "Selection",
    "ServerRule",
    "Synchronous",
    "TrimmedMean",
    "Uniform",
]
