"""`kbdfl predict`: a keyboard's suggestions on the command line."""

from pathlib import Path

import click

from kbdfl.cli.common import json_option, show


@click.command()
@click.argument("text")
@click.option("--model", type=click.Path(path_type=Path), required=True, help="Folder of an exported bundle.")
@click.option("-k", "count", type=click.IntRange(1), default=3, show_default=True, help="How many words.")
@click.option("--complete", is_flag=True, help="TEXT ends inside a word: suggest how that word goes on.")
@json_option
def predict(text: str, model: Path, count: int, complete: bool, as_json: bool) -> None:
    """Suggest the words that may follow TEXT."""
    from kbdfl.export.predictor import Predictor

    # Nobody types a closing space on a command line: the last word counts as committed unless told otherwise.
    suggestions = Predictor(model).suggest(text if complete else text + " ", k=count)
    listed = [{"word": s.word, "probability": s.probability} for s in suggestions]
    width = max((len(s.word) for s in suggestions), default=0)
    lines = [f"{s.word:<{width}}  {s.probability:.4f}" for s in suggestions] or ["no suggestion"]
    show({"text": text, "suggestions": listed}, as_json=as_json, text="\n".join(lines))
