"""Every command of the README and of docs/ is run, or at least taken by the program that it is for.

A command is one of these, and a new one that is none of them fails here:

- `kbdfl ...`: its commands, options and values are read as the command line would, and those of a run become its
  configuration; what is in `EXECUTED` is also executed, in a folder where the files that the pages speak of are;
- `make ...`: the target is there, and a `kbdfl` that it would start is read in the same way;
- `pip install ...`: the extras that it names are there;
- `python FILE`: the file is there and compiles;
- a line of the tutorial: `test_tutorial.py` runs it;
- in `ELSEWHERE`, with the reason.
"""

import gzip
import os
import py_compile
import re
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path
from unittest import mock

import click
import pytest

from kbdfl.cli.main import group, main
from kbdfl.options import config_from
from tests import tutorial
from tests.docs.pages import PAGES, ROOT, all_commands, blocks, sentences

TINY = "--preset tiny --devices 12 --rounds 2 --cohort 2 --evaluate-every 2"

# Commands that are executed, as their first words, and what makes them quick: options that come after the page's own.
EXECUTED = {
    "kbdfl data generate --source personas --users 200 --days 7 --out logs.jsonl.gz": "--users 20 --days 2",
    "kbdfl data stats logs.jsonl.gz": "",
    'kbdfl data import "WhatsApp Chat.zip" --me "Ann Lee" --out mine.jsonl': "",
    'kbdfl data import "WhatsApp Chat with Bob.zip" --me "Ann Lee" --out chat.jsonl': "",
    "kbdfl data import sms-20240313.xml --out sms.jsonl.gz": "",
    "kbdfl data stats chat.jsonl": "",
    "kbdfl data export chat.jsonl --format leaf --out chat.json": "",
    "kbdfl simulate --preset small --source personas --devices 1000 --rounds 200": TINY,
    "kbdfl simulate --algorithm fedbuff --speeds heavy-tailed --devices 500": TINY + " --concurrency 4",
    "kbdfl simulate --faults storm --devices 200": TINY,
    "kbdfl simulate --compare runs/ONE runs/OTHER": "",
    "kbdfl export runs/NAME": "",
    "kbdfl evaluate --model runs/NAME/model --logs logs.jsonl.gz": "--users 2 --baseline-logs none",
    "kbdfl evaluate --model runs/NAME/model-int8 --logs phrases.jsonl.gz": "--baseline-logs none",
    "kbdfl evaluate --model runs/NAME/model --logs log.jsonl --baseline-logs none --json": "",
    'kbdfl predict --model runs/NAME/model "see you"': "",
    "kbdfl audit-log verify FOLDER": "",
    "kbdfl backup runs/serve-small keyboard.tar.gz": "",
    "kbdfl privacy plan --epsilon 8.9 --delta 1e-10 --rounds 2000 --population 4000000 --cohort 6500": "",
}  # fmt: skip

# Commands of other programs that no test runs, as their first words, and why.
ELSEWHERE = {
    "build/core/example": "tests/kernels builds the example and runs it, on this processor and on aarch64",
    ". .venv/bin/activate": "of the shell that reads it; `python tests/tutorial.py` runs it in a clone",
}
RUNS = {"simulate", "serve"}  # their options become a configuration
NOT_COMMANDS = {"kbdfl secagg 1 "}  # inline code that is a protocol's label


def key(command):
    return command.text.split(" #")[0].strip()


def names(start, command):
    return key(command) == start or key(command).startswith(start + " ")


def of(program):
    return [command for command in all_commands() if command.words[:1] == [program]]


def scripts():
    """`python FILE`, in a block or in a sentence."""
    found = [each for each in (*all_commands(), *sentences()) if each.words[0] in ("python", "python3")]
    return [each for each in found if any(word.endswith(".py") for word in each.words)]


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A folder with what the pages speak of: exports, logs, runs, a served folder, configurations."""
    folder = tmp_path_factory.mktemp("room")
    before = Path.cwd()
    os.chdir(folder)
    try:
        tutorial.made_up_chat(folder)
        shutil.copy(f"{tutorial.CHAT}.zip", "WhatsApp Chat.zip")
        Path("sms-20240313.xml").write_text(
            '<smses count="1"><sms date="1710350000000" type="2" body="see you soon" /></smses>'
        )
        line = '{"user": "a", "text": "see you soon"}\n'
        Path("log.jsonl").write_text(line)
        Path("phrases.jsonl.gz").write_bytes(gzip.compress(line.encode()))
        called("simulate", *TINY.split(), "--name", "NAME")
        for other in ("ONE", "OTHER"):
            shutil.copytree("runs/NAME", f"runs/{other}")
        for name in ("task", "english", "german"):
            Path(f"{name}.toml").write_text(config_from({}).to_toml())
        Path("server.toml").write_text(next(text for text in served_files() if "[tasks." in text))
        yield folder
    finally:
        os.chdir(before)


def called(*arguments):
    """Run the command line in this process; its exit code."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code or 0
    return 0


def read(words):
    """Read `kbdfl ...` as its command line does, down to the values, and run nothing; gives the command's context.

    That a file must be there is let pass: those of the pages are the reader's.
    """
    with mock.patch.object(click.Path, "convert", lambda self, value, *_: self.coerce_path_result(value)):
        return _read(words)


def _read(words):
    command, context = group, group.make_context("kbdfl", list(words))
    path = []
    while isinstance(command, click.Group):
        # The attribute by which click itself hands over what follows a group's own options.
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        path.append(name)
        context = command.make_context(name, rest, parent=context)
    if path[0] in RUNS and not context.params.get("resume") and not context.params.get("compare"):
        configured(path[0], context.params)
    return context


def configured(name, params):
    """What `simulate` and `serve` make of the values of a run's options; raises ConfigError like they do."""
    from kbdfl.cli.options import run_options
    from kbdfl.cli.serve_plan import plan_of

    known = {each.name for each in run_options(click.Command("run")).params}
    known |= {"dropout", "hazard_per_h", "speeds", "availability", "rest_s", "faults", "virtual_days"}
    options = {each: value for each, value in params.items() if each in known}
    if name == "serve":
        return plan_of(
            Path("kept-nowhere"),
            {each: options.get(each) for each in known & options.keys()},
            params["named"],
        )
    return config_from(options)


def served_files():
    """The configurations of a server that the pages show."""
    page = ROOT / "docs" / "operating.md"
    return [block.text for block in blocks(page) if block.language == "toml"]


def test_there_are_commands_to_check():
    assert len(all_commands()) > 50
    assert {command.words[0] for command in all_commands()} >= {"kbdfl", "make"}


def test_what_is_executed_or_left_out_stands_in_a_page():
    for start in (*EXECUTED, *ELSEWHERE):
        assert [1 for command in all_commands() if names(start, command)], f"no page has {start!r} any more"


@pytest.mark.parametrize("command", of("kbdfl"), ids=str)
def test_commands_options_and_values_are_taken(command, room):
    read(command.words[1:])


@pytest.mark.parametrize(("start", "quicker"), EXECUTED.items(), ids=EXECUTED)
def test_it_runs(start, quicker, room, served, capsys):
    command = next(command for command in all_commands() if names(start, command))
    code = called(*command.words[1:], *quicker.split())
    printed, said = capsys.readouterr()
    assert code == 0, said
    assert printed.strip(), "a command that ends well says what it did"
    assert "Traceback" not in said


@pytest.fixture(scope="module")
def served(room):
    """A server's folder, twice: begun by a process of its own that was ended in order."""
    place, port = Path("runs/serve-small"), Path("port")
    options = [*TINY.split(), "--no-evaluate", "--folder", place, "--port", "0", "--port-file", port]
    command = [sys.executable, "-m", "kbdfl", "serve", *map(str, options)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            while not port.exists():
                assert server.poll() is None
                time.sleep(0.05)
            with urllib.request.urlopen(
                f"http://127.0.0.1:{port.read_text().strip()}/healthz", timeout=30
            ) as answer:
                assert answer.status == 200
        finally:
            server.terminate()
    assert server.returncode == 0
    shutil.copytree(place, "FOLDER")


@pytest.mark.parametrize("command", of("make"), ids=str)
def test_targets_are_there(command, room):
    # without what a `make test` that runs this was told
    of_make = ("ARGS", "JOBS", "MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL")
    bare = {name: value for name, value in os.environ.items() if name not in of_make}
    shown = subprocess.run(
        ["make", "-n", *command.words[1:]], cwd=ROOT, capture_output=True, text=True, env=bare
    )
    assert shown.returncode == 0, shown.stderr
    for line in shown.stdout.splitlines():
        if found := re.fullmatch(r"\.venv/bin/kbdfl (.+)", line):
            read(found[1].split())


@pytest.mark.parametrize(
    "command", [each for each in sentences() if each.words[0] == "pip"] + of("pip"), ids=str
)
def test_extras_are_there(command):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert command.words[1] == "install"
    for word in command.words[2:]:
        if found := re.fullmatch(r"(?:kbdfl|\.)\[([\w,-]+)\]", word):
            assert set(found[1].split(",")) <= extras.keys()


@pytest.mark.parametrize("command", scripts(), ids=str)
def test_scripts_are_there(command, tmp_path):
    script = ROOT / next(word for word in command.words if word.endswith(".py"))
    py_compile.compile(str(script), cfile=str(tmp_path / "script.pyc"), doraise=True)


@pytest.mark.parametrize("command", sentences(), ids=str)
def test_what_a_sentence_names_is_there(command):
    """Commands, options and targets; in a sentence values may be left out."""
    if command.text in NOT_COMMANDS:
        return
    program, *words = command.words
    if program == "make":
        targets = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.M)[1].split()
        assert next(word for word in words if "=" not in word) in targets
    elif program == "kbdfl":
        found, context = group, click.Context(group)
        while isinstance(found, click.Group) and words and not words[0].startswith(("-", ".")):
            name = words.pop(0)
            assert name in found.list_commands(context), f"there is no {name}"
            found = found.get_command(context, name)
        known = {option for each in found.params for option in (*each.opts, *each.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= known | {"--help"}


@pytest.mark.parametrize("text", served_files(), ids=lambda text: text.splitlines()[0])
def test_a_server_takes_the_files_that_are_shown(text, room, monkeypatch):
    monkeypatch.setitem(os.environ, "HOME", str(room))
    path = Path("shown.toml")
    path.write_text(text)
    read(["serve", "--config", str(path)])


def test_nothing_else_is_told_to_be_typed():
    """Whoever adds a command adds it above, or in the table that says why not."""
    checked = {"kbdfl", "make", "pip", "python", "python3"}
    played = {*tutorial.commands(once=False), *tutorial.commands(once=True)}
    left = [
        str(command)
        for command in all_commands()
        if command.words[0] not in checked
        and not (command.page == "tutorial.md" and command.text in played)
        and not any(names(start, command) for start in ELSEWHERE)
    ]
    assert left == []


def python_blocks():
    return [block for page in PAGES for block in blocks(page) if block.language in ("python", "py")]


@pytest.mark.parametrize("block", python_blocks(), ids=lambda block: f"{block.page}:{block.line}")
def test_python_compiles_and_runs_where_it_is_marked(block, room, tmp_path):
    script = tmp_path / "block.py"
    script.write_text(block.text, "utf-8")
    py_compile.compile(str(script), doraise=True)
    if block.run:
        ended = subprocess.run([sys.executable, script], cwd=room, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("kbdfl simulat --rounds 3", "No such command"),
        ("kbdfl simulate --round-s 3", "No such option"),
        ("kbdfl simulate --rounds many", "not a valid integer"),
        ("kbdfl simulate --preset enormous", "preset must be"),
        ("kbdfl serve --cohort none", "cohort"),
        ("kbdfl data generate --source elsewhere --out a.jsonl", "elsewhere"),
        ("kbdfl backup FOLDER a.tar.gz while it is served", "unexpected extra argument"),
    ],
)
def test_what_would_be_refused_is_found(text, reason, room):
    """The check has teeth."""
    from kbdfl.errors import KbdflError

    with pytest.raises((click.ClickException, KbdflError)) as refused:
        read(text.split()[1:])
    assert reason in getattr(refused.value, "message", str(refused.value))
