"""`kbdfl bench server`: a real server of its own process under real signed check-ins and reports."""

import os
import resource
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kbdfl.cli.bench.exchange import Exchange
from kbdfl.cli.bench.herd import herd
from kbdfl.cli.bench.load import Lane, Load, enrolled, percentile, trained_report
from kbdfl.cli.bench.slow import laps
from kbdfl.cli.common import given_options, json_option, seed_option, show
from kbdfl.cli.server_process import Served, server_process

if TYPE_CHECKING:
    from kbdfl.run import RunConfig

MOST_ROUNDS = 1_000_000  # more than any load fills
DEADLINE_S = 3_600.0  # these phones do not drop out, so rounds end by being full
_OF_LOAD = {"duration_s", "clients", "rate_reports", "rate_checkins", "devices", "slow_clients"}


@click.command()
@click.option(
    "--duration-s", type=click.FloatRange(0.1), default=60.0, show_default=True, help="Seconds of load."
)
@click.option(
    "--devices", type=click.IntRange(2), default=3_000, show_default=True, help="Phones that enrol."
)
@click.option("--cohort", type=click.IntRange(1), default=1_000, show_default=True, help="Reports a round.")
@click.option("--clients", type=click.IntRange(2), default=32, show_default=True, help="Connections.")
@click.option("--preset", default="tiny", show_default=True, help="Model: tiny, small, chat or gboard.")
@click.option(
    "--upload",
    default="float32",
    show_default=True,
    help="How reports are encoded; of tiny, float32 has frames of 39 KB.",
)
@click.option(
    "--rate-reports",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="A second; 0 = all it takes.",
)
@click.option(
    "--rate-checkins",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="A second; 0 = all it takes.",
)
@click.option("--threads", type=click.IntRange(1, 64), default=32, show_default=True, help="Of the server.")
@click.option(
    "--slow-clients",
    type=click.IntRange(1),
    help="Beside so many connections that send half a report, in turns with none of them.",
)
@click.option(
    "--herd",
    "size",
    type=click.IntRange(1),
    help="Instead: so many phones check in within one second, over a connection each.",
)
@seed_option
@json_option
def server(
    duration_s: float,
    devices: int,
    cohort: int,
    clients: int,
    preset: str,
    upload: str,
    rate_reports: float,
    rate_checkins: float,
    threads: int,
    slow_clients: int | None,
    size: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Durable reports and signed check-ins a second, over HTTP on this machine.

    The server is `kbdfl serve` in a temporary folder. Phones have keys of their own and report what one of them has
    trained, addressed anew each time. With a rate, latency is reckoned from when a request was due.
    """
    from kbdfl.algorithms import Algorithm
    from kbdfl.run import RunConfig, Settings
    from kbdfl.task import RoundRule

    if size is not None:
        for name, option in given_options().items():
            if name in _OF_LOAD:
                raise click.UsageError(f"{option} must not come with --herd, which does not look at it")
    elif cohort > devices:
        raise click.UsageError(f"--cohort must be at most --devices = {devices}, got {cohort}")
    rule = RoundRule(cohort=cohort, over_selection=1.0, rounds=MOST_ROUNDS, deadline_s=DEADLINE_S)
    config = RunConfig(Settings(seed=seed, preset=preset), Algorithm(upload=upload), rule)
    facts: dict[str, Any] = {
        "bench": "server",
        "preset": preset,
        "upload": upload,
        "cohort": cohort,
        "threads": threads,
        "load_average": round(os.getloadavg()[0], 2),
    }
    options = ("--port", "0", "--no-evaluate", "--export-every", str(MOST_ROUNDS), "--threads", str(threads))
    with (
        tempfile.TemporaryDirectory(prefix="kbdfl-bench-") as folder,
        server_process(config, Path(folder) / "server", *options) as served,
    ):
        if size is None:
            result = _load(
                served,
                config,
                devices=devices,
                duration_s=duration_s,
                clients=clients,
                rate_reports=rate_reports,
                rate_check_ins=rate_checkins,
                slow_clients=slow_clients,
            )
        else:
            result = _herd(served, size)
        result |= {"peak_rss_bytes": memory_bytes(served.pid, "VmHWM")}
    show(facts | result, as_json=as_json)


def _load(
    served: Served,
    config: "RunConfig",
    *,
    devices: int,
    duration_s: float,
    slow_clients: int | None,
    **more: Any,
) -> dict[str, Any]:
    from kbdfl.device_sim.agent import ServerClient, wait_for_vocabulary

    client = ServerClient(served.url)
    report = trained_report(config)
    signers = enrolled(served.url, devices)
    wait_for_vocabulary(client)  # the export at its start is over
    exchange = Exchange("127.0.0.1", served.port)
    load = Load(exchange, signers, report, **more)
    rss = memory_bytes(served.pid, "VmRSS")
    before_s, own_s = cpu_s(served.pid), time.process_time()
    slow: dict[str, Any] = {}
    try:
        if slow_clients is None:
            elapsed_s = load.run(duration_s)
        else:
            elapsed_s, slow = laps(load, served, clients=slow_clients, duration_s=duration_s)
    finally:
        exchange.close()
    served_s, own_s = cpu_s(served.pid) - before_s, time.process_time() - own_s
    totals = client.get_json("/v1/status")["totals"]
    return {
        "devices": devices,
        "clients": more["clients"],
        "frame_bytes": load.frame_bytes,
        "duration_s": round(elapsed_s, 2),
        **_rates("report", load.reports, elapsed_s),
        **_rates("checkin", load.check_ins, elapsed_s),
        "checkins_assigned": load.answers["assigned"],
        "checkins_told_to_wait": load.answers["wait"],
        "errors": load.errors.total(),
        "error_kinds": dict(load.errors),
        "rounds": totals["committed"],
        "rounds_abandoned": totals["abandoned"],
        "server_cpu_share": round(served_s / elapsed_s, 3),
        "generator_cpu_share": round(own_s / elapsed_s, 3),
        "rss_before_bytes": rss,
    } | slow


def _rates(name: str, lane: Lane, elapsed_s: float) -> dict[str, Any]:
    values = lane.latencies_s
    found = {share: percentile(values, share / 100) for share in (50, 99)}
    ms = {f"{name}_p{share}_ms": value and round(1_000 * value, 2) for share, value in found.items()}
    longest = round(1_000 * max(values), 2) if values else None
    return {f"{name}s_per_s": round(len(values) / elapsed_s, 1), **ms, f"{name}_longest_ms": longest}


def _herd(served: Served, size: int) -> dict[str, Any]:
    from kbdfl.device_sim.agent import ServerClient, wait_for_vocabulary
    from kbdfl.errors import ConfigError

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and size + 100 > most:
        raise ConfigError(
            f"--herd must be at most {most - 100}, the files that a process may open, got {size}"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    outsider, *signers = enrolled(served.url, size + 1)
    wait_for_vocabulary(ServerClient(served.url))
    exchange = Exchange("127.0.0.1", served.port)
    try:
        return {"herd": size, **herd(exchange, signers, outsider)}
    finally:
        exchange.close()


def memory_bytes(pid: int, name: str) -> int | None:
    """VmRSS or VmHWM of a process; None where the system has no /proc."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has had; 0 where the system has no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
