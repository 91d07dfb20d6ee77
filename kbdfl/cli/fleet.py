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
@click.option(
    "--population", help="Which phones these are: they work for its tasks. [the server's first task]"
)
@click.option(
    "--secure-floor", type=click.IntRange(3), default=32, show_default=True,
    help="Fewer phones in a sum, and a phone gives it nothing.",
)  # fmt: skip
@click.option(
    "--require-secure", is_flag=True, help="Phones take no part in tasks whose server could read an update."
)
@click.option(
    "--noise-floor", type=float, default=0.0,
    help="Phones take no part in tasks whose phones add less noise to their sum, in clip norms.  [default: 0]",
)  # fmt: skip
@click.option(
    "--phones", "memory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder in which phones remember their parts in tasks that promise privacy, and the sums that they joined, so "
    "that they keep to it another time too.  [the run's own: RUN/phones]",
)  # fmt: skip
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
    population: str | None,
    secure_floor: int,
    require_secure: bool,
    noise_floor: float,
    memory: Path | None,
    name: str | None,
    runs: Path,
    seed: int,
    as_json: bool,
) -> None:
    """Play phones over real HTTP until the server's task is finished, then fetch what the run leaves behind."""
    from kbdfl.device_sim.agent import ServerClient
    from kbdfl.device_sim.fleet import Fleet
    from kbdfl.device_sim.harvest import bases_of, harvest, sums_unseen
    from kbdfl.device_sim.population import Population, open_logs
    from kbdfl.device_sim.secure import Caution
    from kbdfl.device_sim.tasks import FIRST
    from kbdfl.errors import ConfigError
    from kbdfl.report import write_report
    from kbdfl.run import RunFolder
    from kbdfl.secagg import Floors

    if not 0 <= dropout < 1:
        raise ConfigError(f"dropout must lie in [0, 1), got {dropout}")
    if workers < 1:
        raise ConfigError(f"workers must be >= 1, got {workers}")
    if devices < 0:
        raise ConfigError(f"devices must be >= 0, got {devices}")
    tokens = tokens_file.read_text("utf-8", "replace").split() if tokens_file else ()
    client = ServerClient(url, connections=workers + 3)
    client.get("/healthz")
    bases = {"": FIRST} if population is None else bases_of(client, population)
    if require_secure and not any(sums_unseen(client, base=base) for base in bases.values()):
        raise ConfigError(
            f"--require-secure must come with a secure task at {url}: no task there sums updates unseen"
        )
    users = Population(open_logs(source, seed=seed, devices=devices), devices=devices)
    caution = Caution(Floors(devices=secure_floor), required=require_secure, noise=noise_floor)
    phones = Fleet(
        client, users, workers=workers, seed=seed, dropout=dropout, tokens=tokens, belong_to=population,
        caution=caution,
    )  # fmt: skip
    # Of several tasks each brings a run home.
    several = len(bases) > 1
    folders = {
        task: RunFolder.create(
            runs,
            f"{name}-{task}" if name and several else name,
            default=f"fleet-{task}" if several else "fleet",
        )
        for task in bases
    }
    phones.memory = memory or next(iter(folders.values())).path / "phones"
    play(phones, client, bases=tuple(bases.values()))
    brought = {}
    for task, folder in folders.items():
        harvest(client, folder, base=bases[task])
        brought[task] = {"run": str(folder.path)} | write_report(folder)
    facts = fleet_facts(phones)
    if not several:
        show({"run": None} | facts | brought.popitem()[1], as_json=as_json)
        return
    lines = [f"{task:<20} {run['run']}" for task, run in brought.items()]
    show(facts | {"tasks": brought}, as_json=as_json, text="\n".join(lines))


def fleet_facts(phones: "Fleet") -> dict[str, Any]:
    """What the phones did and moved, as they counted it."""
    return {
        "devices": len(phones.phones),
        "outcomes": dict(phones.outcomes),
        "uplink_bytes": phones.uplink_bytes,
        "downlink_bytes": phones.downlink_bytes,
    }


def play(phones: "Fleet", client: "ServerClient", *, bases: tuple[str, ...] = ("/v1",)) -> float:
    """Enrol and run a fleet under a progress bar that shows rounds and recall; returns the seconds of training."""
    with progress(total=phones.size, unit="phone", desc="enrol") as bar:
        phones.enrol(on_phone=bar.update)
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(client, done, bases), daemon=True)
    started = time.perf_counter()
    watcher.start()
    try:
        phones.run()
    finally:
        seconds = time.perf_counter() - started
        done.set()
        watcher.join()
    return seconds


def _watch(client: "ServerClient", done: threading.Event, bases: tuple[str, ...]) -> None:
    """Move a bar by what the server says of the rounds of all tasks."""
    from kbdfl.device_sim.harvest import new_rows, progress_of
    from kbdfl.errors import KbdflError

    since, recall, over = dict.fromkeys(bases, 0), dict.fromkeys(bases, ""), False
    with progress(unit="round", desc="learn") as bar:
        while not over:  # and once more when it is, so that the bar ends where the rounds did
            over = done.wait(0.5)
            try:
                tasks = [progress_of(client, base=base) for base in bases]
                for base in bases:
                    rows, since[base] = new_rows(client, since[base], base=base)
                    for row in rows:
                        if row["recall_top1"] is not None:
                            recall[base] = f"recall {row['recall_top1']:.1%} / {row['recall_top3']:.1%}"
            except KbdflError:
                continue  # the phones meet the same error and say it
            bar.total, bar.n = sum(task.rounds for task in tasks), sum(task.round for task in tasks)
            bar.set_postfix_str(", ".join(filter(None, recall.values())), refresh=True)
