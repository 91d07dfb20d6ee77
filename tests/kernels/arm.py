"""The kernels and the C core on the processor of phones: cross-compiled for aarch64 and tested under qemu-user.

    python tests/kernels/arm.py [pytest's arguments]

Fetches Debian's CPython for arm64 and the wheels that the tests need into build/arm, unpacks them there (nothing is
installed), compiles the kernels with aarch64-linux-gnu-gcc, and runs tests/kernels on them: 20 examples a property
(KBDFL_EXAMPLES), and without the one test that keeps an emulated thread busy for minutes.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOME = ROOT / "build" / "arm"
SYSTEM, WHEELS, LIB, CORE = HOME / "root", HOME / "wheels", HOME / "lib", HOME / "core"
NEEDED = {
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
    "qemu-aarch64": "qemu-user",
    "apt-get": "apt",
    "make": "make",
}
PYTHON = "3.11"  # of Debian 12
DEBIAN = (f"python{PYTHON}-minimal", f"libpython{PYTHON}-stdlib", "libstdc++6")
UNWANTED = ("dpkg_", "tar_", "libdb5", "libkrb5", "libgssapi")  # what those ask for and no test needs
HEADERS = f"libpython{PYTHON}-dev"
PACKAGES = ("numpy", "safetensors", "tokenizers", "wordfreq", "pytest", "pytest-timeout", "hypothesis")
SLOW = (
    "tests/kernels/test_train.py::test_a_run_holds_no_interpreter_lock_and_its_workspace_serves_nobody_else"
)
QEMU = ("qemu-aarch64", "-L", str(SYSTEM))


def run(*command, env=None, cwd=ROOT):
    """Run a command or end with its exit status."""
    status = subprocess.run([str(word) for word in command], env=os.environ | (env or {}), cwd=cwd).returncode
    if status:
        raise SystemExit(status)


def once(folder, make):
    """Make a folder unless it was made to its end before."""
    if not (folder / ".complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(folder)
        (folder / ".complete").touch()


def fetch_system(folder):
    """Debian's CPython for arm64 as plain files, by an apt that knows of this folder alone."""
    apt = HOME / "apt"
    for sub in ("lists/partial", "cache/archives/partial"):
        (apt / sub).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "root",
        "Dir::State::Lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "Debug::NoLocking": "1",
    }
    (apt / "apt.conf").write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
    env, archives = {"APT_CONFIG": str(apt / "apt.conf")}, apt / "cache" / "archives"
    run("apt-get", "update", "-qq", env=env)
    run("apt-get", "install", "-qq", "-y", "--no-install-recommends", "--download-only", *DEBIAN, env=env)
    run("apt-get", "download", "-qq", HEADERS, env=env, cwd=archives)
    for package in sorted(archives.glob("*.deb")):
        if package.name.startswith(HEADERS):
            files = subprocess.run(
                ["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True
            ).stdout
            subprocess.run(["tar", "x", "-C", folder, "./usr/include"], input=files, check=True)
        elif not package.name.startswith(UNWANTED):
            run("dpkg-deb", "-x", package, folder)


def fetch_wheels(folder):
    """Wheels for aarch64, unpacked."""
    platforms = [f"--platform={name}" for name in ("manylinux_2_28_aarch64", "manylinux2014_aarch64")]
    version = ("--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--target", folder, *platforms, *version, *PACKAGES)


def build_kernels():
    """The extension modules, by setup.py with another compiler; sources are copied anew, objects stay."""
    for stale in LIB.rglob("*.py"):
        stale.unlink()
    headers = SYSTEM / "usr" / "include"
    env = {
        "CC": "aarch64-linux-gnu-gcc",
        "LDSHARED": "aarch64-linux-gnu-gcc -shared",
        "CFLAGS": f"-I{headers / f'python{PYTHON}'} -I{headers}",  # before those of the Python that builds
    }
    setup = (sys.executable, "setup.py", "-q", "build", "--parallel", "2")
    run(*setup, "--build-base", HOME, "--build-lib", LIB, env=env)


def build_core():
    """The static library and the example, which needs no system at all; the shared library for tests/kernels."""
    tools = ("CC=aarch64-linux-gnu-gcc", "AR=aarch64-linux-gnu-ar", f"OUT={CORE}", "CFLAGS=-O3 -Werror")
    make = ("make", "-s", "-C", ROOT / "kernels" / "core", *tools)
    run(*make, "all", "LDFLAGS=-static")
    run(*make, "shared")


def main():
    missing = sorted(package for command, package in NEEDED.items() if shutil.which(command) is None)
    if missing:
        raise SystemExit(f"arm-test needs Debian's {', '.join(missing)} and libc6-dev-arm64-cross")
    once(SYSTEM, fetch_system)
    once(WHEELS, fetch_wheels)
    build_core()
    build_kernels()
    env = {
        "PYTHONPATH": f"{LIB}:{WHEELS}",
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "KBDFL_CORE": str(CORE),
        "KBDFL_CORE_RUN": "qemu-aarch64",
        "KBDFL_EXAMPLES": os.environ.get("KBDFL_EXAMPLES", "20"),  # ten times slower here than without qemu
    }
    python = (*QEMU, SYSTEM / "usr" / "bin" / f"python{PYTHON}")
    told = ("import platform, kbdfl.kernels.train as t; print(platform.machine(), t.__file__)",)
    run(*python, "-c", *told, env=env)
    asked = sys.argv[1:] or ["tests/kernels", "-q", f"--deselect={SLOW}"]
    run(*python, "-m", "pytest", "-p", "no:cacheprovider", *asked, env=env)


if __name__ == "__main__":
    main()
