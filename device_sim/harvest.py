"""Fetch what a finished run leaves behind from its server, into a run folder of one's own.

A server is believed no further than its answers can be checked: fields that others build on are looked at here,
and no name that it gives becomes a path.
"""

import time
import tomllib
from dataclasses import dataclass
from typing import Any

from kbdfl.device_sim.agent import ServerClient
from kbdfl.device_sim.tasks import FIRST, check_base
from kbdfl.errors import ConfigError, ModelError, ServerUnavailable
from kbdfl.export.bundle import FILES, MANIFEST, load_bundle
from kbdfl.params import load_checkpoint, write_atomically
from kbdfl.run import RunConfig, RunFolder

NUMBER = (int, float)
SOME_NUMBER = (int, float, type(None))
ROW = {
    "round": int,
    "status": str,
    "version": int,
    "reports": int,
    "dropped": int,
    "tokens": int,
    "train_loss": SOME_NUMBER,
    "recall_top1": SOME_NUMBER,
    "recall_top3": SOME_NUMBER,
    "uplink_bytes": int,
    "downlink_bytes": int,
    "wall_s": NUMBER,
}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a served task is."""

    round: int
    rounds: int
    settled: bool


def bases_of(client: ServerClient, population: str) -> dict[str, str]:
    """The tasks for a population, by name, and where the addresses of each begin.

    Raises ConfigError if there is none, ServerUnavailable for an answer that is not a server's of ours.
    """
    path = f"{FIRST}/tasks"
    kinds = {"name": str, "population": str, "base": str}
    listed = [
        _fields(each, kinds, path) for each in _fields(client.get_json(path), {"tasks": list}, path)["tasks"]
    ]
    found = {each["name"]: check_base(each["base"]) for each in listed if each["population"] == population}
    if not found:
        known = ", ".join(sorted({each["population"] for each in listed}))
        raise ConfigError(
            f"population must be one that {client.url} serves ({known}), got {population}"[:300]
        )
    return found


def progress_of(client: ServerClient, *, base: str = FIRST) -> Progress:
    """What the status says of a task's rounds. Raises ServerUnavailable."""
    path = f"{base}/status"
    status = _fields(client.get_json(path), {"round": int, "rounds": int, "settled": bool}, path)
    return Progress(status["round"], status["rounds"], status["settled"])


def sums_unseen(client: ServerClient, *, base: str = FIRST) -> bool:
    """Whether the server says that it sums the task's updates unseen; phones do not rely on that."""
    path = f"{base}/config"
    try:
        return bool(tomllib.loads(client.get(path).decode()).get("secure", {}).get("on"))
    except (ValueError, AttributeError):
        raise ServerUnavailable(f"the answer to {path} is not TOML; is this a kbdfl server?") from None


def wait_settled(client: ServerClient, *, base: str = FIRST, timeout_s: float = 300.0) -> None:
    """Return once all rounds are done, measured and exported. Raises ServerUnavailable."""
    deadline = time.monotonic() + timeout_s
    while not progress_of(client, base=base).settled:
        if time.monotonic() > deadline:
            raise ServerUnavailable(
                f"{client.url} has not measured and exported its last round in {timeout_s:.0f} s"
            )
        time.sleep(0.2)


def new_rows(client: ServerClient, since: int, *, base: str = FIRST) -> tuple[list[dict[str, Any]], int]:
    """Rounds that closed or were measured after `since`, and the `since` of the next question."""
    path = f"{base}/metrics?since={since}"
    answer = _fields(client.get_json(path), {"rounds": list, "next": int}, path)
    return [_fields(row, ROW, path) for row in answer["rounds"]], answer["next"]


def harvest(client: ServerClient, folder: RunFolder, *, base: str = FIRST) -> None:
    """Write config.toml, metrics.jsonl, the newest checkpoint, the tokenizer and the bundle into `folder`.

    Raises ModelError for a bundle or a checkpoint that is not whole, ConfigError for a configuration that could
    not run again, ServerUnavailable for any other answer that is not a server's of ours.
    """
    wait_settled(client, base=base)
    write_atomically(folder.path / "config.toml", client.get(f"{base}/config"))
    RunConfig.load(folder.path / "config.toml")
    rows, _ = new_rows(client, 0, base=base)
    for row in sorted(rows, key=lambda row: row["round"]):
        folder.add_row(row)
    bundle = folder.path / "model"
    bundle.mkdir()
    for name in (*FILES, MANIFEST):
        write_atomically(bundle / name, client.get(f"{base}/models/latest/{name}"))
    vocabulary = load_bundle(bundle).vocabulary
    arriving = folder.checkpoints / "arriving.part"
    write_atomically(arriving, client.get(f"{base}/checkpoint"))
    try:
        _, _, facts = load_checkpoint(arriving)
        version = facts.get("version")
        if not isinstance(version, int) or not 0 <= version < 10**9:
            raise ModelError(f"the checkpoint of {client.url} must say its version, got {version!r}"[:200])
        arriving.rename(folder.checkpoints / f"{version:06d}.safetensors")
    finally:
        arriving.unlink(missing_ok=True)
    vocabulary.save(folder.path / "tokenizer.json")


def _fields(document: Any, wanted: dict[str, Any], path: str) -> dict[str, Any]:
    """`document`, an object that has at least the fields `wanted` with values of these types."""
    for name, kinds in wanted.items():
        value = document.get(name) if isinstance(document, dict) and name in document else _Nothing
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            raise ServerUnavailable(f"the answer to {path} has no fitting {name}; is this a kbdfl server?")
    return document


class _Nothing:
    """Of no type that a field could have."""
