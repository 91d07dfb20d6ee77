"""Build of the kernels; everything else about the package stands in pyproject.toml.

The four top-level folders install as ``kbdfl`` and three packages below it, so that ``kernels`` and
``server`` never appear as top-level names of somebody's environment.

Switches, from the environment: ``KBDFL_DEBUG_KERNELS=1`` checks the bounds of memoryviews, ``KBDFL_NO_CLONES=1``
compiles each loop once, for the plainest processor, and ``KBDFL_SANITIZE=address,undefined`` names sanitizers.
``make`` builds such kernels apart from those in use: objects do not remember their switches.

The kernels keep to the limited API (PEP 384), so that one build serves CPython 3.11 and all after it; a free-threaded
interpreter has no such interface, and gets a build of its own.
"""

import os
import sys
import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

ROOT = Path(__file__).parent
FOLDERS = {
    "kbdfl": "kbdfl",
    "kbdfl.kernels": "kernels",
    "kbdfl.server": "server",
    "kbdfl.device_sim": "device_sim",
}
DEBUG = os.environ.get("KBDFL_DEBUG_KERNELS") == "1"
NO_CLONES = os.environ.get("KBDFL_NO_CLONES") == "1"
SANITIZE = os.environ.get("KBDFL_SANITIZE", "")
SANITIZER_LOADED = os.environ.get("KBDFL_SANITIZER_LOADED") == "1"
LIMITED = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")


def packages() -> list[str]:
    found = list(FOLDERS)
    for package, folder in FOLDERS.items():
        found += [f"{package}.{sub}" for sub in find_packages(folder)]
    return found


def compile_flags() -> list[str]:
    if sys.platform == "win32":
        return ["/O2", "/std:c11"]  # the headers say `restrict`
    # -O3 is what vectorises the loops of the headers; no -march: the variants are picked at run time.
    flags = ["-O3", "-g0", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-Wno-unused-function"]
    if DEBUG:
        flags += ["-g", "-UNDEBUG"]
    if SANITIZE:
        # -O1 compiles four times faster. -fno-wrapv: CPython's own flags would make every signed overflow legal.
        flags += [
            "-O1",
            "-g",
            "-UNDEBUG",
            "-fno-wrapv",
            "-fno-omit-frame-pointer",
            "-fno-sanitize-recover=all",
        ]
        flags += [f"-fsanitize={SANITIZE}"]
    return flags


def link_flags() -> list[str]:
    """The sanitizers' own library, unless another one (clang's, for the fuzzer) is loaded before Python."""
    return [f"-fsanitize={SANITIZE}"] if SANITIZE and not SANITIZER_LOADED else []


def macros() -> list[tuple[str, str | None]]:
    limited = [("Py_LIMITED_API", "0x030B0000")] if LIMITED else []
    return limited + ([("KBDFL_NO_CLONES", None)] if NO_CLONES else [])


def extensions() -> list[Extension]:
    headers = sorted(ROOT.glob("kernels/*.pxd")) + sorted(ROOT.glob("kernels/*.h"))
    return [
        Extension(
            f"kbdfl.kernels.{source.stem}",
            [f"kernels/{source.name}"],
            include_dirs=["kernels"],
            depends=[f"kernels/{header.name}" for header in headers],
            define_macros=macros(),
            py_limited_api=LIMITED,
            extra_compile_args=compile_flags(),
            extra_link_args=link_flags(),
        )
        for source in sorted(ROOT.glob("kernels/*.pyx"))
    ]


setup(
    packages=packages(),
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED else {},
    package_dir=FOLDERS,
    package_data={
        "kbdfl": ["py.typed"],
        "kbdfl.kernels": ["*.pyi", "*.pyx", "*.pxd", "*.h"],
        "kbdfl.server.postgres": ["*.sql"],
        "kbdfl.server": ["*.sql", "templates/*", "static/*", "web/*.json", "web/.npmrc"],
    },
    ext_modules=cythonize(
        extensions(),
        include_path=["kernels"],
        build_dir="build/c-debug" if DEBUG else "build/c",
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": DEBUG,
            "embedsignature": True,
            "freethreading_compatible": True,
        },
    ),
)
