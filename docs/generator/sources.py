"""One tree of Python that says what `kbdfl` is, for a reader that imports nothing.

The package installs from four folders, and its kernels are compiled: neither is seen by looking for `kbdfl/` on a path.
Here the folders stand where they install, as copies, and each kernel is a module of its stub's signatures with the
docstrings of its .pyx.
"""

import ast
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "kbdfl": ROOT / "kbdfl",
    "kbdfl/kernels": ROOT / "kernels",
    "kbdfl/server": ROOT / "server",
    "kbdfl/device_sim": ROOT / "device_sim",
}

# `def name(...):`, `cpdef type name(...):` or `cdef class Name:`, at the left margin or one step in, whose body begins
# with a docstring; not a function of C's, and not one whose body begins otherwise.
_DOCUMENTED = re.compile(
    r"^(?P<indent> *)(?:def |cpdef [\w ]*?|(?:cdef )?class )(?P<name>\w+)\b"
    r'(?:(?!\n *(?:def|cdef|cpdef|class) )[^"])*?:\n\s+"""(?P<text>.*?)"""',
    re.M | re.S,
)
_CLASS = re.compile(r"^(?:cdef )?class (\w+)", re.M)


def lay(folder: Path) -> Path:
    """Lay the tree in `folder`, which is made anew; gives it back, to be searched for `kbdfl`."""
    shutil.rmtree(folder, ignore_errors=True)
    for place, origin in FOLDERS.items():
        for path in origin.rglob("*.py"):
            if "node_modules" not in path.parts:
                copy = folder / place / path.relative_to(origin)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
    for stub in FOLDERS["kbdfl/kernels"].glob("*.pyi"):
        (folder / "kbdfl" / "kernels" / f"{stub.stem}.py").write_text(kernel(stub), "utf-8")
    return folder


def kernel(stub: Path) -> str:
    """A kernel as Python: the signatures of its stub, which say dtypes, and the docstrings of the .pyx beside it."""
    source = stub.with_suffix(".pyx").read_text("utf-8")
    said = docstrings(source)
    tree = ast.parse(stub.read_text("utf-8"))
    _document(tree.body, said, "")
    module = ast.Module([ast.Expr(ast.Constant(_module_docstring(source))), *tree.body], [])
    return ast.unparse(ast.fix_missing_locations(module)) + "\n"


def docstrings(source: str) -> dict[str, str]:
    """Of a .pyx, by name; a method's name has its class's before it."""
    classes = [(found.start(), found[1]) for found in _CLASS.finditer(source)]
    said = {}
    for found in _DOCUMENTED.finditer(source):
        owner = [name for start, name in classes if start < found.start()] if found["indent"] else []
        said[".".join([*owner[-1:], found["name"]])] = found["text"]
    return said


def _document(body: list[ast.stmt], said: dict[str, str], owner: str) -> None:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            text = said.get(owner + node.name)
            if isinstance(node, ast.ClassDef):
                _document(node.body, said, f"{node.name}.")
            if text:
                node.body.insert(0, ast.Expr(ast.Constant(text)))


def _module_docstring(source: str) -> str:
    found = re.match(r'\s*"""(.*?)"""', source, re.S)
    return found[1] if found else ""
