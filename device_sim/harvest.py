"""Fetch what a finished run leaves behind from its server, into a run folder of one's own."""

import hashlib
import time
from typing import Any

from kbdfl.device_sim.agent import ServerClient
from kbdfl.errors import ModelError, ServerUnavailable
from kbdfl.params import load_checkpoint, write_atomically
from kbdfl.run import RunFolder


def wait_settled(client: ServerClient, *, timeout_s: float = 300.0) -> dict[str, Any]:
    """The server's status once all rounds are done, measured and exported. Raises ServerUnavailable."""
    deadline = time.monotonic() + timeout_s
    while True:
        status = client.get_json("/v1/status")
        if status["settled"]:
            return status
        if time.monotonic() > deadline:
            raise ServerUnavailable(
                f"{client.url} has not measured and exported its last round in {timeout_s:.0f} s"
            )
        time.sleep(0.2)


def new_rows(client: ServerClient, since: int) -> tuple[list[dict[str, Any]], int]:
    """Rounds that closed or were measured after `since`, and the `since` of the next question."""
    answer = client.get_json(f"/v1/metrics?since={since}")
    return answer["rounds"], answer["next"]


def harvest(client: ServerClient, folder: RunFolder) -> None:
    """Write config.toml, metrics.jsonl, the newest checkpoint, the tokenizer and the bundle into `folder`.

    Raises ModelError when a file of the bundle does not have the sha256 that its manifest gives.
    """
    wait_settled(client)
    folder.write_config(client.get("/v1/config").decode())
    rows, _ = new_rows(client, 0)
    for row in sorted(rows, key=lambda row: row["round"]):
        folder.add_row(row)
    manifest = client.get_json("/v1/models/latest/manifest.json")
    (folder.path / "model").mkdir()
    for name, facts in manifest["files"].items():
        content = client.get(f"/v1/models/latest/{name}")
        if hashlib.sha256(content).hexdigest() != facts["sha256"]:
            raise ModelError(f"{name} from {client.url} does not have the sha256 that the manifest gives")
        write_atomically(folder.path / "model" / name, content)
    write_atomically(folder.path / "model" / "manifest.json", client.get("/v1/models/latest/manifest.json"))
    write_atomically(folder.path / "tokenizer.json", (folder.path / "model" / "tokenizer.json").read_bytes())
    arriving = folder.checkpoints / "arriving.safetensors"
    write_atomically(arriving, client.get("/v1/checkpoint"))
    _, _, facts = load_checkpoint(arriving)
    arriving.rename(folder.checkpoints / f"{facts['version']:06d}.safetensors")
