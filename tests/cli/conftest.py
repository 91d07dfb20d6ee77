"""The command line in this process, and what a refusal must look like."""

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
