"""Federated algorithms as rows of a table."""

from kbdfl.algorithms.base import PRESETS, Algorithm
from kbdfl.algorithms.client import ClientRule
from kbdfl.algorithms.server import SERVER_RULES, FedAdam, FedAvg, ServerRule

__all__ = ["PRESETS", "SERVER_RULES", "Algorithm", "ClientRule", "FedAdam", "FedAvg", "ServerRule"]
