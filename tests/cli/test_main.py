"""The command group: what it lists, what it loads, and that every error is one line."""

import subprocess
import sys

import click
import pytest

from kbdfl._version import __version__
from kbdfl.cli.main import COMMANDS, group, main
from kbdfl.errors import ConfigError, KbdflError


def test_help_lists_every_command(kbdfl):
    code, out, err = kbdfl("--help")
    assert (code, err) == (0, "")
    assert all(f"  {command} " in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(kbdfl, command):
    code, out, err = kbdfl(command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: kbdfl {command}")


def test_a_group_says_the_whole_first_sentence_of_each_command(kbdfl, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    _, out, _ = kbdfl("bench", "--help")
    assert "and whether the sum is exact to the bit." in " ".join(out.split())


@pytest.mark.parametrize("command", ["simulate", "serve"])
def test_options_of_a_run_stand_below_headings_and_none_is_lost(kbdfl, command):
    _, out, _ = kbdfl(command, "--help")
    found = group.get_command(click.Context(group), command)
    assert set(found.sections) <= {each.name for each in found.params}
    assert [line for line in out.splitlines() if line.endswith(":") and line[0] != " "] == [
        f"{heading}:" for heading in found.sections.values()
    ]
    written = {word.rstrip(",") for word in out.split() if word.startswith("--")}
    assert {each.opts[0] for each in found.params if isinstance(each, click.Option)} <= written


def test_version_is_the_packages(kbdfl):
    assert kbdfl("--version") == (0, f"kbdfl, version {__version__}\n", "")


def test_help_loads_no_command():
    script = (
        "import sys\nfrom kbdfl.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "loaded = {'numpy', 'onnxruntime', 'flask', 'tokenizers', 'kbdfl.kernels'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Commands:" in done.stdout


def test_no_command_shows_the_help(kbdfl):
    code, out, err = kbdfl()
    assert code in (0, 2)  # older versions of click call it a success
    assert "Commands:" in out + err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nonsense"], "nonsense"),
        (["--nonsense"], "--nonsense"),
        (["simulate", "--nonsense"], "--nonsense"),
        (["simulate", "surplus"], "surplus"),
        (["simulate", "--rounds", "many"], "'many' is not a valid integer"),
        (["simulate", "--rounds"], "--rounds"),
        (["fleet"], "--server"),
        (["demo", "--port", "70000"], "70000"),
        (["bench", "nonsense"], "nonsense"),
        (["bench", "client", "--repetitions", "1"], "repetitions"),
    ],
)
def test_bad_usage_is_one_line(refused, arguments, reason):
    assert reason in refused(*arguments)


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (ConfigError("cohort must be >= 1, got 0"), 2, "kbdfl: cohort must be >= 1, got 0\n"),
        (KbdflError("one\nline\n  only"), 2, "kbdfl: one line only\n"),
        (
            PermissionError(13, "Permission denied", "/a/b"),
            2,
            "kbdfl: [Errno 13] Permission denied: '/a/b'\n",
        ),
        (OSError(28, "No space left on device"), 2, "kbdfl: [Errno 28] No space left on device\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_errors_become_an_exit_code_and_a_line(kbdfl, monkeypatch, raised, code, said):
    def fail(**_):
        raise raised

    monkeypatch.setattr(group, "main", fail)
    assert kbdfl("anything") == (code, "", said)


def test_a_fault_of_the_program_is_not_hidden(monkeypatch):
    def fail(**_):
        raise ZeroDivisionError

    monkeypatch.setattr(group, "main", fail)
    with pytest.raises(ZeroDivisionError):
        main([])


def test_a_real_process_ends_with_code_2_and_one_line(tmp_path):
    command = [sys.executable, "-m", "kbdfl", "simulate", "--config", str(tmp_path / "none.toml"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"kbdfl: no configuration file at {tmp_path / 'none.toml'}\n"
