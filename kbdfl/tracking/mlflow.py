"""MLflow: a run's settings, its figures by round, its config.toml and report.html.

Where MLFLOW_TRACKING_URI names no other store, that is `mlflow.db` beside the run's folder, an SQLite file, and the
files go to `mlflow-files/`. MLflow's messages to its makers are switched off unless MLFLOW_DISABLE_TELEMETRY says no.
"""

import hashlib
import logging
import os
import threading
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from kbdfl.errors import ConfigError
from kbdfl.tracking.rows import parameters, scalars, step_of

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a notebook has no widgets for MLflow's own bars
        import alembic  # noqa: F401  what MLflow makes its tables with
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param
except ImportError:
    raise ConfigError("MLflow's store needs mlflow and alembic: pip install 'kbdfl[mlflow]'") from None

EXPERIMENT = "kbdfl"
FILES = ("config.toml", "report.html")
_RUN = "kbdfl.run_sha256"  # of the folder's path and config.toml: how a run is found again
_BATCH = 100  # parameters that MLflow takes at a time
_OPENING = threading.Lock()  # MLflow makes its tables by way of what is one for the whole process


class MlFlow:
    """See `kbdfl.tracking.rows.Writer`. What stands there stays, whatever `done` says: MLflow takes nothing back."""

    def __init__(self, folder: Path, *, begins: bool, done: int | None) -> None:
        self._folder = folder
        logging.getLogger("mlflow.store.db.utils").setLevel(
            logging.WARNING
        )  # it tells of each table it makes
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what MLflow asks of SQLAlchemy is between the two
            self._client, experiment = _store(folder)
        digest = hashlib.sha256(
            f"{folder.resolve()}\n".encode() + (folder / "config.toml").read_bytes()
        ).hexdigest()
        known: list[Any] = []
        if not begins:
            known = self._client.search_runs([experiment], f"tags.`{_RUN}` = '{digest}'", max_results=1)
        self._last: dict[str, int] = {}  # step by figure, once it is asked for
        if known:
            self._id = known[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
        else:
            tags = {_RUN: digest, "kbdfl.folder": str(folder)}
            made = self._client.create_run(experiment, run_name=folder.name, tags=tags)
            self._id = made.info.run_id
        try:  # of a known run too, which may have been killed before it had them; the same again changes nothing
            settings = [Param(name, value) for name, value in parameters(folder).items()]
            for first in range(0, len(settings), _BATCH):
                self._client.log_batch(self._id, params=settings[first : first + _BATCH])
        except Exception:
            if not known:  # or each attempt would leave one
                with suppress(Exception):
                    self._client.delete_run(self._id)
            raise

    def add(self, row: Mapping[str, Any], *, at_s: float) -> None:
        step, at_ms = step_of(row), round(at_s * 1000)
        new = {name: value for name, value in scalars(row).items() if step > self._last_step(name)}
        if new:
            metrics = [Metric(name, value, at_ms, step) for name, value in new.items()]
            self._client.log_batch(self._id, metrics=metrics)
            self._last |= dict.fromkeys(new, step)

    def _last_step(self, name: str) -> int:
        if name not in self._last:
            before = self._client.get_metric_history(self._id, name)
            self._last[name] = max((metric.step for metric in before), default=0)
        return self._last[name]

    def close(self, *, finished: bool) -> None:
        for name in FILES:
            if (self._folder / name).is_file():
                self._client.log_artifact(self._id, str(self._folder / name))
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")


def _store(folder: Path) -> tuple[MlflowClient, str]:
    """A client of the store, and the id of our experiment there."""
    if "MLFLOW_TRACKING_URI" in os.environ:
        client = MlflowClient()
        return client, _experiment(client, None)
    runs = folder.resolve().parent
    with _OPENING:
        client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
        return client, _experiment(client, (runs / "mlflow-files").as_uri())


def _experiment(client: MlflowClient, files: str | None) -> str:
    known = client.get_experiment_by_name(EXPERIMENT)
    made: str = (
        client.create_experiment(EXPERIMENT, artifact_location=files)
        if known is None
        else known.experiment_id
    )
    return made
