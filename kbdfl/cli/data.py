"""`kbdfl data`: write typing logs, import and export them, and describe them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from kbdfl.cli.common import Group, counted, json_option, progress, seed_option, show
from kbdfl.cli.own_data import export, import_

QUANTILES = {"p10": 0.1, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99, "max": 1.0}
TRAINING_CAP, HELD_OUT_CAP = 1000, 200  # a user's first messages that the trigram learns from, is asked about


@click.group(cls=Group)
def data() -> None:
    """Generate typing logs, import one's own, export them, or describe them."""


data.add_command(import_)
data.add_command(export)


@data.command()
@click.option("--source", type=click.Choice(["personas", "chat"]), default="personas", show_default=True)
@click.option(
    "--users", type=click.IntRange(1), help="The first so many users.  [default: personas 1000, chat all]"
)
@click.option(
    "--days", type=click.IntRange(1, 3660), help="Days of typing a user.  [default: personas 28, chat all]"
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A .jsonl or .jsonl.gz file.")
@click.option(
    "--keystrokes/--no-keystrokes", default=True, show_default=True, help="Simulate key presses too."
)
@seed_option
@json_option
def generate(
    source: str, users: int | None, days: int | None, out: Path, keystrokes: bool, seed: int, as_json: bool
) -> None:
    """Write per-user typing logs: one message a line, with time, app and key presses."""
    from kbdfl.device_sim.typing.records import write_messages
    from kbdfl.device_sim.typing.sources import open_source
    from kbdfl.errors import ConfigError

    if not out.name.endswith((".jsonl", ".jsonl.gz")):
        raise ConfigError(f"--out must end in .jsonl or .jsonl.gz, got {out}")
    if out.is_dir() or not out.parent.is_dir():
        raise ConfigError(f"--out must name a file in a folder that exists, got {out}")
    opened = open_source(source, seed=seed, users=users, days=days)
    names = opened.users()
    bar = progress(names, desc="typing", unit="user")
    messages = write_messages(
        out, (message for user in bar for message in opened.messages(user, keystrokes=keystrokes))
    )
    size = out.stat().st_size
    show(
        {
            "file": str(out),
            "source": source,
            "users": len(names),
            "messages": messages,
            "bytes": size,
            "seed": seed,
        },
        as_json=as_json,
        text=f"{counted(messages, 'message')} of {counted(len(names), 'user')} in {out} ({size:,} bytes)",
    )


@data.command()
@click.argument("source", metavar="FILE")
@click.option("--users", type=click.IntRange(1), help="Only the first so many users.")
@click.option(
    "--vocab", type=click.IntRange(5, 100_000), default=10_000, show_default=True, help="Public vocabulary."
)
@seed_option
@json_option
def stats(source: str, users: int | None, vocab: int, seed: int, as_json: bool) -> None:
    """Describe a typing log, or a source ("chat", "personas"): size, spread, and how predictable it is.

    Every fifth user (by hash) is held out; the trigram learns from the others' first 1,000 messages and is
    asked about the first 200 of each held-out user.
    """
    result = describe(source, users=users, vocab=vocab, seed=seed)
    show(result, as_json=as_json, text=_table(result))


def describe(source: str, *, users: int | None, vocab: int, seed: int) -> dict[str, Any]:
    """What `kbdfl data stats` prints; a figure that cannot be had is None, and a note says why."""
    from kbdfl.device_sim.typing.sources import is_held_out, open_source
    from kbdfl.ngram import own_unigram_bits_saved
    from kbdfl.text import public_vocabulary

    opened = open_source(source, seed=seed, users=users)
    vocabulary, _ = public_vocabulary(vocab)
    counts: Counter[str] = Counter()
    messages, tokens = [], []
    training: list[list[str]] = []
    held_out: list[list[str]] = []
    first_messages: dict[str, list[list[str]]] = {}
    spelling: dict[str, str] = {}  # one string object a distinct word: a log of millions of words stays small
    for user in progress(opened.users(), desc="reading", unit="user"):
        texts = []
        for message in opened.messages(user):
            words = [spelling.setdefault(word, word) for word in vocabulary.split(message.text)]
            counts.update(words)
            texts.append(words)
        messages.append(len(texts))
        tokens.append(sum(map(len, texts)))
        first_messages[user] = texts[:HELD_OUT_CAP]
        if is_held_out(user):
            held_out += texts[:HELD_OUT_CAP]
        else:
            training += texts[:TRAINING_CAP]
    known = set(vocabulary.tokens)
    total = sum(tokens)
    notes = []
    bits = own_unigram_bits_saved(first_messages)
    if not total:
        notes.append("no message holds a word: there is no out-of-vocabulary rate")
    if bits is None:
        notes.append("fewer than two users with ten messages: no own-unigram figure")
    top1, top3 = _trigram(training, held_out, vocab, notes)
    return {
        "source": source,
        "users": len(messages),
        "messages": sum(messages),
        "tokens": total,
        "messages_per_user": _quantiles(messages),
        "tokens_per_user": _quantiles(tokens),
        "vocabulary": vocab,
        "oov_rate": sum(n for word, n in counts.items() if word not in known) / total if total else None,
        "own_unigram_bits_saved": bits,
        "held_out_users": sum(is_held_out(user) for user in first_messages),
        "trigram_top1": top1,
        "trigram_top3": top3,
        "notes": notes,
    }


def _trigram(
    training: list[list[str]], held_out: list[list[str]], vocab: int, notes: list[str]
) -> tuple[float | None, float | None]:
    from kbdfl.ngram import Trigram

    for side, texts in (("training", training), ("held-out", held_out)):
        if not any(texts):
            notes.append(f"no {side} user has typed a word: no trigram recall")
            return None, None
    recall = Trigram.train(training, vocabulary=vocab).recall(held_out)
    return recall["top1"], recall["top3"]


def _quantiles(counts: Sequence[int]) -> dict[str, float]:
    import numpy as np

    values = np.quantile(np.array(counts), list(QUANTILES.values()))
    return {name: round(float(value), 1) for name, value in zip(QUANTILES, values, strict=True)}


def _table(result: dict[str, Any]) -> str:
    """The figures a line each, and the notes below."""
    lines = []
    for key, value in result.items():
        if key == "notes":
            continue
        if isinstance(value, dict):
            value = "  ".join(f"{name} {number:,.0f}" for name, number in value.items())
        elif value is None:
            value = "-"
        elif isinstance(value, float):
            value = f"{value:.4f}"
        elif isinstance(value, int):
            value = f"{value:,}"
        lines.append(f"{key:>22}  {value}")
    return "\n".join([*lines, *(f"{'note':>22}  {note}" for note in result["notes"])])
