"""The pages of the reference: one for each package, with its modules."""

import ast
from pathlib import Path

# Folder of a page -> its packages, in the order of the floors; `kbdfl` itself is the modules beside the packages.
LEAD = {
    "kbdfl": "The modules that stand by themselves, from errors up to the coordinator.",
    "kbdfl.kernels": "Compiled modules, and the numpy twin of each.",
}
LEFT_OUT = {"kbdfl.cli", "kbdfl.cli.bench"}  # commands have pages of their own
FLOORS = (
    "kbdfl", "kbdfl.kernels", "kbdfl.model", "kbdfl.codec", "kbdfl.wire", "kbdfl.privacy", "kbdfl.secagg",
    "kbdfl.algorithms", "kbdfl.discovery",
)  # fmt: skip


def packages(tree: Path) -> list[str]:
    """Every package below `tree`, from the ground up and then by name."""
    inits = (tree / "kbdfl").rglob("__init__.py")
    found = {".".join(path.parent.relative_to(tree).parts) for path in inits} - LEFT_OUT
    late = sorted(
        found - set(FLOORS), key=lambda name: (name.startswith(("kbdfl.device_sim", "kbdfl.server")), name)
    )
    return [name for name in FLOORS if name in found] + late


def package_page(tree: Path, package: str) -> str:
    """Markdown that has the package's own docstring and each of its modules documented."""
    folder = tree.joinpath(*package.split("."))
    lines = [f"# {package}", "", *([LEAD[package], ""] if package in LEAD else [])]
    lines += _directive(package, _own(folder / "__init__.py"), front=True)
    for path in sorted(folder.glob("*.py")):
        if not path.name.startswith("_"):
            lines += [f"## {package}.{path.stem}", "", *_directive(f"{package}.{path.stem}")]
    return "\n".join(lines) + "\n"


def _own(init: Path) -> list[str]:
    """What a front page defines itself; the names that it gathers stand with their modules."""
    body = ast.parse(init.read_text("utf-8")).body
    names = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return [name for name in names if not name.startswith("_")]


def _directive(name: str, members: list[str] | None = None, *, front: bool = False) -> list[str]:
    options = (
        [f"      members: {members}"] if front and members else ["      members: false"] if front else []
    )
    return [f"::: {name}", *(["    options:", *options] if options else []), ""]
