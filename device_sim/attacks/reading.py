"""Words read from captured frames in four modes: plain, compressed, masked, noised; and who typed them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kbdfl.audit.chance import within_words
from kbdfl.audit.mechanism import Mechanism
from kbdfl.audit.words import Recovery, evidence, read_words
from kbdfl.codec import upload_chain
from kbdfl.codec.places import TopK
from kbdfl.device_sim.attacks.capture import Capture, capture
from kbdfl.device_sim.attacks.masked import MaskedRound, masked_round, summable
from kbdfl.errors import ConfigError, DataError
from kbdfl.task import Task
from kbdfl.text import SPECIALS, UNK, Vocabulary

LEAST_PHONES = 32  # of a masked round
COMPRESSED = ("int8", "compact", "tiny-uplink")
SUMMED = "rotate-shared+fixed"  # of a masked round, where the run's own upload cannot be summed: nothing is left out
MOST_SHOWN = 12  # words of the example that are read and wrong


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What is attacked: float32 frames of `captures`, the first of which typed the example `sentence` alone."""

    task: Task
    vocabulary: Vocabulary
    captures: Sequence[Capture]
    sentence: str

    @property
    def summed(self) -> str:
        """The upload of a masked round."""
        own = self.task.algorithm.upload
        return own if own == "summable" or own.endswith("fixed") else SUMMED


def make_scene(
    task: Task,
    params: np.ndarray,
    vocabulary: Vocabulary,
    logs: Mapping[str, Sequence[Sequence[int]]],
    *,
    sentence: str,
    round: int,
) -> Scene:
    """Phones with these logs, and one that typed `sentence`, train on `params` float32 (P,).

    Raises ConfigError for a sentence of which the model knows no word, DataError if its phone sent no report.
    """
    example = vocabulary.encode(sentence)
    if all(token < len(SPECIALS) for token in example):
        raise ConfigError(f"the model must know a word of the example, got {sentence!r}"[:200])
    found = capture(task, params, {"the example": [example] if example else [], **logs}, round=round)
    if not found or found[0].device != "the example":
        raise DataError(
            "the phone of the example sent no report: none of the round's words is in its sentence"
        )
    return Scene(task, vocabulary, found, sentence)


def plain(scene: Scene) -> dict[str, Any]:
    """Float32 frames: `precision`, `recall`, `f1` of the words of each, and `auc` of who typed a word."""
    return _frames(scene, scene.captures)


def compressed(scene: Scene) -> dict[str, dict[str, Any]]:
    """The same of frames as the run sends them and as the other compressed uploads would."""
    own = scene.task.algorithm.upload
    uploads = [own] if own not in (*COMPRESSED, "float32", scene.summed) else []
    return {
        upload: _frames(scene, [one.sent_as(upload) for one in scene.captures])
        for upload in (*uploads, *COMPRESSED)
    }


def masked(scene: Scene, *, clip_norm: float, sessions: int) -> dict[str, Any]:
    """Single masked frames of whole sessions, attacked as if they were updates; and the sum, which is not hidden.

    `auc` is the mean over sessions, each with fresh masks. `sum` has the words of all phones together.
    """
    rounds = _sessions(scene, clip_norm=clip_norm, sessions=sessions)
    found = [_masked_frames(one) for one in rounds]
    typed = [one.typed for one in scene.captures]
    read = [
        ids
        for frames in found
        for ids in (_read(frame, one) for frame, one in zip(frames, scene.captures, strict=True))
    ]
    aucs = [within_words(*_evidence(frames, scene.captures, centred=True))[0] for frames in found]
    return {
        "upload": scene.summed,
        "phones": len(scene.captures),
        "sessions": sessions,
        **asdict(Recovery.of(read, typed * sessions)),
        "auc": float(np.mean(aucs)),
        "aucs": aucs,
        "sum": _of_sum(scene, rounds[0].sum),
        "example": _example(scene, _read(found[0][0], scene.captures[0])),
    }


def noised(scene: Scene, mechanism: Mechanism) -> dict[str, Any]:
    """The sum as `mechanism` releases it: the words of all phones together, and of the example."""
    updates = np.array([one.delta for one in scene.captures])
    released = (mechanism.release(updates, round=0) * mechanism.denominator).astype(np.float32)
    read = _read(released, scene.captures[0])
    return {"phones": len(updates), **_of_sum(scene, released), "auc": None, "example": _example(scene, read)}


def counts_alone(scene: Scene) -> float:
    """The AUC of who typed a word from what stands beside a frame that is not masked: how many words it is from."""
    _, typed = _evidence([one.delta for one in scene.captures], scene.captures)
    tokens = np.array([one.beside["tokens"] for one in scene.captures])
    return within_words(np.repeat(tokens[:, None], typed.shape[1], 1), typed)[0]


def _sessions(scene: Scene, *, clip_norm: float, sessions: int) -> list[MaskedRound]:
    if len(scene.captures) < LEAST_PHONES:
        raise ConfigError(f"a masked round needs at least {LEAST_PHONES} phones, got {len(scene.captures)}")
    sent = summable(scene.captures, upload=scene.summed, clip_norm=clip_norm)
    return [masked_round(sent) for _ in range(sessions)]


def _masked_frames(one: MaskedRound) -> list[np.ndarray]:
    return [one.frame(phone) for phone in range(len(one.captures))]


def _frames(scene: Scene, captures: Sequence[Capture]) -> dict[str, Any]:
    read = [_read(one.delta, one) for one in captures]
    deltas = [one.delta for one in captures]
    return {
        **asdict(Recovery.of(read, [one.typed for one in captures])),
        "auc": within_words(*_evidence(deltas, captures))[0],
        "example": _example(scene, read[0]),
    }


def _of_sum(scene: Scene, total: np.ndarray) -> dict[str, float]:
    union = frozenset().union(*(one.typed for one in scene.captures))
    return asdict(Recovery.of([_read(total, scene.captures[0])], [union]))


def _sparse(one: Capture) -> bool:
    return any(isinstance(step, TopK) for step in upload_chain(one.assignment.upload, 1.0))


def _read(delta: np.ndarray, one: Capture) -> frozenset[int]:
    """Ids in the whole vocabulary of the words read from `delta` float32, at the coordinates of the capture's round."""
    at = one.assignment.coordinates
    return frozenset(at.words.rows[list(read_words(delta, at.model, sparse=_sparse(one)))].tolist())


def _evidence(
    deltas: Sequence[np.ndarray], captures: Sequence[Capture], *, centred: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """(evidence float64 (n, W), typed bool (n, W)) of the words whose rows the round reports.

    `centred` takes a phone's evidence from its own middle: how loud a masked frame is by chance would move all words.
    """
    at = captures[0].assignment.coordinates
    rows = at.words.rows[len(SPECIALS) :]
    found = np.array([evidence(delta, at.model, sparse=_sparse(captures[0])) for delta in deltas])
    found = found[:, len(SPECIALS) :]
    typed = np.zeros((len(captures), at.config.vocab), bool)
    for place, one in enumerate(captures):
        typed[place, list(one.typed)] = True
    return found - np.median(found, axis=1, keepdims=True) * centred, typed[:, rows]


def _example(scene: Scene, read: Collection[int]) -> dict[str, Any]:
    """What was read of the example: its words that were found, in their order, and some that nobody typed there."""
    known = typed_words(scene)
    own = {scene.vocabulary.id(word) for word in known}
    wrong = sorted(set(read) - own)
    return {
        "right": [word for word in known if scene.vocabulary.id(word) in read],
        "wrong": [scene.vocabulary.tokens[token] for token in wrong[:MOST_SHOWN]],
        "wrong_words": len(wrong),
    }


def typed_words(scene: Scene) -> list[str]:
    """The example's distinct words that the model knows, in the order in which they were typed."""
    words = dict.fromkeys(scene.vocabulary.split(scene.sentence))
    return [word for word in words if scene.vocabulary.id(word) != UNK]
