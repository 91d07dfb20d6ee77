"""Kernels build without run-time dispatch and compute the same bytes."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from kbdfl.kernels import masking
from kbdfl.rng import stream

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The smallest kernel in a folder of its own, built with KBDFL_NO_CLONES=1; its compiled file."""
    pytest.importorskip("Cython")
    if shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]) is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("build")
    (folder / "kernels").mkdir()
    for path in [*ROOT.glob("kernels/*.pxd"), *ROOT.glob("kernels/*.h"), ROOT / "kernels/masking.pyx"]:
        shutil.copy(path, folder / "kernels")
    shutil.copy(ROOT / "setup.py", folder)
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", "lib"],
        cwd=folder,
        env=os.environ | {"KBDFL_NO_CLONES": "1"},
        check=True,
        capture_output=True,
    )
    (compiled,) = folder.glob("lib/kbdfl/kernels/masking*.so")
    return compiled


def test_without_clones_there_is_one_of_each_loop(compiled):
    assert b"kb_" in compiled.read_bytes()
    assert b".arch_x86_64" not in compiled.read_bytes()


def test_without_clones_the_bytes_are_the_same(compiled):
    spec = importlib.util.spec_from_file_location("kbdfl.kernels.masking", compiled)
    plain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plain)
    x = stream(1, "test builds").standard_normal(1001, np.float32)
    options = {"limit": 2.0, "levels": 127, "bits": 16}
    words = plain.encode_fixed(x, **options, seed=3)
    assert plain.__file__ != masking.__file__
    assert words.tobytes() == masking.encode_fixed(x, **options, seed=3).tobytes()
    assert plain.decode_fixed(words, **options).tobytes() == masking.decode_fixed(words, **options).tobytes()
