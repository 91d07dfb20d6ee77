"""`kbdfl demo`: the whole loop on the embedded defaults, over real HTTP, ending in a keyboard to try."""

import os
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kbdfl.cli.common import json_option, progress, show
from kbdfl.cli.server_process import server_process

if TYPE_CHECKING:
    from kbdfl.run import RunConfig

QUICK_USERS = 100  # held-out users that the quick demo measures on: some 70,000 words


@click.command()
@click.option("--quick", is_flag=True, help="A one-minute version on generated personas.")
@click.option("--no-serve", is_flag=True, help="End after the table instead of serving the keyboard.")
@click.option("--rounds", type=click.IntRange(1), help="Federated rounds.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of the server; 0 = a free one.")
@click.option(
    "--workers", type=click.IntRange(1), default=os.cpu_count(), show_default=True, help="Phones at once."
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Seed of all randomness.")
@click.option("--name", help="Name of the run folder.")
@click.option(
    "--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Where runs go."
)
@json_option
def demo(
    quick: bool,
    no_serve: bool,
    rounds: int | None,
    port: int,
    workers: int,
    seed: int,
    name: str | None,
    runs: Path,
    as_json: bool,
) -> None:
    """Phones type, the fleet learns over HTTP, the keyboard predicts.

    A Flask server runs on a loopback port; every training user of the corpus is a phone that checks in, downloads
    the model, trains on its own log and reports int8 deltas. Then the model is exported, checked and measured on
    users who never trained.
    """
    from kbdfl.cli.fleet import fleet_facts, play
    from kbdfl.device_sim.agent import ServerClient
    from kbdfl.device_sim.fleet import Fleet
    from kbdfl.device_sim.harvest import harvest
    from kbdfl.device_sim.population import Population, open_logs
    from kbdfl.report import write_report
    from kbdfl.run import RunFolder

    # A terminated demo ends as an interrupted one does, so that its server does not outlive it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.perf_counter()
    config = _config(quick, rounds, seed)
    settings = config.settings
    say = _teller(as_json)
    source = open_logs(settings.source, seed=seed, devices=settings.devices)
    population = Population(source, devices=settings.devices)
    folder = RunFolder.create(runs, name, default="demo-quick" if quick else "demo")
    if not quick:
        say("Real chat text of the chitchat-dataset package; one user in five is held out and never trains.")
    say(
        f"{len(population):,} phones, model {settings.preset}, {config.rule.rounds:,} rounds of {config.rule.cohort}. "
        "FedAdam on the server; the output bias starts from public word frequencies."
    )
    options = ("--port", str(port), "--export-every", "200")
    with server_process(config, folder.path / "server", *options) as served:
        url = served.url
        say(f"dashboard  {url}/\nkeyboard   {url}/keyboard")
        client = ServerClient(url, connections=workers + 3)
        phones = Fleet(client, population, workers=workers, seed=seed)
        train_s = play(phones, client)
        harvest(client, folder)
        summary = write_report(folder)
        measured = _measure(folder, source, population, users=QUICK_USERS if quick else None)
        facts = fleet_facts(phones)
        result = {
            "run": str(folder.path),
            "devices": facts["devices"],
            "reports": summary["reports"],
            "rounds": summary["committed"],
            **measured,
            "uplink_bytes_per_report": summary["uplink_bytes_per_report"],
            "downlink_bytes_per_report": summary["downlink_bytes_per_report"],
            "float32_bytes_per_report": 4 * measured["parameters"],
            "train_s": round(train_s, 1),
            "total_s": round(time.perf_counter() - started, 1),
            "url": url,
        }
        show(result, as_json=as_json, text=_table(result))
        if not no_serve:
            say(f"\nTry the keyboard: {url}/keyboard   (the dashboard is {url}/; Ctrl-C ends)")
            with suppress(KeyboardInterrupt):  # the way to end it, not an interruption
                signal.pause()


def _config(quick: bool, rounds: int | None, seed: int) -> "RunConfig":
    """The demo's own run: the settings that learn fastest on two cores."""
    from kbdfl.algorithms import Algorithm, ClientRule, FedAdam
    from kbdfl.run import RunConfig, Settings
    from kbdfl.task import RoundRule

    rounds = rounds or (120 if quick else 1_700)
    settings = Settings(seed=seed, preset="chat", source="chat", evaluate_every=50, evaluate_words=8_000)
    if quick:
        settings = replace(settings, preset="small", source="personas", devices=1_000, evaluate_words=5_000)
    return RunConfig(
        settings,
        Algorithm(
            client=ClientRule(candidates=1_000),
            server=FedAdam(learning_rate=0.03 if quick else 0.01, decay_rounds=rounds),
        ),
        # These phones do not drop out, so nobody is selected in vain.
        RoundRule(rounds=rounds, cohort=8, over_selection=1.0, min_reports=4, deadline_s=60, pace_s=0.5),
    )


def _teller(as_json: bool) -> Any:
    return lambda text: click.echo(text, err=as_json)


def _measure(folder: Any, source: Any, population: Any, *, users: int | None) -> dict[str, Any]:
    """The server's bundle and those of the other precisions, and trigrams, on the words of held-out users.

    `users` bounds how many of these are looked at. Figures of the float32 bundle have plain names, those of
    the others begin with their precision.
    """
    from kbdfl.device_sim.population import HELD_OUT_MESSAGES, held_out_users
    from kbdfl.evaluation import agreement, evaluate_baseline, evaluate_bundle
    from kbdfl.export.bundle import load_bundle
    from kbdfl.export.precision import PRECISIONS
    from kbdfl.export.run import read_run
    from kbdfl.ngram import Trigram
    from kbdfl.text import SPECIALS

    model = read_run(folder.path)
    bundles = {"": load_bundle(folder.path / "model")}
    for precision in PRECISIONS[1:]:
        place = folder.path / f"model-{precision}"
        model.write(place, precision=precision)
        bundles[f"{precision}_"] = load_bundle(place)
    held_out = [
        (user, [message.text for message in source.messages(user)[:HELD_OUT_MESSAGES]])
        for user in held_out_users(source, at_most=users)
    ]
    figures: dict[str, Any] = {}
    evaluations = {}
    for prefix, bundle in bundles.items():
        bar = progress(held_out, unit="user", desc=f"measure {bundle.precision}")
        scores = evaluations[prefix] = evaluate_bundle(bundle, bar, threads=2)
        figures |= {f"{prefix}{key}": getattr(scores, key) for key in ("recall_top1", "recall_top3", "ksr")}
        figures[f"{prefix}model_bytes"] = len(bundle.model)
    split = model.vocabulary.split
    typed = [split(text) for text in population.texts()]
    unseen = [split(text) for _, texts in held_out for text in texts]
    trigrams = {
        "trigram": Trigram.train(typed, words=model.vocabulary.tokens[len(SPECIALS) :]),
        # The same with words counted on the phones' logs, which the model's public list never saw.
        "trigram_own_words": Trigram.train(typed),
    }
    for name, trigram in trigrams.items():
        baseline = evaluate_baseline(trigram, unseen)
        figures[f"{name}_top1"], figures[f"{name}_top3"] = baseline.recall_top1, baseline.recall_top3
        figures[f"{name}_ksr"] = baseline.ksr
    sentences = model.vocabulary.encode_many(text for _, texts in held_out[:50] for text in texts[:5])
    return figures | {
        "perplexity": evaluations[""].perplexity,
        "oov_rate": evaluations[""].oov_rate,
        "held_out_words": evaluations[""].tokens,
        "held_out_users": evaluations[""].users,
        "parameters": model.config.spec.size,
        "onnx_max_abs_diff": agreement(bundles[""], model.params, model.config, sentences),
    }


def _table(r: dict[str, Any]) -> str:
    rows = {
        "federated, float32 ONNX": ("recall_top1", "recall_top3", "ksr"),
        "federated, int8 ONNX": ("int8_recall_top1", "int8_recall_top3", "int8_ksr"),
        "federated, int4 ONNX": ("int4_recall_top1", "int4_recall_top3", "int4_ksr"),
        "back-off trigram": ("trigram_top1", "trigram_top3", "trigram_ksr"),
        "  with the users' own words": (
            "trigram_own_words_top1",
            "trigram_own_words_top3",
            "trigram_own_words_ksr",
        ),
    }
    lines = ["", f"On {r['held_out_words']:,} words of {r['held_out_users']} users who never trained:"]
    lines.append(f"  {'':<28}{'recall@1':>10}{'recall@3':>10}{'keys saved':>12}")
    for name, (one, three, saved) in rows.items():
        lines.append(f"  {name:<28}{r[one]:>10.2%}{r[three]:>10.2%}{r[saved]:>12.2%}")
    facts = [
        ("phones", f"{r['devices']:,} enrolled, {r['reports']:,} reports in {r['rounds']:,} rounds"),
        (
            "uplink",
            f"{r['uplink_bytes_per_report']:,} bytes a report (float32 {r['float32_bytes_per_report']:,})",
        ),
        ("downlink", f"{r['downlink_bytes_per_report']:,} bytes a report"),
        (
            "model",
            f"{r['model_bytes']:,} bytes float32, {r['int8_model_bytes']:,} int8, {r['int4_model_bytes']:,} int4",
        ),
        ("ONNX against the trained", f"{r['onnx_max_abs_diff']:.1e} largest difference of a logit"),
        ("seconds", f"{r['train_s']} training, {r['total_s']} in all"),
        ("run folder", r["run"]),
    ]
    return "\n".join([*lines, "", *(f"  {name:<28}{value}" for name, value in facts)])
