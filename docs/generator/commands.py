"""The pages of the commands: what `--help` says, of a command and of those below it."""

import html
import inspect
import re

import click

from kbdfl.cli.common import option_sections
from kbdfl.cli.main import COMMANDS, group

_MARKED = re.compile(r"([\\`*_\[\]|])")  # what Markdown would take for its own


def names() -> list[str]:
    """In the order of `kbdfl --help`."""
    return list(COMMANDS)


def list_page() -> str:
    """All of them, a line each."""
    rows = [f"| [`kbdfl {name}`]({name}.md) | {_plain(line)} |" for name, line in COMMANDS.items()]
    head = ["# Commands", "", "What `kbdfl COMMAND --help` prints stands on these pages.", ""]
    return "\n".join([*head, "| command | what it does |", "|---|---|", *rows]) + "\n"


def page(name: str) -> str:
    """One command."""
    command = group.get_command(click.Context(group), name)
    return "\n".join(_section(command, click.Context(command, info_name=f"kbdfl {name}"), "#")) + "\n"


def _section(command: click.Command, context: click.Context, heading: str) -> list[str]:
    """A heading, what the command does, how it is called, its options, and its own commands below."""
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    lines = [
        f"{heading} {context.command_path}",
        "",
        *_paragraphs(command.help or ""),
        "```text",
        usage,
        "```",
        "",
    ]
    for title, records in option_sections(command, context):
        rows = [f"| `{names}` | {_plain(said)} |" for names, said in records if said and names != "--help"]
        if rows:
            lines += [] if title == "Options" else [f"{heading}# {title}", ""]
            lines += ["| option | |", "|---|---|", *rows, ""]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            lines += _section(below, click.Context(below, info_name=name, parent=context), heading + "#")
    return lines


def _paragraphs(help: str) -> list[str]:
    """As click lays them out: a blank line ends one; after a line of \\b alone its lines stay as they are."""
    lines = []
    for paragraph in inspect.cleandoc(help).split("\n\n"):
        kept = paragraph.startswith("\b\n")
        lines += ["```text", paragraph[2:], "```", ""] if kept else [_plain(paragraph), ""]
    return lines


def _plain(text: str) -> str:
    return html.escape(_MARKED.sub(r"\\\1", text), quote=False)
