"""What a power cut leaves of a folder: of each file the bytes that were flushed, under the names that were.

forgetful.c is loaded into a server and notes on a platter, another folder, whatever is flushed. After a cut the folder
is made anew from the platter.
"""

import os
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("forgetful.c")


class Platter:
    """The platter of `folder`, in `home`. Needs a C compiler."""

    def __init__(self, folder: Path, home: Path) -> None:
        self._folder, self._home = folder, home
        self._library = home / "forgetful.so"
        home.mkdir(parents=True)
        compiler = os.environ.get("CC", "cc")
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(SOURCE), "-ldl"], check=True
        )
        self._note()

    @property
    def environment(self) -> dict[str, str]:
        """In which a server's flushes reach the platter."""
        return {
            "LD_PRELOAD": str(self._library),
            "KBDFL_FOLDER": str(self._folder),
            "KBDFL_PLATTER": str(self._home),
        }

    def cut(self) -> None:
        """The power fails: what was not flushed is gone. No server may be running."""
        kept: dict[Path, bytes] = {}
        for names in (self._home / "names").iterdir():
            if names.suffix == ".part":
                continue
            folder = self._folder / names.name[1:].replace("+", "/")
            for line in names.read_text().splitlines():
                inode, name = line.split(" ", 1)
                content = self._home / "bytes" / inode
                kept[folder / name] = content.read_bytes() if content.exists() else b""
        shutil.rmtree(self._folder)
        self._folder.mkdir()
        for path, content in kept.items():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        self._note()

    def _note(self) -> None:
        """All that is in the folder now is on the platter."""
        for part in ("names", "bytes"):
            shutil.rmtree(self._home / part, ignore_errors=True)
            (self._home / part).mkdir()
        self._folder.mkdir(parents=True, exist_ok=True)
        for folder in (self._folder, *(path for path in self._folder.iterdir() if path.is_dir())):
            relative = "" if folder == self._folder else folder.relative_to(self._folder).as_posix()
            files = [path for path in folder.iterdir() if path.is_file()]
            lines = "".join(f"{path.stat().st_ino} {path.name}\n" for path in files)
            (self._home / "names" / ("+" + relative.replace("/", "+"))).write_text(lines)
            for path in files:
                shutil.copyfile(path, self._home / "bytes" / str(path.stat().st_ino))
