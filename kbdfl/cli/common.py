"""What every command shares: `--json`, `--seed`, one-line errors, progress bars."""

import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

import click
from click.core import ParameterSource
from tqdm import tqdm


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--json`: one JSON object on standard output and nothing else there."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")(
        command
    )


def given_options() -> dict[str, str]:
    """The options that the command in progress was given: the parameters' names, and how each is written."""
    context = click.get_current_context()
    return {
        parameter.name: parameter.opts[0]
        for parameter in context.command.params
        if parameter.name and context.get_parameter_source(parameter.name) == ParameterSource.COMMANDLINE
    }


def seed_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--seed`: everything random follows from it."""
    return click.option(
        "--seed", type=click.IntRange(0), default=1, show_default=True, help="Seed of all randomness."
    )(command)


def show(result: dict[str, Any], *, as_json: bool, text: str | None = None) -> None:
    """Print a command's result: as one JSON object, or as `text` (by default a line a key)."""
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(
            text if text is not None else "\n".join(f"{key:>20}  {value}" for key, value in result.items())
        )


def progress(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A progress bar on standard error, shown only when that is a terminal."""
    return tqdm(iterable, file=sys.stderr, disable=not sys.stderr.isatty(), dynamic_ncols=True, **options)
