"""`kbdfl simulate --compare RUN RUN...`: runs that are there already, beside each other."""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click

from kbdfl.cli.common import given_options, show
from kbdfl.errors import ConfigError

_OWN = {"compare", "compared", "out", "runs", "as_json"}


def compare_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--compare`, `--out` and RUN... to a command that has `--runs` and `--json`.

    With the flag the runs are compared, and the command itself is not called. Stands above its other options.
    """

    @wraps(command)
    def either(compare: bool, compared: tuple[Path, ...], out: Path | None, **options: Any) -> None:
        if compare:
            _refuse_others(out)
            page = out or options["runs"] / "compare.html"
            compare_runs(compared, page, as_json=options["as_json"])
            return
        if compared:
            raise ConfigError(f"a RUN must come with --compare, got {str(compared[0])!r}"[:200])
        if out is not None:
            raise ConfigError("--out must come with --compare; where a run goes is said by --runs and --name")
        command(**options)

    for option in (
        click.option(
            "--out",
            type=click.Path(path_type=Path),
            help="The page that --compare writes.  [default: compare.html in --runs]",
        ),
        click.option("--compare", is_flag=True, help="Run nothing; overlay the runs in the folders RUN..."),
        click.argument("compared", metavar="[RUN]...", nargs=-1, type=click.Path(path_type=Path)),
    ):
        either = option(either)
    return either


def compare_runs(paths: Sequence[Path], page: Path, *, as_json: bool) -> None:
    """Write `page` and print the tables of the runs, or with `as_json` one object. Raises ConfigError, DataError."""
    from kbdfl.report.compare import (
        caution,
        differences,
        differences_table,
        facts_table,
        read_runs,
        write_comparison,
    )

    runs = read_runs(paths)
    if page.is_dir():
        raise ConfigError(f"--out must be a file, but {page} is a folder")
    page.parent.mkdir(parents=True, exist_ok=True)
    write_comparison(page, runs)
    unlike = differences_table(runs)
    rows = [["", *(run.name for run in runs)], *facts_table(runs)]
    lines = _aligned([*rows, ["settings that differ", *[""] * len(runs)], *unlike])
    if not unlike:
        lines[-1] = "no setting differs"
    show(
        {
            "page": str(page),
            "runs": [{"run": str(run.path)} | run.facts for run in runs],
            "differences": differences(runs),
        },
        as_json=as_json,
        text="\n".join([*lines, *filter(None, [caution(runs)]), f"page in {page}"]),
    )


def _refuse_others(out: Path | None) -> None:
    """Nothing that was asked for may be left undone in silence."""
    given = given_options()
    for name, option in given.items():
        if name not in _OWN:
            raise ConfigError(f"{option} must not come with --compare, which runs nothing")
    if out is not None and "runs" in given:
        raise ConfigError("--runs must not come with --compare and --out, which says where the page goes")


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns for a terminal: the first one's texts to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
