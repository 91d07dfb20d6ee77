"""`make types`: mypy, strict, and pyright over the whole package.

The four folders install as `kbdfl` and three packages below it, by an import hook that type checkers do not follow; so
they are shown a copy, laid out as the installed package is (pyright does not walk into links). The settings stand in
pyproject.toml.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from wheel import FOLDERS  # a script's own folder is searched

ROOT = Path(__file__).parents[1]
TREE = ROOT / "build" / "types"


def lay() -> None:
    """A copy of all sources of the four folders where they are installed, with the times of their last changes."""
    shutil.rmtree(TREE, ignore_errors=True)
    for folder, place in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py*"):
            if path.suffix in (".py", ".pyi") and "node_modules" not in path.parts:
                target = TREE / place / path.relative_to(ROOT / folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)
    shutil.copy2(ROOT / "kbdfl" / "py.typed", TREE / "kbdfl")


def main() -> int:
    """Both checkers, one after the other; 1 if either finds something."""
    lay()
    settings = ["--config-file", str(ROOT / "pyproject.toml")]
    cache = ["--cache-dir", str(ROOT / "build" / "mypy")]
    checks = (
        [sys.executable, "-m", "mypy", *settings, *cache, "-p", "kbdfl"],
        [
            sys.executable,
            "-m",
            "pyright",
            "--project",
            str(ROOT / "pyproject.toml"),
            "--pythonpath",
            sys.executable,
        ],
    )
    codes = [subprocess.run(check, cwd=TREE).returncode for check in checks]
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
