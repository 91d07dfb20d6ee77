"""`kbdfl fleet`: phones against a server over HTTP."""

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kbdfl.cli.common import json_option, progress, seed_option, show

if TYPE_CHECKING:
    from kbdfl.device_sim.agent import ServerClient
    from kbdfl.device_sim.fleet import Fleet


@click.command()
@click.option("--server", "url", required=True, help="Address of a running `kbdfl serve`.")
@click.option("--devices", type=int, default=0, help="Phones to play; 0 = every training user of the source.")
@click.option(
    "--source", "--logs", default="personas", show_default=True, help="chat, personas or a JSONL typing log."
)
@click.option(
    "--dropout", type=float, default=0.0, show_default=True, help="Chance that a selected phone vanishes."
)
@click.option(
    "--workers", type=int, default=os.cpu_count(), show_default=True, help="Phones trained at once."
)
@click.option(
    "--tokens-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Enrolment tokens, one a line, as `kbdfl admin tokens` prints them.",
)
@click.option("--name", help="Name of the run folder.")
@click.option(
    "--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Where runs go."
)
@seed_option
@json_option
def fleet(
    url: str,
    devices: int,
    source: str,
    dropout: float,
    workers: int,
    tokens_file: Path | None,
    name: str | None,
    runs: Path,
    seed: int,
    as_json: bool,
) -> None:
    """Play phones over real HTTP until the server's task is finished, then fetch what the run leaves behind."""
    from kbdfl.device_sim.agent import ServerClient
    from kbdfl.device_sim.fleet import Fleet
    from kbdfl.device_sim.harvest import harvest
    from kbdfl.device_sim.population import Population, open_logs
    from kbdfl.errors import ConfigError
    from kbdfl.report import write_report
    from kbdfl.run import RunFolder

    if not 0 <= dropout < 1:
        raise ConfigError(f"dropout must lie in [0, 1), got {dropout}")
    if workers < 1:
        raise ConfigError(f"workers must be >= 1, got {workers}")
    if devices < 0:
        raise ConfigError(f"devices must be >= 0, got {devices}")
    tokens = tokens_file.read_text("utf-8", "replace").split() if tokens_file else ()
    client = ServerClient(url, connections=workers + 3)
    client.get("/healthz")
    population = Population(open_logs(source, seed=seed, devices=devices), devices=devices)
    phones = Fleet(client, population, workers=workers, seed=seed, dropout=dropout, tokens=tokens)
    folder = RunFolder.create(runs, name, default="fleet")
    play(phones, client)
    harvest(client, folder)
    show({"run": str(folder.path)} | fleet_facts(phones) | write_report(folder), as_json=as_json)


def fleet_facts(phones: "Fleet") -> dict[str, Any]:
    """What the phones did and moved, as they counted it."""
    return {
        "devices": len(phones.phones),
        "outcomes": dict(phones.outcomes),
        "uplink_bytes": phones.uplink_bytes,
        "downlink_bytes": phones.downlink_bytes,
    }


def play(phones: "Fleet", client: "ServerClient") -> float:
    """Enrol and run a fleet under a progress bar that shows rounds and recall; returns the seconds of training."""
    with progress(total=phones.size, unit="phone", desc="enrol") as bar:
        phones.enrol(on_phone=bar.update)
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(client, done), daemon=True)
    started = time.perf_counter()
    watcher.start()
    try:
        phones.run()
    finally:
        seconds = time.perf_counter() - started
        done.set()
        watcher.join()
    return seconds


def _watch(client: "ServerClient", done: threading.Event) -> None:
    """Move a bar by what the server says of its rounds."""
    from kbdfl.device_sim.harvest import new_rows, progress_of
    from kbdfl.errors import KbdflError

    since, recall, over = 0, "", False
    with progress(unit="round", desc="learn") as bar:
        while not over:  # and once more when it is, so that the bar ends where the rounds did
            over = done.wait(0.5)
            try:
                task = progress_of(client)
                rows, since = new_rows(client, since)
            except KbdflError:
                continue  # the phones meet the same error and say it
            bar.total, bar.n = task.rounds, task.round
            for row in rows:
                if row["recall_top1"] is not None:
                    recall = f"recall {row['recall_top1']:.1%} / {row['recall_top3']:.1%}"
            bar.set_postfix_str(recall, refresh=True)
