"""`kbdfl predict`: a keyboard's suggestions on the command line."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kbdfl.cli.common import json_option, show

if TYPE_CHECKING:
    from kbdfl.export.predictor import Suggestion


class _Unicode(click.types.StringParamType):
    """A string of whole characters: bytes that are no UTF-8 come as halves of surrogate pairs."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text: str = super().convert(value, param, ctx)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail("must be UTF-8", param, ctx)
        return text


@click.command()
@click.argument("text", type=_Unicode(), required=False)
@click.option("--model", type=click.Path(path_type=Path), required=True, help="Folder of an exported bundle.")
@click.option("-k", "count", type=click.IntRange(1), default=3, show_default=True, help="How many words.")
@click.option("--complete", is_flag=True, help="TEXT ends inside a word: suggest how that word goes on.")
@click.option(
    "--block",
    "blocked",
    type=_Unicode(),
    metavar="WORD",
    multiple=True,
    help="Never suggest WORD; may be repeated.",
)
@json_option
def predict(
    text: str | None, model: Path, count: int, complete: bool, blocked: tuple[str, ...], as_json: bool
) -> None:
    """Suggest the words that may follow TEXT.

    Without TEXT a terminal becomes the keyboard: type, and three suggestions follow under the line, the best
    in the middle. Lines on standard input are answered one by one.
    """
    from kbdfl.export.predictor import Predictor

    interactive = text is None and sys.stdin.isatty()
    if interactive and (as_json or not sys.stdout.isatty()):
        raise click.UsageError(
            "TEXT must be given, or lines on standard input, unless a terminal shows the strip"
        )
    predictor = Predictor(model, blocked=blocked)
    if interactive:
        from kbdfl.cli.prompt import type_messages

        return type_messages(predictor)

    def suggest(line: str) -> "list[Suggestion]":
        # Nobody types a closing space on a command line: the last word is committed unless told otherwise.
        return predictor.suggest(line if complete else line + " ", k=count)

    if text is not None:
        suggestions = suggest(text)
        width = max((len(s.word) for s in suggestions), default=0)
        rows = [f"{s.word:<{width}}  {_likelihood(s)}" for s in suggestions] or ["no suggestion"]
        return show(_listed(text, suggestions), as_json=as_json, text="\n".join(rows))
    lines = (line.decode("utf-8", "replace").rstrip("\r\n") for line in sys.stdin.buffer)
    if as_json:
        return show({"lines": [_listed(line, suggest(line)) for line in lines]}, as_json=True)
    for line in lines:
        click.echo("\t".join(s.word for s in suggest(line)))


def _likelihood(suggestion: "Suggestion") -> str:
    return f"{suggestion.probability:.4f}" if suggestion.probability else "as typed"


def _listed(text: str, suggestions: "list[Suggestion]") -> dict[str, Any]:
    return {
        "text": text,
        "suggestions": [{"word": s.word, "probability": s.probability} for s in suggestions],
    }
