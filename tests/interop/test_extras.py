"""Without its extra each door says so in one line, and nobody opens one who has not asked."""

import importlib
import subprocess
import sys

import pytest

from kbdfl.errors import ConfigError

DOORS = {
    "kbdfl.interop.torch": ("torch", "pip install 'kbdfl[torch]'"),
    "kbdfl.interop.flower": ("flwr", "pip install 'kbdfl[flower]'"),
    "kbdfl.interop.flare.site": ("nvflare", "pip install 'kbdfl[flare]'"),
    "kbdfl.interop.flare.server": ("nvflare", "pip install 'kbdfl[flare]'"),
    "kbdfl.interop.flare.job": ("nvflare", "pip install 'kbdfl[flare]'"),
}


@pytest.fixture
def without(monkeypatch):
    """Take a package away, with all of its modules and with ours that may have found it."""

    def hide(package):
        for name in list(sys.modules):
            if name == package or name.startswith((package + ".", "kbdfl.interop")):
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)

    return hide


@pytest.mark.parametrize("module", DOORS)
def test_a_missing_extra_is_named_in_one_line(module, without):
    package, words = DOORS[module]
    without(package)
    with pytest.raises(ConfigError) as refused:
        importlib.import_module(module)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("command", "package"), [("flower", "flwr"), ("flare", "nvflare")])
def test_the_command_line_refuses_without_the_extra(command, package, tmp_path):
    code = f"import sys; sys.modules[{package!r}] = None; from kbdfl.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code, "interop", command, tmp_path / "folder"], capture_output=True, text=True
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.strip().splitlines()
    assert line.endswith(f"pip install 'kbdfl[{command}]'")
    assert list(tmp_path.iterdir()) == []


def test_kbdfl_imports_none_of_the_frameworks():
    """Not the package, the command line, the phone, the server, nor the front page of this room."""
    code = (
        "import sys, kbdfl, kbdfl.cli.main, kbdfl.cli.interop, kbdfl.interop, kbdfl.interop.learner, "
        "kbdfl.interop.record, kbdfl.interop.flare.silos, kbdfl.device_sim.simulate, kbdfl.server; "
        "print([name for name in ('torch', 'flwr', 'nvflare', 'ray') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
