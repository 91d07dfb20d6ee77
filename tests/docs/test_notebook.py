"""docs/notebook.md in a real Jupyter kernel: its Python blocks as cells, and what the page says of what they show.

The notebook is run by a process of its own, for the sake of Jupyter's warnings, and left to this one as a file.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.docs.pages import ROOT, blocks

MISSING = [name for name in ("nbclient", "ipykernel") if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")

PAGE = ROOT / "docs" / "notebook.md"
LIVE, STILL = "application/vnd.plotly.v1+json", "image/svg+xml"
# What blocks need that kbdfl does not bring.
NEEDED = {"import pandas": "pandas", "import polars": "polars", "kbdfl.track(": "tensorboardX mlflow alembic"}

AS_THE_PAGE_CALLS_IT = 'import shutil\n_ = shutil.copytree(run.path, "runs/NAME")'
TABLES = ["run", "model", 'model.predict("how are")', "model.predictor"]
PLOTS = [
    'run.plot("loss")',
    'run.plot("bytes")',
    'run.plot("phones")',
    "run.plot()",
    'kbdfl.compare("runs/NAME", run)',
]
EXPORTED = 'import plotly.io\n\nplotly.io.renderers.default = "notebook"\nrun.plot("loss")'
# As Jupyter interrupts a cell: a signal to the kernel, here once two rounds are over.
INTERRUPTED = """
import os, pathlib, signal, threading, time

def interrupt():
    rows = pathlib.Path("runs/broken/metrics.jsonl")
    while not rows.exists() or rows.read_text().count("\\n") < 2:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt).start()
kbdfl.simulate(preset="tiny", devices=20, rounds=25, cohort=3, evaluate_every=25, name="broken")
"""
RESUMED = 'half = len(kbdfl.load("runs/broken").metrics)\nkbdfl.simulate(resume="runs/broken")'
RAISES = "kbdfl.simulate(device=50)"


def page_cells():
    """The page's blocks of Python, but those that need what is not installed."""
    found = [block.text for block in blocks(PAGE) if block.language == "python"]
    return [
        text
        for text in found
        if not any(mark in text and None in map(find_spec, names.split()) for mark, names in NEEDED.items())
    ]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory, mlflow_store):
    """The outputs of each cell by its source."""
    folder = tmp_path_factory.mktemp("notebook")
    if mlflow_store is not None:
        (folder / "runs").mkdir()
        shutil.copy(mlflow_store, folder / "runs")
    first, *others = page_cells()
    cells = [
        first,
        AS_THE_PAGE_CALLS_IT,
        *others,
        *TABLES,
        *PLOTS,
        EXPORTED,
        INTERRUPTED,
        RESUMED,
        "half",
        RAISES,
    ]
    written = {
        "nbformat": 4,
        "nbformat_minor": 4,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "cells": [
            {"cell_type": "code", "metadata": {}, "source": text, "outputs": [], "execution_count": None}
            for text in cells
        ],
    }
    (folder / "page.ipynb").write_text(json.dumps(written), "utf-8")
    own = {
        name: str(folder / name)
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    }
    execute = [sys.executable, "-c", "from nbclient.cli import main; main()"]
    asked = [*execute, "page.ipynb", "--output=done", "--allow-errors", "--timeout=200"]
    ended = subprocess.run(asked, cwd=folder, env=os.environ | own, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    executed = json.loads((folder / "done.ipynb").read_text("utf-8"))["cells"]
    assert ["".join(cell["source"]) for cell in executed] == cells
    return {"".join(cell["source"]): cell["outputs"] for cell in executed}


def shown(outputs):
    """What was shown by its kinds, one dict an output; streams are left out."""
    return [each["data"] for each in outputs if "data" in each]


def test_no_cell_raises_and_none_warns(outputs):
    raised = {
        source: each["evalue"]
        for source, found in outputs.items()
        for each in found
        if each["output_type"] == "error" and source not in (INTERRUPTED, RAISES)
    }
    assert raised == {}
    assert [each for found in outputs.values() for each in found if each.get("name") == "stderr"] == []
    assert len(page_cells()) >= 5


def test_a_bar_is_one_line_that_stays_with_what_it_showed_last(outputs):
    for source, rounds in ((page_cells()[0], 20), (RESUMED, 25)):
        bar, *others = shown(outputs[source])
        assert bar.keys() == {"text/plain"}
        (line,) = "".join(bar["text/plain"]).splitlines()
        assert line.startswith("simulate: 100%")
        assert f" {rounds}/{rounds} [" in line
        assert [each for each in others if "simulate:" in str(each)] == []


@pytest.mark.parametrize("source", [*TABLES, RESUMED])
def test_the_last_line_of_a_cell_is_a_small_table(source, outputs):
    table = shown(outputs[source])[-1]
    assert "".join(table["text/html"]).startswith("<table>")
    assert "\n" not in "".join(table["text/plain"])


@pytest.mark.parametrize("source", PLOTS)
def test_a_plot_is_live_data_and_a_still_picture(source, outputs):
    (plot,) = shown(outputs[source])
    assert plot.keys() == {LIVE, STILL}
    picture = "".join(plot[STILL])
    assert picture.startswith("<svg ")
    assert picture.count('stroke-width="2"') == len(plot[LIVE]["data"]) > 0
    assert len(picture) < 20_000


def test_with_plotlys_renderer_for_pages_a_plot_is_html(outputs):
    script, plot = shown(outputs[EXPORTED])
    assert plot.keys() == {"text/html"}
    assert "Plotly.newPlot" in "".join(plot["text/html"])
    assert len("".join(script["text/html"])) > 1_000_000


def test_an_interrupted_cell_goes_on_later_from_its_folder(outputs):
    assert outputs[INTERRUPTED][-1]["ename"] == "KeyboardInterrupt"
    assert "finished, 25 of 25 rounds" in "".join(shown(outputs[RESUMED])[-1]["text/plain"])
    (half,) = shown(outputs["half"])
    assert 2 <= int("".join(half["text/plain"])) < 25


def test_what_cannot_be_is_said_in_one_line(outputs):
    (error,) = outputs[RAISES]
    assert (error["ename"], error["evalue"]) == (
        "ConfigError",
        "there is no option 'device'; did you mean devices?",
    )
