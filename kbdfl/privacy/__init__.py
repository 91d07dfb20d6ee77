"""Differential privacy of a device: noise on whole numbers, what it is worth, its ledger, and a sentence about it."""

from kbdfl.privacy.distributed import Shares
from kbdfl.privacy.ledger import Account, Books, FileBooks, Ledger, MemoryBooks, Row
from kbdfl.privacy.participation import Participations, Parts
from kbdfl.privacy.release import Central, Summing
from kbdfl.privacy.source import Source
from kbdfl.privacy.statement import so_far, statement
from kbdfl.privacy.terms import MECHANISMS, Privacy

__all__ = [
    "MECHANISMS",
    "Account",
    "Books",
    "Central",
    "FileBooks",
    "Ledger",
    "MemoryBooks",
    "Participations",
    "Parts",
    "Privacy",
    "Row",
    "Shares",
    "Source",
    "Summing",
    "so_far",
    "statement",
]
