"""Build of the kernels; everything else about the package stands in pyproject.toml.

The four top-level folders install as ``kbdfl`` and three packages below it, so that ``kernels`` and
``server`` never appear as top-level names of somebody's environment.
"""

import os
import sys
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


def packages() -> list[str]:
    found = list(FOLDERS)
    for package, folder in FOLDERS.items():
        found += [f"{package}.{sub}" for sub in find_packages(folder)]
    return found


def extensions() -> list[Extension]:
    # -O3 is what vectorises the loops of _simd.h; no -march: the variants are picked at run time.
    flags = (
        []
        if sys.platform == "win32"
        else ["-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-Wno-unused-function"]
    )
    return [
        Extension(
            f"kbdfl.kernels.{source.stem}",
            [f"kernels/{source.name}"],
            include_dirs=["kernels"],
            depends=[
                f"kernels/{header.name}"
                for pattern in ("*.pxd", "*.h")
                for header in ROOT.glob(f"kernels/{pattern}")
            ],
            extra_compile_args=flags,
        )
        for source in sorted(ROOT.glob("kernels/*.pyx"))
    ]


setup(
    packages=packages(),
    package_dir=FOLDERS,
    package_data={
        "kbdfl": ["py.typed"],
        "kbdfl.kernels": ["*.pyi", "*.pyx", "*.pxd", "*.h"],
        "kbdfl.server": ["*.sql", "templates/*", "static/*"],
    },
    ext_modules=cythonize(
        extensions(),
        include_path=["kernels"],
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
