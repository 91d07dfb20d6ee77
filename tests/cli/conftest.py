"""The command line in this process, and what a refusal must look like."""

import json

import pytest

from kbdfl.cli.main import main


@pytest.fixture
def kbdfl(capsys):
    """Run the command line; gives its exit code, standard output and standard error."""

    def run(*arguments):
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    return run


@pytest.fixture
def final_checkpoint():
    """The bytes of the one checkpoint that a run's folder holds."""

    def read(folder):
        (path,) = (folder / "checkpoints").glob("*.safetensors")
        return path.read_bytes()

    return read


@pytest.fixture
def without_seconds():
    """The rows of a run's folder, without what the machine's speed decides."""

    def read(folder):
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [{name: value for name, value in row.items() if name != "wall_s"} for row in rows]

    return read


@pytest.fixture
def refused(kbdfl):
    """Run a command that must end in exit code 2 and one line on standard error; gives that line."""

    def run(*arguments):
        code, out, err = kbdfl(*arguments)
        assert code == 2, (code, out, err)
        assert out == ""
        assert err.startswith("kbdfl: ")
        assert err.count("\n") == 1, err
        assert "Traceback" not in err
        assert len(err) < 500
        return err

    return run
