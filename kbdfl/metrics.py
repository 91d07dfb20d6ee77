"""How well a model predicts held-out words, by the kernels: what a round's row in metrics.jsonl says."""

from collections.abc import Sequence

import numpy as np

from kbdfl.errors import DataError
from kbdfl.kernels.score import score
from kbdfl.model import CifgConfig
from kbdfl.model.cifg import SPECIAL_TOKENS
from kbdfl.text import PackedBatches, pack

_BATCH = 64


def evaluation_set(sentences: Sequence[Sequence[int]]) -> PackedBatches:
    """Pack held-out sentences `[<bos>, word, ..., <eos>]` by length, for speed. Raises DataError if empty."""
    ordered = sorted(sentences, key=len, reverse=True)
    batches = pack([ordered[start : start + _BATCH] for start in range(0, len(ordered), _BATCH)])
    if not len(batches.inputs):
        raise DataError("the evaluation log holds no words")
    return batches


def recall(params: np.ndarray, config: CifgConfig, batches: PackedBatches) -> dict[str, float]:
    """recall_top1, recall_top3: the share of all target words among the first k suggestions.

    A word outside the vocabulary counts as a miss. params is float32 (P,).
    """
    _, ranks = score(params, **config.dims, **batches.arrays, first_word=SPECIAL_TOKENS)
    known = ranks[ranks >= 0]
    return {f"recall_top{k}": float((known < k).sum() / len(ranks)) for k in (1, 3)}
