"""`kbdfl bench fleet`: a country's check-ins on the virtual clock, and client updates a second of whole rounds."""

import os
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import click

from kbdfl.cli.bench.contestants import BATCH, LEARNING_RATE, client_update, tokens
from kbdfl.cli.common import given_options, json_option, progress, seed_option, show

if TYPE_CHECKING:
    from kbdfl.device_sim.store import TypingLog

_OF_ROUNDS = {"engine", "workers", "clients", "rounds", "candidates"}
# A round of the country: 100 reports of 130 phones, in ten minutes at most (Bonawitz et al. 2019 use some hundreds of
# phones and two or three minutes), and training that keeps the middle tier's phone busy for two minutes.
COHORT, DEADLINE_S, WORK_TOKENS = 100, 600.0, 240_000
PACE_S = 7_200.0  # a phone that is told to wait comes again after one to three hours


@click.command()
@click.option("--population", type=click.IntRange(100), default=1_000_000, show_default=True, help="Phones.")
@click.option(
    "--virtual-days", type=click.FloatRange(0.01), default=7.0, show_default=True, help="Simulated days."
)
@click.option("--no-train", "what", flag_value="no-train", default=True, help="Training has a stated cost.")
@click.option("--noop", "what", flag_value="noop", help="Rounds of clients that do nothing.")
@click.option("--train", "what", flag_value="train", help="Rounds of clients that train.")
@click.option(
    "--preset", help="Model: tiny, small, chat or gboard.  [default: tiny for --no-train, else small]"
)
@click.option("--engine", default="threads", show_default=True, help="threads, processes or ray.")
@click.option("--workers", type=click.IntRange(1), default=os.cpu_count(), show_default=True)
@click.option("--clients", type=click.IntRange(2), default=64, show_default=True, help="A round.")
@click.option(
    "--rounds", type=click.IntRange(2), default=6, show_default=True, help="The first is not counted."
)
@click.option("--candidates", type=int, default=0, show_default=True, help="Of a sampled softmax; 0 = exact.")
@click.option("--upload", default="int8", show_default=True, help="How reports are encoded.")
@seed_option
@json_option
def fleet(
    population: int,
    virtual_days: float,
    what: str,
    preset: str | None,
    seed: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Events a second of a simulated country, or client updates a second of whole rounds.

    --no-train plays every check-in of every phone, hour by hour, through the coordinator. --noop and --train run
    rounds on an engine; --train beside the bare kernel, interleaved.
    """
    _refuse_others(what)
    if what == "no-train":
        result = country(
            population, virtual_days, preset=preset or "tiny", seed=seed, upload=options["upload"]
        )
    else:
        result = rounds_of(what, preset=preset or "small", seed=seed, **options)
    show(result, as_json=as_json)


def _refuse_others(what: str) -> None:
    """Nothing that was asked for may be left undone in silence."""
    idle = _OF_ROUNDS if what == "no-train" else {"population", "virtual_days"}
    for name, option in given_options().items():
        if name in idle:
            raise click.UsageError(f"{option} must not come with --{what}, which does not look at it")


def country(population: int, days: float, *, preset: str, seed: int, upload: str) -> dict[str, Any]:
    """A week, or so, of check-ins and rounds of `population` phones whose training takes stated time."""
    from kbdfl.algorithms import Algorithm
    from kbdfl.device_sim.devices import DAY_S
    from kbdfl.device_sim.simulate import Simulation
    from kbdfl.device_sim.work import Stated
    from kbdfl.engines import InlineEngine
    from kbdfl.run import RunConfig, Settings, build_task
    from kbdfl.task import RoundRule

    settings = Settings(
        seed=seed,
        preset=preset,
        availability="weekly",
        speeds="tiers",
        hazard_per_h=0.5,
        rest_s=DAY_S,
        virtual_days=days,
    )
    most = int(days * DAY_S) + 1  # rounds: more than one a second, which never are
    rule = RoundRule(cohort=COHORT, deadline_s=DEADLINE_S, pace_s=PACE_S, rounds=most)
    config = RunConfig(settings, Algorithm(upload=upload), rule)
    simulation = Simulation(
        config,
        build_task(config),
        Phones(population),
        worker=Stated(WORK_TOKENS),
        held_out=None,
        engine=InlineEngine(),
    )
    rows: list[dict[str, Any]] = []
    started = time.perf_counter()
    with progress(total=round(days * 24), unit="h", desc="virtual") as bar:

        def on_round(row: dict[str, Any]) -> None:
            rows.append(row)
            bar.update(int(row["virtual_s"] / 3_600) - bar.n)

        simulation.rounds(on_round)
    wall_s = time.perf_counter() - started
    facts = simulation.facts()
    return {
        "bench": "fleet",
        "what": "no-train",
        "population": population,
        "virtual_days": days,
        "events": simulation.tally.events,
        "events_per_s": round(simulation.tally.events / wall_s),
        "wall_s": round(wall_s, 1),
        "peak_rss_bytes": peak_rss_bytes(),
        "rounds": len(rows),
        "committed": sum(row["status"] == "committed" for row in rows),
        "reports": sum(row["reports"] for row in rows),
        "phones_heard": population - facts["participation"][0],
    }


class Names:
    """The names of so many phones, none of which is kept."""

    def __getitem__(self, place: int) -> str:
        return f"phone-{place:07d}"


class Phones:
    """A population of which nothing is kept but how many they are."""

    def __init__(self, count: int) -> None:
        self.users, self._count = Names(), count

    def __len__(self) -> int:
        return self._count

    def log(self, user: str) -> "TypingLog":
        """Empty."""
        from kbdfl.device_sim.store import TypingLog

        return TypingLog()


def rounds_of(
    what: str,
    *,
    preset: str,
    seed: int,
    engine: str,
    workers: int,
    clients: int,
    rounds: int,
    candidates: int,
    upload: str,
) -> dict[str, Any]:
    """Rounds of `clients` clients, each with the work of `bench client`, or with none."""
    from kbdfl.algorithms import Algorithm, ClientRule, FedAvg
    from kbdfl.device_sim.simulate import Simulation
    from kbdfl.device_sim.work import Stated
    from kbdfl.engines import open_engine
    from kbdfl.run import RunConfig, Settings, build_task
    from kbdfl.task import RoundRule

    client = ClientRule(batch_size=BATCH, learning_rate=LEARNING_RATE, clip_norm=0.0, candidates=candidates)
    rule = RoundRule(cohort=clients, over_selection=1.0, rounds=rounds, deadline_s=1e6)
    config = RunConfig(
        Settings(seed=seed, preset=preset), Algorithm(client, upload=upload, server=FedAvg()), rule
    )
    built = build_task(config)
    worker = Stated(2_560) if what == "noop" else Same(built.task.config.vocab, seed)
    simulation = Simulation(
        config, built, Phones(clients), engine=open_engine(engine, workers), worker=worker, held_out=None
    )
    taken: list[float] = []
    bare: list[float] = []
    kernel = None if what == "noop" else _bare(preset, seed, candidates, workers)
    began = time.perf_counter()

    def on_round(_: dict[str, Any]) -> None:
        nonlocal began
        taken.append(time.perf_counter() - began)
        if kernel is not None:
            bare.append(kernel())
        began = time.perf_counter()

    simulation.rounds(on_round)
    rates = [clients / seconds for seconds in taken[1:]]
    result = {
        "bench": "fleet",
        "what": what,
        "preset": preset,
        "engine": engine,
        "workers": workers,
        "clients": clients,
        "rounds": len(rates),
        "clients_per_s": round(statistics.median(rates), 2),
        "slowest": round(min(rates), 2),
        "fastest": round(max(rates), 2),
        "peak_rss_bytes": peak_rss_bytes(),
    }
    if bare:
        kernels = statistics.median(bare[1:])
        result |= {
            "kernel_clients_per_s": round(kernels, 2),
            "share_of_kernel": round(
                statistics.median(a / b for a, b in zip(rates, bare[1:], strict=True)), 3
            ),
        }
    return result


class Same:
    """Phones that have all typed the text of `bench client`."""

    def __init__(self, vocab: int, seed: int) -> None:
        from kbdfl.text import EOS

        self._sentences = [[*message.tolist(), EOS] for batch in tokens(vocab, seed) for message in batch]

    def ready(self, phone: str) -> bool:
        return True

    def plan(self, phone: str, assignment: Any, budget: Any, *, most_tokens: int) -> Any:
        from kbdfl.device_sim.runtime import prepare
        from kbdfl.device_sim.work import Plan

        run = prepare(assignment, self._sentences, budget=budget)
        return Plan(run.part.batches.tokens, run)


def _bare(preset: str, seed: int, candidates: int, workers: int) -> Callable[[], float]:
    """A lap of the kernel alone on as many threads: client updates a second."""
    name = f"kbdfl_{candidates}" if candidates else "kbdfl"
    updates = [client_update(name, preset=preset, seed=seed) for _ in range(workers)]
    pool, laps = ThreadPoolExecutor(workers), 4

    def several(update: Callable[[], Any]) -> None:
        for _ in range(laps):
            update()

    def lap() -> float:
        started = time.perf_counter()
        list(pool.map(several, updates))
        return workers * laps / (time.perf_counter() - started)

    return lap


def peak_rss_bytes() -> int:
    """The most memory that this process has had, and the largest of its children that have ended."""
    kib = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return 1024 * kib
