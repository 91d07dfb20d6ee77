"""Sampled softmax as a smaller model: train the rows that matter, leave the others where they are.

A phone's words and some others are taken out of the vocabulary as a model of their own, trained by the same
kernel, and their change is put back. Jean et al. 2015, "On using very large target vocabulary", arXiv
1412.2007: the others are the most frequent words, always, and a uniform draw from the rest; a drawn word stands
for 1/q words, so log(1/q) is added to its logit, which keeps the softmax's denominator and its gradient unbiased.
"""

from dataclasses import dataclass

import numpy as np

from kbdfl.model.cifg import SPECIAL_TOKENS, CifgConfig
from kbdfl.text import IGNORED, PackedBatches


@dataclass(frozen=True, slots=True)
class Candidates:
    """rows int64 (S,), ascending, the words that train; log_weight float32 (S,), log(1/q), 0 for certain ones."""

    rows: np.ndarray
    log_weight: np.ndarray


def draw_candidates(
    config: CifgConfig, batches: PackedBatches, *, count: int, random: np.random.Generator
) -> Candidates:
    """The phone's own words, the specials, and `count` others: half the most frequent ones, half drawn.

    Word ids must be in order of frequency, as in a public vocabulary.
    """
    certain = np.zeros(config.vocab, bool)
    certain[: SPECIAL_TOKENS + count // 2] = True
    certain[batches.inputs] = True
    certain[batches.targets[batches.targets != IGNORED]] = True
    rest = np.flatnonzero(~certain)
    drawn = random.choice(rest, min(count - count // 2, len(rest)), replace=False)
    weight = np.zeros(config.vocab, np.float32)
    if len(drawn):
        weight[drawn] = np.log(len(rest) / len(drawn))
    rows = np.sort(np.concatenate([np.flatnonzero(certain), drawn]))
    return Candidates(rows, weight[rows])


def take_rows(
    params: np.ndarray, config: CifgConfig, candidates: Candidates
) -> tuple[np.ndarray, CifgConfig]:
    """The smaller model's parameters, flat float32, and its shape."""
    small = CifgConfig(len(candidates.rows), config.embed, config.hidden)
    views, flat = config.spec.views(params), np.empty(small.spec.size, np.float32)
    for name, view in small.spec.views(flat).items():
        view[:] = views[name][candidates.rows] if name in ("emb", "bias") else views[name]
    small.spec.views(flat)["bias"][:] += candidates.log_weight
    return flat, small


def put_back(delta: np.ndarray, config: CifgConfig, candidates: Candidates) -> np.ndarray:
    """The smaller model's delta as one of the whole model, flat float32 (P,), zero where nothing trained."""
    small = CifgConfig(len(candidates.rows), config.embed, config.hidden)
    whole = np.zeros(config.spec.size, np.float32)
    for (name, view), part in zip(
        config.spec.views(whole).items(), small.spec.views(delta).values(), strict=True
    ):
        view[candidates.rows if name in ("emb", "bias") else slice(None)] = part
    return whole


def renumber(batches: PackedBatches, config: CifgConfig, candidates: Candidates) -> PackedBatches:
    """The same batches in the smaller model's word ids."""
    ids = np.full(config.vocab, IGNORED, np.int32)
    ids[candidates.rows] = np.arange(len(candidates.rows), dtype=np.int32)
    targets = np.where(batches.targets == IGNORED, np.int32(IGNORED), ids[batches.targets])
    return PackedBatches(ids[batches.inputs], targets, batches.active, batches.steps)
