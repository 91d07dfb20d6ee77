"""`kbdfl evaluate`: recall and perplexity of a bundle on typing logs."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from kbdfl.cli.common import json_option, progress, seed_option, show


@click.command()
@click.option("--model", type=click.Path(path_type=Path), required=True, help="Folder of an exported bundle.")
@click.option("--logs", required=True, help="A .jsonl or .jsonl.gz file, or chat, or personas.")
@click.option("--held-out", is_flag=True, help="Only users who are never trained on.")
@click.option("--users", type=click.IntRange(1), help="Only the first so many users of the logs.")
@click.option(
    "--max-messages", type=click.IntRange(1), default=200, show_default=True, help="First messages a user."
)
@click.option("--threads", type=click.IntRange(1, 64), default=2, show_default=True, help="Users at once.")
@seed_option
@json_option
def evaluate(
    model: Path,
    logs: str,
    held_out: bool,
    users: int | None,
    max_messages: int,
    threads: int,
    seed: int,
    as_json: bool,
) -> None:
    """Predict every word of the logs from the words before it.

    recall@k is the share of all target words that are among the first k suggestions; a word outside the
    vocabulary is a miss. Perplexity is over the words that the vocabulary knows.
    """
    from kbdfl.device_sim.typing.sources import is_held_out, open_source
    from kbdfl.errors import DataError
    from kbdfl.evaluation import evaluate_bundle
    from kbdfl.export.bundle import load_bundle

    bundle = load_bundle(model)
    source = open_source(logs, seed=seed, users=users)
    names: Sequence[str] = source.users()
    if held_out:
        names = [name for name in names if is_held_out(name)]
        if not names:
            raise DataError(
                f"none of the users of {source.name} is held out; without --held-out all are measured"
            )

    def messages() -> Iterator[tuple[str, list[str]]]:
        for name in progress(names, desc="evaluate", unit="user"):
            yield name, [message.text for message in source.messages(name)[:max_messages]]

    started = time.perf_counter()
    result = asdict(evaluate_bundle(bundle, messages(), threads=threads))
    result |= {"precision": bundle.precision, "logs": source.name, "seconds": time.perf_counter() - started}
    shown = {key: f"{value:.4f}" if isinstance(value, float) else value for key, value in result.items()}
    text = "\n".join(f"{key:>12}  {value}" for key, value in shown.items())
    show(result, as_json=as_json, text=text)
