"""The command group: finds a command's module only when it is asked for, and turns errors into one line."""

import importlib
import sys
from typing import Any, NoReturn

import click

from kbdfl._version import __version__
from kbdfl.errors import KbdflError

# command -> (module, one line of help); the module's attribute of the same name is the click command
COMMANDS = {
    "demo": "The whole loop: phones type, the fleet learns, the keyboard predicts.",
    "simulate": "Run federated rounds in this process.",
    "serve": "Serve a federated task over HTTP, with its dashboard and keyboard.",
    "fleet": "Play phones against a server over HTTP.",
    "admin": "Make credentials and enrolment tokens; start, pause, stop, roll back.",
    "audit": "Attack a run as its server could, and say what was learnt.",
    "audit-log": "Check the record of what was done to a served task.",
    "backup": "Copy a server's folder, while it is served.",
    "restore": "Make a folder to serve of a backup.",
    "data": "Generate typing logs, import one's own, export or describe them.",
    "export": "Write a run's model as ONNX: float32, int8 and int4.",
    "evaluate": "Measure a bundle on typing logs.",
    "predict": "Suggest the next word.",
    "privacy": "What a promise of privacy costs, before a run is begun.",
    "experiment": "Compare ways to learn on the same text.",
    "interop": "The same phones inside Flower and NVIDIA FLARE.",
    "bench": "Measure training, codec, fleets, secure sums and the server.",
}


# What a group without a command raises, from click 8.2 on; before, it printed its help and ended.
_NO_ARGUMENTS: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())


class LazyGroup(click.Group):
    """Imports `kbdfl.cli.<command>` on first use, so that `kbdfl --help` does not load onnxruntime."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        return getattr(importlib.import_module(f"kbdfl.cli.{name}"), name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kbdfl")
def group() -> None:
    """Federated learning for a phone keyboard."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; bad input ends in one line on standard error and exit code 2."""
    try:
        group.main(args=arguments, prog_name="kbdfl", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except _NO_ARGUMENTS as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except click.ClickException as error:
        _refuse(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except (KbdflError, OSError) as error:  # OSError: a folder that cannot be written, a full disk
        _refuse(str(error))


def _refuse(reason: str) -> NoReturn:
    """End with one line, whatever line breaks a path, an address or a parser put into `reason`."""
    click.echo(f"kbdfl: {' '.join(reason.split())}", err=True)
    sys.exit(2)
