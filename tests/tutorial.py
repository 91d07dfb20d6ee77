"""The tutorial's commands, executed as they stand in docs/tutorial.md: `python tests/tutorial.py`, or `make tutorial`.

As a program it clones the repository, installs the clone as the page says, and goes through the page in an empty
folder.
`tests/docs/test_tutorial.py` does the same with the installation that the tests run on. The chat is made up here.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
CHAT = "WhatsApp Chat with Bob"  # as the page calls it
WORDS = "see you soon at the bridge when it rains again and bring a map for our walk to the harbour in good weather"

_BLOCK = re.compile(r"^(?P<once><!-- once -->\n)?```sh\n(?P<lines>.*?)^```", re.M | re.S)
_NAMED = re.compile(r"`((?:runs/[\w/.-]+|[\w-]+\.jsonl))`")


def commands(*, once: bool) -> list[str]:
    """The lines of the page's shell blocks; those that install only with `once`."""
    found = _BLOCK.finditer(PAGE.read_text("utf-8"))
    return [line for block in found if bool(block["once"]) == once for line in block["lines"].splitlines()]


def outputs() -> list[str]:
    """Files and folders that the page says are there afterwards."""
    return sorted(set(_NAMED.findall(PAGE.read_text("utf-8"))))


def made_up_chat(folder: Path) -> None:
    """A WhatsApp export of two people, whose messages are words in a made-up order."""
    lines, words = [], WORDS.split()
    for number in range(900):
        said = [words[(number * step + step) % len(words)] for step in range(1, 4 + number % 6)]
        day, minute = divmod(number * 37, 1440)
        when = f"{day % 28 + 1:02}/{3 + day // 28:02}/2024, {minute // 60:02}:{minute % 60:02}"
        lines.append(f"{when} - {('Ann Lee', 'Ann Lee', 'Bob')[number % 3]}: {' '.join(said)}\n")
    with zipfile.ZipFile(folder / f"{CHAT}.zip", "w") as archive:
        archive.writestr(f"{CHAT}.txt", "".join(lines))


def played(folder: Path, bin: Path) -> Iterator[tuple[str, int, str]]:
    """Run the page in `folder` with the programs of `bin`: each command, its exit code, and what was said meanwhile.

    One shell runs them all, as a reader's would, and goes on when the caller does. What is left in the background is
    ended with it.
    """
    lines = commands(once=False)
    resume, tell = os.pipe()
    script = "".join(f"{line}\necho ::$?\nread -r -u {resume}\n" for line in lines) + "wait\n"
    environment = os.environ | {"PATH": f"{bin}{os.pathsep}{os.environ['PATH']}"}
    shell = subprocess.Popen(
        ["bash", "-c", script], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True, pass_fds=[resume],
    )  # fmt: skip
    os.close(resume)
    said, left = [], list(lines)
    try:
        for line in shell.stdout:
            if not line.startswith("::"):
                said.append(line)
                continue
            yield left.pop(0), int(line[2:]), "".join(said)
            said.clear()
            os.write(tell, b"\n")
        shell.wait()
    finally:
        os.close(tell)
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGTERM)
            shell.wait()
        shell.stdout.close()
    if left:
        raise RuntimeError(f"the shell ended before {left[0]!r}: {''.join(said)}")


def main() -> None:
    """Clone, install, play; exit code 1 at the first command that fails or output that is not there."""
    with tempfile.TemporaryDirectory(prefix="kbdfl-tutorial-") as scratch:
        clone, folder = Path(scratch) / "kbdfl", Path(scratch) / "empty"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        install = " && ".join(commands(once=True))
        sys.stdout.write(f"{install}\n")
        sys.stdout.flush()
        subprocess.run(["bash", "-c", install], cwd=clone, check=True)
        folder.mkdir()
        made_up_chat(folder)
        for command, code, said in played(folder, clone / ".venv" / "bin"):
            sys.stdout.write(f"{command}\n")
            sys.stdout.flush()
            if code:
                raise SystemExit(f"{said}exit code {code}")
        missing = [name for name in outputs() if not (folder / name).exists()]
        if missing:
            raise SystemExit(f"not there: {', '.join(missing)}")
        sys.stdout.write("every command ended well, and everything that the page names is there\n")


if __name__ == "__main__":
    main()
