"""`kbdfl bench secagg --http`: a round of secure aggregation between a real server and phones that train."""

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbdfl.cli.bench.server import cpu_s
from kbdfl.cli.fleet import play
from kbdfl.cli.server_process import server_process
from kbdfl.errors import ConfigError

if TYPE_CHECKING:
    from kbdfl.device_sim.secure import SecurePart
    from kbdfl.run import RunConfig

MESSAGES = 16  # of a phone: a batch, for the session is what is measured
DEADLINE_S = 3_600.0
FLOOR = 32  # of phones in a sum, unless there are fewer


def over_http(
    *, devices: int, gone: list[int], steps: tuple[str, ...], preset: str, phase_deadline_s: float, seed: int
) -> dict[str, Any]:
    """What a round of so many phones took, of whom those in `gone` fall silent, in turns before each of the `steps`.

    Raises ConfigError if so many may not.
    """
    from kbdfl.device_sim.agent import ServerClient, wait_for_vocabulary
    from kbdfl.device_sim.fleet import Fleet
    from kbdfl.device_sim.population import Population, open_logs
    from kbdfl.device_sim.secure import Caution
    from kbdfl.secagg import Floors

    config = _config(devices, len(gone), preset=preset, phase_deadline_s=phase_deadline_s, seed=seed)
    parts: list[SecurePart] = []
    silent = {phone: steps[number % len(steps)] for number, phone in enumerate(gone)}
    options = ("--port", "0", "--no-evaluate", "--export-every", "1000000")
    with (
        tempfile.TemporaryDirectory(prefix="kbdfl-bench-") as folder,
        server_process(config, Path(folder) / "server", *options) as served,
    ):
        client = ServerClient(served.url, connections=(os.cpu_count() or 1) + 4)
        wait_for_vocabulary(client)  # the export at its start is over
        users = Population(open_logs("personas", seed=seed, devices=devices), devices=devices)
        fleet = Fleet(
            client, users, workers=os.cpu_count() or 1, seed=seed, silent=silent.get,
            caution=Caution(Floors(devices=config.algorithm.secure.devices), required=True), on_part=parts.append,
        )  # fmt: skip
        before_s, started = cpu_s(served.pid), time.perf_counter()
        play(fleet, client)
        wall_s, server_s = time.perf_counter() - started, cpu_s(served.pid) - before_s
        return _result(client, config, silent) | {
            "mismatches": _mismatches(client, config, parts, Path(folder)),
            "device_s": round(fleet.session_s / devices, 4), "server_cpu_s": round(server_s, 2),
            "wall_s": round(wall_s, 1), "outcomes": dict(fleet.outcomes),
        }  # fmt: skip


def _config(devices: int, gone: int, *, preset: str, phase_deadline_s: float, seed: int) -> "RunConfig":
    """One round that invites so many phones, and is content with a quorum of them."""
    from kbdfl.algorithms import Algorithm, ClientRule
    from kbdfl.algorithms.secure import SecureAggregation
    from kbdfl.run import RunConfig, Settings
    from kbdfl.secagg.graph import CORRUPT, quorum_of
    from kbdfl.task import RoundRule

    cohort, enough = devices - gone, quorum_of(devices, CORRUPT)
    if cohort < enough:
        raise ConfigError(f"of {devices} phones at least {enough} must stay, got {cohort}")
    secure = SecureAggregation(True, devices=min(FLOOR, cohort), phase_deadline_s=phase_deadline_s)
    algorithm = Algorithm(
        client=ClientRule(max_messages=MESSAGES), upload="summable", update_clip_norm=1.0, weights="uniform",
        secure=secure,
    )  # fmt: skip
    rule = RoundRule(
        cohort=cohort, over_selection=devices / cohort, min_reports=enough, rounds=1, deadline_s=DEADLINE_S
    )
    return RunConfig(Settings(seed=seed, preset=preset, devices=devices), algorithm, rule)


def _result(client: Any, config: "RunConfig", silent: dict[int, str]) -> dict[str, Any]:
    """What the server says of its round."""
    from kbdfl.run import build_task
    from kbdfl.secure import payload_of

    row = client.get_json("/v1/metrics?since=0")["rounds"][0]
    task = build_task(config).task
    words = payload_of(task).words
    reports = max(row["reports"], 1)
    return {
        "status": row["status"], "survivors": row["reports"], "silent": len(silent), "words": words,
        "train_loss": row["train_loss"],
        "message_up_bytes": row["uplink_bytes"] // reports,
        "socket_up_bytes": row["socket_up_bytes"] // row["socket_devices"],
        "socket_down_bytes": row["socket_down_bytes"] // row["socket_devices"],
    }  # fmt: skip


def _mismatches(client: Any, config: "RunConfig", parts: "list[SecurePart]", folder: Path) -> int | None:
    """In how many parameters the server's model differs from that of the phones' own words, added up in the clear.

    None if it has no new model.
    """
    import numpy as np

    from kbdfl.assignment import Assignment
    from kbdfl.coordinator import Coordinator
    from kbdfl.params import load_checkpoint
    from kbdfl.rng import stream
    from kbdfl.rounds import MemoryStore
    from kbdfl.run import build_task
    from kbdfl.secure import SESSION, count_sum, payload_of

    file = folder / "served.safetensors"
    file.write_bytes(client.get("/v1/checkpoint"))
    params, _, facts = load_checkpoint(file)
    if facts["version"] == 0:
        return None
    built = build_task(config)
    offline = Coordinator(
        built.task, built.params, store=MemoryStore(), random=stream(config.settings.seed, "pace")
    )
    summed = {part.device: part for part in parts if part.summed}
    answers = [offline.check_in(device, 0.0) for device in summed]
    assignment = next(answer for answer in answers if isinstance(answer, Assignment))
    total = np.zeros(payload_of(built.task).words, np.int64)
    for part in summed.values():
        total += part.words
    sent = dict.fromkeys(summed, 0)
    count_sum(offline, total, sent, assignment=assignment, session=bytes(SESSION), now=1.0)
    return int((params != offline.params).sum())
