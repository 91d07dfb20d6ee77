"""The structure of docs/architecture.md, read from the imports: what stands where, and who opens which door."""

import ast
import re
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACES = {
    "kbdfl": "kbdfl",
    "kernels": "kbdfl.kernels",
    "server": "kbdfl.server",
    "device_sim": "kbdfl.device_sim",
}

FLOORS = [
    {"kernels"},
    {"errors", "config", "params", "rng", "snapshot", "tables", "transform", "_version"},
    {"model", "text", "codec", "wire", "identity", "privacy", "secagg"},
    {
        "algorithms",
        "selection",
        "metrics",
        "assignment",
        "task",
        "parts",
        "rounds",
        "coordinator",
        "discovery",
        "downlink",
        "ngram",
        "secure",
    },
    {"engines", "export", "evaluation", "audit", "run", "options", "report", "tracking"},
    {"device_sim", "server"},
    {"interop"},
    {"api", "cli", "__main__"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
SISTERS = (2, 5)  # rooms on these floors do not see each other

# What `import kbdfl` gives, each when it is first asked for.
FRONT_PAGE = {
    "kbdfl._version",
    "kbdfl.algorithms",
    "kbdfl.api.model",
    "kbdfl.api.run",
    "kbdfl.api.simulate",
    "kbdfl.errors",
    "kbdfl.privacy",
}

# Who may import what was written elsewhere; numpy is everywhere.
DOORS = {
    "numpy": ["kbdfl"],
    "flask": ["kbdfl.server"],
    "werkzeug": ["kbdfl.server"],
    "waitress": ["kbdfl.server"],
    "limits": ["kbdfl.server.rates"],
    "msgspec": [
        "kbdfl.server.messages",
        "kbdfl.server.admin_messages",
        "kbdfl.server.operations",
        "kbdfl.server.openapi",
        "kbdfl.server.express",
    ],
    "prometheus_client": ["kbdfl.server.monitoring"],
    "onnx": ["kbdfl.export"],
    "onnxruntime": ["kbdfl.export"],
    "tokenizers": ["kbdfl.text"],
    "wordfreq": ["kbdfl.text"],
    "cryptography": ["kbdfl.identity", "kbdfl.secagg.crypto", "kbdfl.privacy.source"],
    "dp_accounting": ["kbdfl.privacy.accounting"],
    "scipy": ["kbdfl.privacy.banded"],
    "mpmath": ["kbdfl.privacy.sampling", "kbdfl.privacy.mechanisms"],
    "click": ["kbdfl.cli"],
    "tqdm": ["kbdfl.cli", "kbdfl.api.bars"],
    "IPython": ["kbdfl.api.cells"],
    "prompt_toolkit": ["kbdfl.cli.prompt"],
    "plotly": ["kbdfl.report", "kbdfl.api.figure", "kbdfl.server", "kbdfl.device_sim.experiments.report"],
    "urllib3": ["kbdfl.device_sim.agent"],
    "ray": ["kbdfl.engines.ray"],
    "pyarrow": ["kbdfl.device_sim.traces", "kbdfl.device_sim.typing.imports.folder"],
    "ijson": ["kbdfl.device_sim.typing.imports.jsonstream"],
    "chitchat_dataset": ["kbdfl.device_sim.typing.chat"],
    "msgpack": ["kbdfl.wire", "kbdfl.snapshot", "kbdfl.secagg.messages"],
    "backports": ["kbdfl.wire"],
    "compression": ["kbdfl.wire"],  # in the standard library from 3.14; elsewhere a third party
    "tomli_w": ["kbdfl.config"],
    "safetensors": ["kbdfl.params", "kbdfl.server.versions"],
    "tensorboardX": ["kbdfl.tracking.tensorboard"],
    "google": ["kbdfl.tracking.tensorboard"],  # protobuf, of which its files are
    "mlflow": ["kbdfl.tracking.mlflow"],
    "alembic": ["kbdfl.tracking.mlflow"],
    "psycopg": ["kbdfl.server.postgres"],
    "torch": ["kbdfl.interop.torch"],
    "flwr": ["kbdfl.interop.flower"],
    "nvflare": ["kbdfl.interop.flare"],
}


@cache
def sources():
    """Module name -> file, for all four folders that install below `kbdfl`."""
    found = {}
    for folder, package in PLACES.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join((package, *parts))] = path
    return found


def imports(module):
    """Every name that `module` imports, wherever the statement stands: (imported module, line)."""
    path, found = sources()[module], []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                found.append(("." * node.level, node.lineno))
                continue
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.append((whole if whole in sources() else node.module, node.lineno))
    return found


def room(module):
    """`kbdfl.wire.frame` stands in the room `wire`; `kbdfl` itself is the doorplate."""
    return module.split(".")[1] if "." in module else ""


def opens(module, door):
    return module == door or module.startswith(door + ".")


def everything():
    for module in sorted(sources()):
        for imported, line in imports(module):
            yield module, imported, f"{sources()[module].relative_to(ROOT)}:{line} imports {imported}"


def test_the_walk_sees_the_house():
    assert len(sources()) > 50
    assert ("kbdfl.coordinator", "kbdfl.task") in {(module, imported) for module, imported, _ in everything()}
    assert ("kbdfl.report.run", "plotly.graph_objects") in {
        (module, name) for module, name, _ in everything()
    }


def test_every_room_has_a_floor():
    assert {room(module) for module in sources()} - {""} <= FLOOR_OF.keys(), "give the new room a floor"


def test_imports_name_whole_modules():
    relative = [where for _, imported, where in everything() if imported.startswith(".")]
    assert relative == [], "write the module's whole name"


def test_a_module_imports_only_what_stands_below_it():
    upward = []
    for module, imported, where in everything():
        if not opens(imported, "kbdfl") or room(module) == room(imported) or room(module) == "cli":
            continue
        if room(module) == "":
            upward += [where] if imported not in FRONT_PAGE else []
            continue
        own, other = FLOOR_OF[room(module)], FLOOR_OF.get(room(imported), -1)
        if other > own or (other == own and own in SISTERS):
            upward.append(where)
    assert upward == []


def test_commands_import_the_house_inside_their_functions():
    """`kbdfl --help` must not load the model, the server and the exporter."""
    early = []
    for module in (name for name in sources() if room(name) == "cli"):
        tree = ast.parse(sources()[module].read_text("utf-8"))
        for node in tree.body:
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            early += [
                f"{module}:{node.lineno} imports {name}"
                for name in names
                if opens(name, "kbdfl") and room(name) not in ("cli", "errors", "_version", "")
            ]
    assert early == []


def test_no_import_goes_in_a_circle():
    graph = {module: set() for module in sources()}
    for module, imported, _ in everything():
        # A front page (__init__) gathers names from its own rooms; that is no circle.
        if imported in graph and not imported.startswith(module + ".") and room(module) != "cli":
            graph[module].add(imported)
    TopologicalSorter(graph).prepare()


def test_each_third_party_has_one_door():
    wrong = []
    for module, imported, where in everything():
        name = imported.split(".")[0]
        if name in DOORS:
            if not any(opens(module, door) for door in DOORS[name]):
                wrong.append(where)
        elif name not in sys.stdlib_module_names and not opens(imported, "kbdfl") and name.strip("."):
            wrong.append(f"{where}, which has no door")
    assert wrong == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("kernels/*.p[yx]*[xd]")), ids=lambda path: path.name)
def test_kernels_know_nothing_of_federated_learning(path):
    statements = re.findall(r"^\s*(?:c?import|from)\s+(\S+)", path.read_text("utf-8"), re.MULTILINE)
    assert [name for name in statements if opens(name, "kbdfl") and not opens(name, "kbdfl.kernels")] == []
