"""The newest model of a run folder, ready to export: its checkpoint, its vocabulary, what is known of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kbdfl.errors import ConfigError, DataError, ModelError
from kbdfl.export.bundle import write_bundle
from kbdfl.model import CifgConfig
from kbdfl.params import load_checkpoint
from kbdfl.run import RunFolder
from kbdfl.text import Vocabulary

FACTS = ("preset", "version", "vocabulary_source", "data", "privacy")


@dataclass(frozen=True, slots=True)
class RunModel:
    """Parameters float32 (P,) with their shape, vocabulary, and the facts for `write_bundle`."""

    checkpoint: Path
    params: np.ndarray = field(repr=False)
    config: CifgConfig
    vocabulary: Vocabulary = field(repr=False)
    facts: dict[str, Any]

    def write(self, folder: Path, *, precision: str) -> dict[str, Any]:
        """Its bundle in `folder`; returns the manifest. Raises as `write_bundle` does."""
        return write_bundle(
            folder,
            params=self.params,
            config=self.config,
            vocabulary=self.vocabulary,
            precision=precision,
            facts=self.facts,
        )


def read_run(folder: Path) -> RunModel:
    """The checkpoint with the highest number in `folder`/checkpoints, and the run's tokenizer.json.

    The facts name the recall that metrics.jsonl holds for it or, if it was not measured, for the newest version
    before it. Raises ModelError when there is no checkpoint, when it is damaged, or when the vocabulary is not
    its own.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelError(f"no run folder at {folder}")
    # A server keeps the state of its rule beside them, as VERSION.server.safetensors.
    checkpoints = [path for path in (folder / "checkpoints").glob("*.safetensors") if path.stem.isdecimal()]
    if not checkpoints:
        raise ModelError(f"{folder} has no checkpoints/*.safetensors")
    newest = max(checkpoints, key=lambda path: int(path.stem))
    params, spec, metadata = load_checkpoint(newest)
    try:
        config = CifgConfig(**{key: int(value) for key, value in metadata["config"].items()})
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError):
        raise ModelError(f"{newest} does not say the config (vocab, embed, hidden) of its model") from None
    if config.spec != spec:
        raise ModelError(f"{newest} says {config}, and its tensors are of other shapes")
    vocabulary = _vocabulary(folder, source=str(metadata.get("vocabulary_source", "unstated")))
    if len(vocabulary) != config.vocab:
        raise ModelError(
            f"{folder}/tokenizer.json must have the {config.vocab} tokens of the model, got {len(vocabulary)}"
        )
    if metadata.get("vocabulary_sha256", vocabulary.sha256) != vocabulary.sha256:
        raise ModelError(f"the vocabulary of {folder} is not the one that {newest.name} was trained with")
    run = RunFolder(folder)
    try:
        facts = bundle_facts(metadata, run.rows())
    except (ValueError, LookupError, TypeError):
        raise ModelError(
            f"{run.metrics} must hold a round's JSON object a line, got something else"
        ) from None
    return RunModel(newest, params, config, vocabulary, facts)


def bundle_facts(metadata: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The facts for `write_bundle` from a checkpoint's `metadata` and its run's `rows` (metrics.jsonl).

    `metadata` as in `kbdfl.run.checkpoint_facts`; of one without a `version` neither rounds nor recall are known.
    """
    facts = {key: metadata[key] for key in FACTS if key in metadata}
    if "version" in facts:
        # Every committed round makes a version, abandoned ones do not; a model that was trained further says how many.
        facts["rounds"] = metadata.get("rounds", facts["version"])
        facts["recall"] = measured_recall(rows, version=facts["version"])
    return facts


def measured_recall(rows: list[dict[str, Any]], *, version: int) -> dict[str, Any] | None:
    """top1, top3 and the version they were measured at: of `rows` (metrics.jsonl) the last one up to `version`."""
    for row in reversed(rows):
        if row["recall_top1"] is not None and row["version"] <= version:
            return {"top1": row["recall_top1"], "top3": row["recall_top3"], "version": row["version"]}
    return None


def _vocabulary(folder: Path, *, source: str) -> Vocabulary:
    for path in (folder / "tokenizer.json", folder / "model" / "tokenizer.json"):
        if path.is_file():
            try:
                return Vocabulary.load(path, source=source)
            except DataError as error:
                raise ModelError(str(error)) from None
    raise ModelError(f"{folder} has no tokenizer.json")
