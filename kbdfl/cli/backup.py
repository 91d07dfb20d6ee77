"""`kbdfl backup`: a copy of a server's folder, while it is served."""

from pathlib import Path
from typing import Any

import click

from kbdfl.cli.common import json_option, show


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("target", type=click.Path(path_type=Path))
@json_option
def backup(folder: Path, target: Path, as_json: bool) -> None:
    """Copy a server's FOLDER to TARGET, a new .tar.gz; it may be served meanwhile.

    The copy is as of the last closed round. Reports of the round that is open are not in it, nor are an administrator's
    credentials.
    """
    from kbdfl.server.backup import back_up

    manifest = back_up(folder, target)
    facts = {"backup": str(target), "files": len(manifest.files), "bytes": manifest.size} | manifest.facts
    text = f"{target} holds {folder} {moment(manifest.facts)}: {len(manifest.files)} files of {manifest.size:,} bytes"
    show(facts, as_json=as_json, text=text)


def moment(facts: dict[str, Any]) -> str:
    """When in the life of its tasks a backup was made."""
    tasks = facts.get("tasks", {"": facts})
    said = [
        ("before the first round", name) if each["round"] is None else (f"after round {each['round']}", name)
        for name, each in tasks.items()
    ]
    return ", ".join(f"{text} of {name}" if name else text for text, name in said)
