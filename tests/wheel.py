"""What is installed is what was tested: source archive -> wheel -> an empty environment -> tests from another folder.

    python tests/wheel.py [pytest's arguments]

Works in build/wheel. The wheel is built from the unpacked source archive, so the archive must hold all that it needs.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOME = ROOT / "build" / "wheel"
FOLDERS = {
    "kbdfl": "kbdfl",
    "kernels": "kbdfl/kernels",
    "server": "kbdfl/server",
    "device_sim": "kbdfl/device_sim",
}
DATA = {".py", ".pyi", ".pyx", ".pxd", ".h", ".typed", ".sql", ".html", ".css", ".js", ".svg", ".webmanifest"}
TESTS = ("tests/kernels", "tests/kbdfl/codec", "tests/kbdfl/export", "tests/test_wire.py")
TOOLS = ("pytest>=8.2", "pytest-timeout>=2.3", "hypothesis>=6.100")


def run(*command, cwd=ROOT, **env):
    """Run a command or end with its exit status; what was installed elsewhere is out of sight."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    status = subprocess.run([str(word) for word in command], cwd=cwd, env=clean | env).returncode
    if status:
        raise SystemExit(status)


def built(folder):
    """The one file that a build left in `folder`."""
    (found,) = folder.iterdir()
    return found


def build():
    """The source archive of this tree and, from it, the wheel."""
    archive, source, wheel = HOME / "sdist", HOME / "source", HOME / "dist"
    for folder in (archive, source, wheel):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    (HOME / "build.cfg").write_text("[build_ext]\nparallel = 2\n")
    run(sys.executable, "setup.py", "-q", "sdist", "--dist-dir", archive)
    with tarfile.open(built(archive)) as packed:
        packed.extractall(source, filter="data")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check")
    options = ("--no-deps", "--no-build-isolation", "--wheel-dir", wheel)
    run(*pip, *options, built(source), DIST_EXTRA_CONFIG=str(HOME / "build.cfg"))
    return built(wheel)


def faults(wheel):
    """What the wheel lacks of the source tree, and what should not be in it."""
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, installed in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*")):
            below = path.relative_to(ROOT / folder)
            skipped = {"node_modules", "__pycache__", "core"} & set(below.parts)
            if path.is_file() and path.suffix in DATA and not skipped and f"{installed}/{below}" not in names:
                yield f"{folder}/{below} is missing"
    compiled = {name for name in names if name.endswith((".so", ".pyd"))}
    for source in ROOT.glob("kernels/*.pyx"):
        if not any(name.startswith(f"kbdfl/kernels/{source.stem}.") for name in compiled):
            yield f"the compiled {source.stem} is missing"
    for name in sorted(names):
        parts = name.split("/")
        if not (parts[0] == "kbdfl" or parts[0].endswith(".dist-info")):
            yield f"{name} would install outside the package"
        if {"tests", "node_modules", "__pycache__"} & set(parts) or name.endswith((".c", ".o")):
            yield f"{name} has no place in a wheel"
    if "-abi3-" not in wheel.name and not hasattr(sys, "_is_gil_enabled"):
        yield "it is bound to one version of Python"


def main():
    wheel = build()
    found = list(faults(wheel))
    if found:
        raise SystemExit(f"{wheel.name}:\n  " + "\n  ".join(found))
    sys.stdout.write(f"{wheel.name}: {wheel.stat().st_size:,} bytes, nothing missing and nothing too much\n")
    sys.stdout.flush()
    venv, elsewhere = HOME / "venv", HOME / "elsewhere"
    shutil.rmtree(venv, ignore_errors=True)
    shutil.rmtree(elsewhere, ignore_errors=True)
    run(sys.executable, "-m", "venv", venv)
    python = venv / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel, *TOOLS)
    shutil.copytree(ROOT / "tests", elsewhere / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "docs", elsewhere / "docs")  # some tests hold a page to its word
    shutil.copy(ROOT / "pyproject.toml", elsewhere)  # pytest's settings
    where = "import kbdfl.kernels.train as t; print(t.__file__)"
    run(python, "-P", "-c", where, cwd=elsewhere)
    run(venv / "bin" / "kbdfl", "--help", cwd=elsewhere)
    run(python, "-P", "-m", "pytest", *(sys.argv[1:] or [*TESTS, "-q"]), cwd=elsewhere)


if __name__ == "__main__":
    main()
