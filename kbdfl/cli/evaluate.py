"""`kbdfl evaluate`: a bundle on typing logs, beside the counting baselines."""

import os
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kbdfl.cli.common import json_option, progress, seed_option, show

if TYPE_CHECKING:
    from kbdfl.device_sim.typing.sources import Source
    from kbdfl.text import Vocabulary

EVALUATED = 200  # first messages of a user, so that no one of many users is the measurement
COUNTED = 1000  # first messages of a training user that the baselines count
COLUMNS = {"recall_top1": "recall@1", "recall_top3": "recall@3", "mrr": "mrr", "ksr": "ksr", "kspc": "kspc"}


@click.command()
@click.option("--model", type=click.Path(path_type=Path), required=True, help="Folder of an exported bundle.")
@click.option("--logs", required=True, help="A .jsonl or .jsonl.gz file, or chat, or personas.")
@click.option("--held-out", is_flag=True, help="Only users who are never trained on.")
@click.option("--users", type=click.IntRange(1), help="Only the first so many users of the logs.")
@click.option(
    "--max-messages",
    type=click.IntRange(1),
    help=f"First messages a user.  [default: {EVALUATED}; all where the logs have one user]",
)
@click.option(
    "--baseline-logs",
    metavar="SOURCE",
    help="What the baselines are counted on: a source as for --logs, or none.  "
    "[default: the logs with --held-out, else chat]",
)
@click.option("--threads", type=click.IntRange(1, 64), default=2, show_default=True, help="Users at once.")
@seed_option
@json_option
def evaluate(
    model: Path,
    logs: str,
    held_out: bool,
    users: int | None,
    max_messages: int | None,
    baseline_logs: str | None,
    threads: int,
    seed: int,
    as_json: bool,
) -> None:
    """Predict every word of the logs from the words before it.

    recall@k is the share of all target words that are among the first k suggestions, mrr the mean reciprocal
    rank; a word outside the vocabulary is a miss. ksr is the keystroke saving rate of a user who takes a word
    as soon as one of three slots shows it. Perplexity is over the words that the vocabulary knows.

    Unigram and trigram answer the same questions from the model's vocabulary. They count training users: all
    that are neither held out nor measured.
    """
    from kbdfl.device_sim.typing.sources import is_held_out, open_source
    from kbdfl.errors import DataError
    from kbdfl.evaluation import evaluate_bundle, step_latency
    from kbdfl.export.bundle import load_bundle

    started = time.perf_counter()
    bundle = load_bundle(model)
    source = open_source(logs, seed=seed, users=users)
    names: Sequence[str] = source.users()
    if max_messages is None and len(names) > 1:
        max_messages = EVALUATED
    if held_out:
        names = [name for name in names if is_held_out(name)]
        if not names:
            raise DataError(
                f"none of the users of {source.name} is held out; without --held-out all are measured"
            )

    def messages(desc: str) -> Iterator[tuple[str, list[str]]]:
        for name in progress(names, desc=desc, unit="user"):
            yield name, [message.text for message in source.messages(name)[:max_messages]]

    latency = step_latency(bundle)  # before other threads are at work
    baselines, note = None, {}
    if baseline_logs != "none":
        spec = baseline_logs or (logs if held_out else "chat")
        same = os.path.realpath(spec) == os.path.realpath(logs)
        try:
            counted = source if same else open_source(spec, seed=seed)
            unseen = (text for _, texts in messages("baselines") for text in texts)
            baselines = {"logs": counted.name} | _baselines(
                _training(counted, bundle.vocabulary, but=names if same else ()), unseen, bundle.vocabulary
            )
        except DataError as error:
            if baseline_logs:
                raise
            note = {"note": f"no baselines: {error}; --baseline-logs names another source"}
    result = asdict(evaluate_bundle(bundle, messages("evaluate"), threads=threads)) | asdict(latency)
    result |= {"precision": bundle.precision, "logs": source.name, "baselines": baselines} | note
    result["seconds"] = time.perf_counter() - started
    show(result, as_json=as_json, text=_table(result))


def _training(source: "Source", vocabulary: "Vocabulary", *, but: Collection[str]) -> list[list[str]]:
    """The words of the source's training users, a list a message; of none of the users in `but`."""
    from kbdfl.device_sim.typing.sources import is_held_out
    from kbdfl.errors import DataError

    but = frozenset(but)
    users = [user for user in source.users() if user not in but and not is_held_out(user)]
    if not users:
        raise DataError(f"all users of {source.name} are measured or held out, so there is none to count")
    spelling: dict[str, str] = {}  # one string object a distinct word: a log of millions of words stays small
    return [
        [spelling.setdefault(word, word) for word in vocabulary.split(message.text)]
        for user in progress(users, desc="count", unit="user")
        for message in source.messages(user)[:COUNTED]
    ]


def _baselines(
    training: list[list[str]], unseen: Iterator[str], vocabulary: "Vocabulary"
) -> dict[str, dict[str, float]]:
    from kbdfl.evaluation import evaluate_baseline
    from kbdfl.ngram import Trigram, Unigram
    from kbdfl.text import SPECIALS

    words = vocabulary.tokens[len(SPECIALS) :]
    messages = [vocabulary.split(text) for text in unseen]
    return {
        kind.__name__.lower(): asdict(evaluate_baseline(kind.train(training, words=words), messages))
        for kind in (Trigram, Unigram)
    }


def _table(result: dict[str, Any]) -> str:
    """The model beside the baselines, then the other figures a line each."""
    rows = {f"model, {result['precision']}": result}
    baselines = dict(result["baselines"] or {})
    counted = baselines.pop("logs", None)
    rows |= {f"{name} of {counted}": scores for name, scores in baselines.items()}
    width = max(map(len, rows))
    lines = [" " * width + "".join(f"{title:>10}" for title in COLUMNS.values())]
    lines += [
        f"{name:<{width}}" + "".join(f"{scores[key]:>10.4f}" for key in COLUMNS)
        for name, scores in rows.items()
    ]
    rest = {key: value for key, value in result.items() if key not in (*COLUMNS, "baselines")}
    shown = {key: f"{value:.4f}" if isinstance(value, float) else value for key, value in rest.items()}
    return "\n".join([*lines, "", *(f"{key:>14}  {value}" for key, value in shown.items())])
