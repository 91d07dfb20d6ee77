"""What a framework's run leaves behind: a run folder as any other, for `kbdfl export`, `evaluate` and `predict`."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from kbdfl.device_sim.population import held_out_sentences, open_logs
from kbdfl.errors import ConfigError
from kbdfl.interop.learner import Plan
from kbdfl.metrics import evaluation_set, recall
from kbdfl.report import finish_run
from kbdfl.rounds import RoundResult, metrics_row
from kbdfl.run import RunFolder, build_task, checkpoint_facts


class Record:
    """A run folder at `path`, new, that is told of each round. Raises ConfigError when there is one already."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self._plan, self._config = plan, plan.config()
        self.built = build_task(self._config)
        settings = self._config.settings
        source = open_logs(settings.source, seed=settings.seed, devices=settings.devices)
        sentences = held_out_sentences(
            source, self.built.vocabulary, words=settings.evaluate_words, seed=settings.seed
        )
        self._held_out = evaluation_set(sentences)
        if not path.is_absolute():
            raise ConfigError(f"a run's folder must be an absolute path, got {path}")
        self.folder = RunFolder.create(path.parent, path.name, default="interop")
        self.folder.write_config(self._config.to_toml())
        self._version, self._started = 0, time.perf_counter()

    def measure(self, params: np.ndarray) -> dict[str, float]:
        """recall_top1 and recall_top3 on users who never train."""
        return recall(params, self.built.task.config, self._held_out)

    def round(
        self,
        params: np.ndarray,
        *,
        reports: int,
        dropped: int,
        examples: int,
        tokens: int,
        loss: float | None,
    ) -> dict[str, Any]:
        """Note the next round, after which the model is `params`; without `reports` it made no version.

        `loss` is the phones' mean, nats a token. Returns the line of metrics.jsonl.
        """
        number = len(self.folder.rows())
        last = number + 1 == self._plan.rounds
        self._version += reports > 0
        # Models travel as float32 arrays, down to every phone that is asked and up from every one that reports.
        result = RoundResult(
            round=number,
            status="committed" if reports else "abandoned",
            version=self._version,
            reports=reports,
            dropped=dropped,
            examples=examples,
            tokens=tokens,
            train_loss=loss,
            uplink_bytes=params.nbytes * reports,
            downlink_bytes=params.nbytes * (reports + dropped),
            started_s=0.0,
            ended_s=0.0,
        )
        due = reports and (last or self._version % self._plan.evaluate_every == 0)
        measured = self.measure(params) if due else {}
        row = metrics_row(result, measured, wall_s=time.perf_counter() - self._started)
        self.folder.add_row(row)
        return row

    def finish(self, params: np.ndarray) -> dict[str, Any]:
        """Write the checkpoint, the report and the bundle of the last model; what came of the run."""
        rounds = len(self.folder.rows())
        facts = checkpoint_facts(self._config, self.built, round=rounds - 1, version=self._version)
        self.folder.save(params, self.built, facts)
        return finish_run(self.folder, params, self.built, facts)
