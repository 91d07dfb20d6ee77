"""A run: its complete configuration, the task built from it, and the folder it leaves behind."""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from kbdfl.algorithms import AGGREGATES, MODES, SELECTIONS, SERVER_RULES, Algorithm, ClientRule, Download
from kbdfl.algorithms.coordinates import smaller
from kbdfl.algorithms.secure import SecureAggregation
from kbdfl.config import from_table, read_toml, to_table, write_toml
from kbdfl.errors import ConfigError, DataError
from kbdfl.model import init_params, preset
from kbdfl.params import save_checkpoint, write_atomically
from kbdfl.privacy import Privacy, Shares
from kbdfl.secure import statement
from kbdfl.task import RoundRule, Task, payload_for
from kbdfl.text import Vocabulary, public_vocabulary, training_vocabulary

VOCABULARIES = ("public", "training-users")
SPEEDS = ("equal", "tiers", "heavy-tailed")
AVAILABILITIES = ("always", "nightly", "weekly")
FAULTS = ("none", "storm")
TRACES = (".csv", ".parquet")  # files of phones' hours instead


@dataclass(frozen=True, slots=True)
class Settings:
    """What is not the algorithm's.

    seed            everything random follows from it
    preset          of the model
    source          of the typing logs: chat, personas or a JSONL file
    devices         phones that take part; 0 = every training user of the source
    vocabulary      `public`: a public word list; `training-users`: counted on the phones' own logs
    dropout         the chance that a selected phone never reports
    speeds          of simulated phones: `equal`, by `tiers`, or `heavy-tailed` around their tier's
    availability    of simulated phones: `always`; `nightly`, while they charge, every day alike; `weekly`, by the day;
                    or the path of a trace. With the last two each check-in is an event
    rest_s          a phone that took part does not check in again for so many seconds
    hazard_per_h    how often an hour a phone at work is taken off its charger or loses its network
    virtual_days    a simulation stops after so many; 0 = when its rounds are over
    faults          of messages and the server: `none`, or a `storm`; such a run cannot be resumed
    evaluate_every  committed rounds between two measurements on held-out users
    evaluate_words  how many held-out words such a measurement looks at
    """

    seed: int = 1
    preset: str = "small"
    source: str = "personas"
    devices: int = 0
    vocabulary: str = "public"
    dropout: float = 0.0
    speeds: str = "equal"
    availability: str = "always"
    rest_s: float = 0.0
    hazard_per_h: float = 0.0
    virtual_days: float = 0.0
    faults: str = "none"
    evaluate_every: int = 10
    evaluate_words: int = 20_000

    def __post_init__(self) -> None:
        preset(self.preset)
        for name in ("seed", "devices"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be >= 0, got {getattr(self, name)}")
        named = {
            "vocabulary": VOCABULARIES,
            "speeds": SPEEDS,
            "availability": AVAILABILITIES,
            "faults": FAULTS,
        }
        if self.availability.endswith(TRACES):
            del named["availability"]
        for name, values in named.items():
            if getattr(self, name) not in values:
                raise ConfigError(f"{name} must be one of {', '.join(values)}, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must lie in [0, 1), got {self.dropout}")
        for name in ("rest_s", "hazard_per_h", "virtual_days"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")
        for name in ("evaluate_every", "evaluate_words"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be >= 1, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Upload:
    """The part of `Algorithm` that says how an update travels and weighs."""

    codec: str = "int8"
    update_clip_norm: float = 0.0
    weights: str = "examples"
    max_weight: int = 200


def _named(kinds: dict[str, type], piece: Any) -> dict[str, Any]:
    """A frozen piece as a table that says by `rule` which of `kinds` it is."""
    names = {kind: name for name, kind in kinds.items()}
    return {"rule": names[type(piece)]} | to_table(piece)


def _piece(kinds: dict[str, type], table: Any, *, where: str, default: str) -> Any:
    """The inverse of `_named`. Raises ConfigError."""
    if not isinstance(table, dict):
        raise ConfigError(f"{where} must be a table, got {table!r}"[:200])
    rule = table.get("rule", default)
    if not isinstance(rule, str) or rule not in kinds:
        raise ConfigError(f"{where}.rule must be one of {', '.join(kinds)}, got {rule!r}"[:200])
    fields = {name: value for name, value in table.items() if name != "rule"}
    return from_table(kinds[rule], fields, where=where)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything that decides how a run ends; `config.toml` holds exactly this."""

    settings: Settings = field(default_factory=Settings)
    algorithm: Algorithm = field(default_factory=Algorithm)
    rule: RoundRule = field(default_factory=RoundRule)

    def __post_init__(self) -> None:
        # A budget becomes the noise that it needs, so that config.toml says how much that was.
        noised = self.algorithm.privacy.with_noise(
            rounds=self.rule.rounds, cohort=self.rule.cohort, shares=self._shares()
        )
        object.__setattr__(self, "algorithm", replace(self.algorithm, privacy=noised))

    def _shares(self) -> Shares | None:
        """How phones share the noise that they add, if they do."""
        if not self.algorithm.privacy.on_devices:
            return None
        size = smaller(preset(self.settings.preset), self.algorithm.client.report_words).spec.size
        if self.settings.vocabulary != "public":
            size = max(1, size // 16)  # few words may be counted; a little more noise is then needed
        return payload_for(self.algorithm, self.rule, size=size).shares

    def to_toml(self) -> str:
        algorithm = self.algorithm
        upload = Upload(algorithm.upload, algorithm.update_clip_norm, algorithm.weights, algorithm.max_weight)
        return write_toml(
            {
                "run": to_table(self.settings),
                "client": to_table(algorithm.client),
                "upload": to_table(upload),
                "download": to_table(algorithm.download),
                "aggregate": _named(AGGREGATES, algorithm.aggregate),
                "server": _named(SERVER_RULES, algorithm.server),
                "mode": _named(MODES, algorithm.mode),
                "selection": _named(SELECTIONS, algorithm.selection),
                "privacy": to_table(algorithm.privacy),
                "secure": to_table(algorithm.secure),
                "round": to_table(self.rule),
            }
        )

    @classmethod
    def from_document(cls, document: dict[str, Any], *, where: str) -> "RunConfig":
        """The inverse of `to_toml`. Raises ConfigError."""
        tables = {
            "run",
            "client",
            "upload",
            "download",
            "aggregate",
            "server",
            "mode",
            "selection",
            "privacy",
            "secure",
            "round",
        }
        unknown = sorted(document.keys() - tables)
        if unknown:
            raise ConfigError(f"{where} has an unknown table {unknown[0]!r:.80}")
        upload = from_table(Upload, document.get("upload", {}), where="upload")
        return cls(
            settings=from_table(Settings, document.get("run", {}), where="run"),
            algorithm=Algorithm(
                client=from_table(ClientRule, document.get("client", {}), where="client"),
                upload=upload.codec,
                update_clip_norm=upload.update_clip_norm,
                weights=upload.weights,
                max_weight=upload.max_weight,
                download=from_table(Download, document.get("download", {}), where="download"),
                aggregate=_piece(
                    AGGREGATES, document.get("aggregate", {}), where="aggregate", default="mean"
                ),
                server=_piece(SERVER_RULES, document.get("server", {}), where="server", default="fedadam"),
                mode=_piece(MODES, document.get("mode", {}), where="mode", default="synchronous"),
                selection=_piece(
                    SELECTIONS, document.get("selection", {}), where="selection", default="uniform"
                ),
                privacy=from_table(Privacy, document.get("privacy", {}), where="privacy"),
                secure=from_table(SecureAggregation, document.get("secure", {}), where="secure"),
            ),
            rule=from_table(RoundRule, document.get("round", {}), where="round"),
        )

    @classmethod
    def load(cls, path: Path) -> "RunConfig":
        """Read a config.toml; its table `serve` is a server's own (`kbdfl serve`). Raises ConfigError."""
        document = read_toml(path)
        document.pop("serve", None)
        return cls.from_document(document, where=str(path))


@dataclass(frozen=True, slots=True)
class Built:
    """A task ready to coordinate: its initial parameters float32 (P,) and its vocabulary."""

    task: Task
    params: np.ndarray
    vocabulary: Vocabulary


def build_task(config: RunConfig, *, training_texts: Iterable[str] = (), name: str = "next-word") -> Built:
    """The task that `config` describes.

    `training_texts` are the phones' messages; they are looked at only if the vocabulary is to be counted on them.
    """
    size = preset(config.settings.preset).vocab
    if config.settings.vocabulary == "public":
        vocabulary, frequencies = public_vocabulary(size)
    else:
        vocabulary, frequencies = training_vocabulary(training_texts, size)
    return build_with(vocabulary, frequencies, config, name=name)


def build_with(
    vocabulary: Vocabulary, frequencies: np.ndarray, config: RunConfig, *, name: str = "next-word"
) -> Built:
    """The task that `config` describes, with this vocabulary, whose words have these frequencies float64 (V - 4,)."""
    settings = config.settings
    shape = replace(preset(settings.preset), vocab=len(vocabulary))
    task = Task(
        name=name,
        config=shape,
        algorithm=config.algorithm,
        rule=config.rule,
        vocabulary_sha256=vocabulary.sha256,
        seed=settings.seed,
    )
    return Built(task, init_params(shape, seed=settings.seed, word_frequencies=frequencies), vocabulary)


def checkpoint_facts(config: RunConfig, built: Built, *, round: int, version: int) -> dict[str, Any]:
    """The metadata of a checkpoint: enough to export it without the rest of the run."""
    return {
        "config": built.task.config.dims,
        "preset": config.settings.preset,
        "round": round,
        "version": version,
        "vocabulary_sha256": built.vocabulary.sha256,
        "vocabulary_source": built.vocabulary.source,
        "data": f"typing logs of the source {Path(config.settings.source).name}",
    } | ({"privacy": statement(built.task)} if config.algorithm.secure.on else {})


class RunFolder:
    """`runs/NAME/`: config.toml, metrics.jsonl, checkpoints/, tokenizer.json; report and bundle come at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics: Path = path / "metrics.jsonl"
        self.checkpoints: Path = path / "checkpoints"

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """The folder of a run that was begun. Raises ConfigError where there is none."""
        if not (path / "config.toml").is_file():
            raise ConfigError(f"there is no run at {path}")
        return cls(path)

    @classmethod
    def create(cls, base: Path, name: str | None, *, default: str) -> "RunFolder":
        """A new folder below `base`. Raises ConfigError when the name is taken or unfit."""
        if name is None:
            name = stem = f"{default}-{datetime.now():%Y%m%d-%H%M%S}"
            count = 1
            while (base / name).exists():
                count += 1
                name = f"{stem}-{count}"
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise ConfigError(
                f"a run's name must be letters, digits, dot, dash or underscore, got {name!r}"[:200]
            )
        folder = cls(base / name)
        try:
            base.mkdir(parents=True, exist_ok=True)
            folder.path.mkdir()
        except FileExistsError as error:
            if Path(error.filename) != folder.path:
                raise ConfigError(f"runs go to a folder, but {error.filename} is a file") from None
            raise ConfigError(f"there is a run at {folder.path} already; choose another --name") from None
        except OSError as error:
            raise ConfigError(f"no run folder can be made at {folder.path}: {error.strerror}") from None
        folder.checkpoints.mkdir()
        return folder

    def write_config(self, toml: str) -> None:
        write_atomically(self.path / "config.toml", toml.encode())

    def add_row(self, row: dict[str, Any]) -> None:
        """Append a closed round to metrics.jsonl."""
        with open(self.metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    @property
    def begun(self) -> bool:
        """Whether a round has closed."""
        return self.metrics.exists() and self.metrics.stat().st_size > 0

    def sync_rows(self) -> None:
        """Wait until all rows so far are on the disk."""
        if self.metrics.exists():
            with open(self.metrics, "rb") as file:
                os.fsync(file.fileno())

    def write_fleet(self, facts: dict[str, Any]) -> None:
        """Write fleet.json, what became of a simulation's phones."""
        write_atomically(self.path / "fleet.json", json.dumps(facts).encode())

    def keep_rows(self, count: int) -> None:
        """Drop all rows but the first `count`, and what was left of a row that was not written to its end."""
        lines = self.metrics.read_bytes().splitlines(keepends=True) if self.metrics.exists() else []
        if len(lines) < count:
            raise DataError(f"{self.metrics} must hold {count} rounds, got {len(lines)}")
        write_atomically(self.metrics, b"".join(lines[:count]))

    def rows(self, *, growing: bool = False) -> list[dict[str, Any]]:
        """All closed rounds so far; of a run that is `growing`, a last line without its end is none yet."""
        if not self.metrics.exists():
            return []
        lines = self.metrics.read_text("utf-8").splitlines(keepends=True)
        if growing and lines and not lines[-1].endswith("\n"):
            del lines[-1]
        return [json.loads(line) for line in lines]

    def save(self, params: np.ndarray, built: Built, facts: dict[str, Any]) -> Path:
        """Write checkpoints/<version>.safetensors and tokenizer.json."""
        path = self.checkpoints / f"{facts['version']:06d}.safetensors"
        save_checkpoint(path, params, built.task.config.spec, facts)
        built.vocabulary.save(self.path / "tokenizer.json")
        return path
