"""`kbdfl restore`: a folder that can be served, made of a backup."""

from pathlib import Path

import click

from kbdfl.cli.backup import moment
from kbdfl.cli.common import json_option, show


@click.command()
@click.argument("backup", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
def restore(backup: Path, folder: Path, as_json: bool) -> None:
    """Make FOLDER, which must be new or empty, of a BACKUP, each file of which is verified.

    `kbdfl serve --folder FOLDER` goes on after the round that the backup ends with. An administrator's credentials are
    made anew, by `kbdfl admin`.
    """
    from kbdfl.server.backup import releases
    from kbdfl.server.backup import restore as restored

    manifest = restored(backup, folder)
    known = releases(folder)
    facts = {"folder": str(folder), "files": len(manifest.files), "bytes": manifest.size, "releases": known}
    facts |= manifest.facts
    text = f"{folder} is as it was {moment(manifest.facts)}; serve it with `kbdfl serve --folder {folder}`"
    if known:
        text += (
            f"\nits privacy ledger has {known} releases; if the server made any after this backup, what it says is too "
            "little, and the task must not go on"
        )
    show(facts, as_json=as_json, text=text)
