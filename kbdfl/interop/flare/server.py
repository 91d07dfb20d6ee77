"""The server's side: FLARE's FedAvg with kbdfl's server rule, before it each one alone, after it everybody asked."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from kbdfl.device_sim.experiments.settings import POINTS
from kbdfl.errors import ConfigError, DataError
from kbdfl.interop.flare.silos import SITES, Beginning
from kbdfl.interop.flare.site import ALONE, JOINT, PART, WANTED
from kbdfl.interop.learner import flat, named
from kbdfl.params import save_checkpoint, write_atomically

try:
    from nvflare.app_common.abstract.fl_model import FLModel
    from nvflare.app_common.workflows.fedavg import FedAvg
except ImportError:
    raise ConfigError("a FLARE job needs NVIDIA FLARE: pip install 'kbdfl[flare]'") from None

CHECKED_S = 0.05  # between two looks whether everybody has answered
RESULTS = "results.json"


class Silos(FedAvg):  # type: ignore[misc]  # FLARE has no types for mypy
    """The whole experiment, in `folder`; it writes `RESULTS` and every model's checkpoint there."""

    def __init__(self, folder: str, num_clients: int, num_rounds: int) -> None:
        super().__init__(num_clients=num_clients, num_rounds=num_rounds, persistor_id="", task_name="train")
        self.folder = folder
        self._task_check_period = CHECKED_S

    def run(self) -> None:
        """Each one alone, the joint model at every rate, and what all users say of each."""
        self._beginning = Beginning.read(Path(self.folder))
        self._built = self._beginning.built(self._beginning.shared.joint_rates[0])
        self._spec = self._built.task.config.spec
        start = self._built.params
        models, chosen = {}, {}
        for reply in self._send("train", start, {WANTED: ALONE}):
            site = reply.meta["client_name"]
            models[f"{site} alone"], chosen[f"{site} alone"] = (
                flat(reply.params, self._spec),
                _measured(reply),
            )
        for rate in self._beginning.shared.joint_rates:
            params, found = self._joint(rate, start)
            if JOINT not in models or found > chosen[JOINT]["recall_top1"]:
                models[JOINT], chosen[JOINT] = params, {"rate": rate, "recall_top1": found}
        asked = {name: self._ask(params, "held_out") for name, params in models.items()}
        self._write(models, chosen, asked)

    def _joint(self, rate: float, start: np.ndarray) -> tuple[np.ndarray, float]:
        """The best of a few points on the way of the rounds at this rate, and recall@1 there of all organisations."""
        self._rule, self._params = self._beginning.built(rate).task.algorithm.server, start
        self._state = self._rule.init(start.size)
        self._best: tuple[np.ndarray, float] = (start, -1.0)
        self.model = FLModel(params=named(start, self._spec), meta={WANTED: JOINT})
        super().run()
        return self._best

    def update_model(self, model: FLModel, model_update: FLModel, replace_meta: bool = True) -> FLModel:
        """kbdfl's rule on the mean of what was learned; FLARE's own would add it."""
        delta = flat(model_update.params, self._spec)
        self._params, self._state = self._rule.apply(
            self._params, delta, self._state, round=self.current_round
        )
        model.params = named(self._params, self._spec)
        return model

    def save_model(self, model: FLModel) -> None:
        """After each fifth of the rounds: whether this is the best one so far, by validation words."""
        marks = {round(self.num_rounds * (i + 1) / POINTS) for i in range(POINTS)}
        if self.current_round + 1 in marks:
            asked = self._ask(self._params, "validation")
            found = float(np.mean([one["recall_top1"] for one in asked.values()]))
            if found > self._best[1]:
                self._best = (self._params, found)

    def _send(self, task: str, params: np.ndarray, meta: dict[str, Any]) -> list[FLModel]:
        """The answers of all organisations. Raises DataError when there are fewer."""
        model = FLModel(params=named(params, self._spec), meta=meta)
        replies = self.send_model_and_wait(task_name=task, data=model)
        if len(replies) != len(SITES):
            raise DataError(f"all {len(SITES)} organisations must answer, got {len(replies)}")
        return replies

    def _ask(self, params: np.ndarray, part: str) -> dict[str, dict[str, float]]:
        """recall_top1 and recall_top3 of a model by organisation."""
        replies = self._send("validate", params, {PART: part})
        return {reply.meta["client_name"]: _measured(reply) for reply in replies}

    def _write(
        self,
        models: dict[str, np.ndarray],
        chosen: dict[str, dict[str, float]],
        asked: dict[str, dict[str, dict[str, float]]],
    ) -> None:
        """The models' checkpoints, and what is known of them."""
        folder, task = Path(self.folder), self._built.task
        facts = {
            "config": task.config.dims,
            "preset": self._beginning.shared.preset,
            "vocabulary_sha256": task.vocabulary_sha256,
        }
        rows = {}
        for name in (JOINT, *(f"{site} alone" for site in SITES)):
            params = models[name]
            save_checkpoint(folder / f"{name.replace(' ', '-')}.safetensors", params, self._spec, facts)
            rows[name] = {
                "rate": chosen[name]["rate"],
                "validation_top1": chosen[name]["recall_top1"],
                "by_organisation": {site: asked[name][site]["recall_top1"] for site in SITES},
            }
            for measure in ("recall_top1", "recall_top3"):
                rows[name][measure] = float(np.mean([one[measure] for one in asked[name].values()]))
        document = {"models": rows, "figures": figures(rows)}
        write_atomically(folder / RESULTS, json.dumps(document, indent=1).encode())


def _measured(reply: FLModel) -> dict[str, float]:
    """What an organisation says of a model. Raises DataError where it says nothing."""
    if reply.metrics is None:
        raise DataError(f"{reply.meta['client_name']} must say how good the model is")
    return dict(reply.metrics)


def figures(rows: dict[str, Any]) -> dict[str, float]:
    """The numbers that answer the question, as `kbdfl experiment silos` defines them; recall@1 throughout."""
    joint, single = rows[JOINT], [rows[f"{site} alone"] for site in SITES]
    own = [one["by_organisation"][site] for site, one in zip(SITES, single, strict=True)]
    there = [joint["by_organisation"][site] for site in SITES]
    alone = [one["recall_top1"] for one in single]
    return {
        "joint": joint["recall_top1"],
        "best_single": max(alone),
        "mean_single": float(np.mean(alone)),
        "gain_over_best": joint["recall_top1"] / max(alone) - 1,
        "gain_over_mean": joint["recall_top1"] / float(np.mean(alone)) - 1,
        "gain_over_own": float(np.mean(there) / np.mean(own)) - 1,
        "organisations_that_gain": sum(a > b for a, b in zip(there, own, strict=True)),
    }
