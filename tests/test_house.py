"""The house rules that a reader would otherwise have to remember."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("kbdfl", "kernels", "server", "device_sim")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
MOST_LINES = 400
WORD_LISTS = {"device_sim/typing/lexicon.py"}  # data that happens to be written in Python

TOP_LEVEL = {
    "kbdfl", "kernels", "server", "device_sim", "tests", "benchmarks", "docs",
    "setup.py", "pyproject.toml", "Makefile", "README.md", "mkdocs.yml",
    "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "MANIFEST.in",
}  # fmt: skip


def name(path):
    return str(path.relative_to(ROOT))


def parsed(path):
    return ast.parse(path.read_text("utf-8"))


def test_the_walk_sees_the_house():
    assert len(SOURCES) > 50


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_nothing_is_asserted_unpickled_or_evaluated(path):
    """`assert` vanishes under -O; the rest runs what it reads."""
    found = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Assert):
            found.append((node.lineno, "assert"))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found += [(node.lineno, node.func.id)] if node.func.id in ("eval", "exec", "compile") else []
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            banned = {"pickle", "marshal", "shelve", "dill", "joblib"}
            found += [(node.lineno, word) for word in names if word.split(".")[0] in banned]
    assert found == []


def runs_what_it_reads(tree):
    """(line, what) of all that takes data for code: pickles under any name, by import or by word, and `eval` itself."""
    words = {
        "pickle",
        "_pickle",
        "pickle5",
        "cloudpickle",
        "jsonpickle",
        "dill",
        "marshal",
        "shelve",
        "joblib",
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {part for alias in node.names for part in alias.name.split(".")}
            names |= set((getattr(node, "module", None) or "").split("."))
            yield from ((node.lineno, word) for word in names & words)
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("eval", "exec", "read_pickle", "to_pickle", "__import__"):
                yield node.lineno, called
            elif called in ("import_module", "find_spec"):  # a module by its name
                given = {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
                yield from ((node.lineno, word) for word in given & words)
            elif called == "load" and len(node.args) > 2:  # numpy's third argument is allow_pickle
                yield node.lineno, "load"
            for keyword in node.keywords:
                off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg == "allow_pickle" and not off:
                    yield node.lineno, "allow_pickle"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_nothing_that_is_read_is_run(path):
    assert list(runs_what_it_reads(parsed(path))) == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("kernels/*.p[yx]*[xd]")), ids=name)
def test_no_kernel_runs_what_it_reads(path):
    assert (
        re.findall(r"\b(?:pickle|allow_pickle|eval|exec|__import__)\b\s*\(?", path.read_text("utf-8")) == []
    )


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from pickle import loads", "import cloudpickle as c", "import a.pickle", "eval('1')",
        "builtins.eval('1')", "exec('1')", "__import__('os')", "importlib.import_module('pickle')",
        "np.load(path, allow_pickle=True)", "np.load(path, allow_pickle=asked)", "np.load(path, None, True)",
        "pandas.read_pickle(path)",
    ],
)  # fmt: skip
def test_what_runs_what_it_reads_is_found(text):
    assert len(list(runs_what_it_reads(ast.parse(text)))) == 1
    assert (
        list(runs_what_it_reads(ast.parse("np.load(path, allow_pickle=False); re.compile(''); f.load(path)")))
        == []
    )


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_exception_is_swallowed(path):
    """A bare except, or a broad one that neither raises nor says anything."""
    found = []
    for node in ast.walk(parsed(path)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        broad = node.type is None or (
            isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
        )
        acts = any(isinstance(inside, ast.Raise | ast.Call) for inside in ast.walk(node))
        if node.type is None or (broad and not acts):
            found.append(node.lineno)
    assert found == []


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_randomness_comes_from_named_streams(path):
    """No global generator, numpy's or Python's."""
    found = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found += [node.lineno for alias in node.names if alias.name == "random"]
        elif isinstance(node, ast.ImportFrom):
            found += [node.lineno] if node.module == "random" else []
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("np.random", "numpy.random"):
            allowed = ("Generator", "PCG64", "Philox", "SeedSequence")
            found += [node.lineno] if node.attr not in allowed else []
    assert found == []


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_module_is_longer_than_a_reader_wants(path):
    if name(path) not in WORD_LISTS:
        assert len(path.read_text("utf-8").splitlines()) <= MOST_LINES


def bare(path):
    """Modules, public functions and public classes without a docstring."""
    tree = parsed(path)
    if tree.body and not ast.get_docstring(tree):
        yield "the module"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            public = not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                yield node.name


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_what_is_public_says_what_it_is(path):
    assert list(bare(path)) == []


def test_the_top_level_holds_what_was_agreed_and_nothing_else():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout, so there is no list of files to look at")
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {entry for entry in top if not entry.startswith(".")} == TOP_LEVEL


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_file_is_left_for_later(folder):
    marks = ("TO" + "DO", "FIX" + "ME", "X" + "XX")
    for path in (ROOT / folder).rglob("*"):
        if "node_modules" in path.parts:  # fetched, and never committed
            continue
        if path.suffix in {".py", ".pyx", ".pxd", ".pyi", ".h", ".html", ".js", ".css", ".sql"}:
            text = path.read_text("utf-8")
            assert not [mark for mark in marks if mark in text], name(path)
