"""What every command shares: `--json`, `--seed`, one-line errors, progress bars."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click
from click.core import ParameterSource
from tqdm import tqdm


class Sectioned(click.Command):
    """A command with many options: its help has a heading before each that `sections` names.

    `sections` has the parameters' names and the headings; options before the first are under "Options".
    """

    def __init__(self, *args: Any, sections: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, records in option_sections(self, ctx):
            with formatter.section(heading):
                formatter.write_dl(records)


def option_sections(
    command: click.Command, context: click.Context
) -> list[tuple[str, list[tuple[str, str]]]]:
    """The options of a command as its help shows them, (how it is written, what it says) each, below headings."""
    headings = command.sections if isinstance(command, Sectioned) else {}
    sections: list[tuple[str, list[tuple[str, str]]]] = [("Options", [])]
    for each in command.get_params(context):
        if each.name in headings:
            sections.append((headings[each.name], []))
        if isinstance(each, click.Option) and (record := each.get_help_record(context)):
            sections[-1][1].append(record)
    return [section for section in sections if section[1]]


class Group(click.Group):
    """Lists its commands with the whole first sentence of each, where click would cut it to one line."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.get_short_help_str(1_000)) for name, each in commands if each])


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
    """Print a command's result: as one JSON object, or as `text` (by default a line for each key that has a value)."""
    if as_json:
        click.echo(json.dumps(result))
        return
    if text is None:
        told = {key: _plain(value) for key, value in result.items() if value is not None}
        width = max(map(len, told), default=0)
        text = "\n".join(f"{key:>{width}}  {value}" for key, value in told.items())
    click.echo(text)


def _plain(value: Any) -> str:
    """As one reads it: a float to four places, or to four digits if it is small."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(each)}" for key, each in value.items() if each is not None)
    if isinstance(value, float):
        return f"{value:.4f}".rstrip("0").rstrip(".") if value == 0 or abs(value) >= 0.1 else f"{value:.4g}"
    return str(value)


def counted(number: int, what: str) -> str:
    """1 user, 2,000 users."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def progress(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A progress bar on standard error, shown only when that is a terminal."""
    return tqdm(iterable, file=sys.stderr, disable=not sys.stderr.isatty(), dynamic_ncols=True, **options)
