"""The pages, and what is fenced in them."""

import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELLS = {"sh", "bash", "console"}
# A block without a language that begins with one of these is a shell's; others are pictures in letters, or formulas.
PROGRAMS = {
    "kbdfl", "make", "pip", "pipx", "python", "python3", "npm", "npx", "apt", "apt-get", "docker", "systemctl", "curl",
    "git", "flwr", "nvflare", "mlflow", "tensorboard", "ray", "pytest", "mkdocs",
}  # fmt: skip

_FENCE = re.compile(
    r"^(?P<run><!-- run -->\n)?(?P<mark>```+)(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^(?P=mark)$",
    re.M | re.S,
)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_SET = re.compile(r"[A-Z_][A-Z0-9_]*=")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; `run`: a comment before it says that it can be run as it stands."""

    page: str
    line: int
    language: str
    text: str
    run: bool


@dataclass(frozen=True, slots=True)
class Command:
    """A line that a reader would type: what stands in the page, and its words without variables, comments and `&`."""

    page: str
    line: int
    text: str

    @property
    def words(self) -> list[str]:
        """As a shell splits them."""
        try:
            words = shlex.split(self.text, comments=True)
        except ValueError as error:
            raise ValueError(f"{self.page}:{self.line} is no command: {error}") from None
        while words and _SET.match(words[0]):
            words.pop(0)
        return words[:-1] if words[-1:] == ["&"] else words

    def __str__(self) -> str:
        return f"{self.page}:{self.line} {self.text.split(' #')[0].strip()}"


def blocks(page: Path) -> list[Block]:
    """Of one page, in order."""
    text = page.read_text("utf-8")
    return [
        Block(
            page.name,
            text[: found.start()].count("\n") + 1,
            found["language"],
            found["text"],
            bool(found["run"]),
        )
        for found in _FENCE.finditer(text)
    ]


def commands(block: Block) -> list[Command]:
    """The lines of a shell's block; without a language, a block that begins with a program's name is one."""
    found, lines = [], block.text.replace("\\\n", " ").splitlines()
    if block.language not in SHELLS and (block.language or not lines or _first(lines[0]) not in PROGRAMS):
        return []
    for number, line in enumerate(lines, block.line + 1):
        if block.language == "console":
            if not line.startswith("$ "):
                continue  # what the command printed
            line = line[2:]
        if line.strip() and not line.lstrip().startswith("#"):
            found.append(Command(block.page, number, line))
    return found


def _first(line: str) -> str:
    """The first word that is no variable's value; a picture's line may be nothing that a shell could split."""
    return next((word for word in line.split() if not _SET.match(word)), "")


@cache
def all_commands() -> tuple[Command, ...]:
    """Of every page."""
    return tuple(command for page in PAGES for block in blocks(page) for command in commands(block))


@cache
def sentences() -> tuple[Command, ...]:
    """Commands in the middle of a sentence or a table: inline code that is more than a program's name."""
    found = []
    for page in PAGES:
        text = _FENCE.sub(lambda block: "\n" * block[0].count("\n"), page.read_text("utf-8"))
        for code in _INLINE.finditer(text):
            if " " in code[1] and _first(code[1]) in PROGRAMS:
                found.append(Command(page.name, text[: code.start()].count("\n") + 1, code[1]))
    return tuple(found)
