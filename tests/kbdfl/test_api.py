"""`import kbdfl`: ten names, and runs and models as objects."""

import ast
import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kbdfl
from kbdfl.algorithms import ClientRule, FedAdam
from kbdfl.api import bars
from kbdfl.api import simulate as simulating
from kbdfl.cli.main import main
from kbdfl.cli.simulate import simulate as command
from kbdfl.errors import ConfigError, DataError, ModelError
from kbdfl.options import Options, checked, config_from
from kbdfl.run import RunFolder

QUICK = {
    "preset": "tiny",
    "devices": 20,
    "rounds": 4,
    "cohort": 3,
    "evaluate_every": 2,
}
FRONT = [name for name in kbdfl.__all__ if name != "__version__"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return kbdfl.simulate(**QUICK, name="front", runs=tmp_path_factory.mktemp("api") / "runs")


def in_another_python(code):
    """What the code prints, on standard output and on standard error; a warning there is an error."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_the_front_page_has_ten_names_at_most_and_says_what_each_is():
    assert len(FRONT) <= 10
    listed = [line.split()[0] for line in kbdfl.__doc__.splitlines() if line.startswith("    ")]
    assert sorted(listed) == sorted(FRONT)
    assert {name for name in FRONT if getattr(kbdfl, name) is None} == set()
    assert set(FRONT) <= set(dir(kbdfl))


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'kbdfl' has no attribute 'sumilate'"):
        kbdfl.sumilate  # noqa: B018


def test_type_checkers_and_python_find_the_same_names_in_the_same_rooms():
    tree = ast.parse(Path(kbdfl.__file__).read_text())
    (block,) = (each for each in tree.body if isinstance(each, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == kbdfl._ROOMS
    assert sorted(seen) == sorted(FRONT)


def test_importing_it_loads_nothing_heavy():
    heavy = "'flask', 'onnx', 'onnxruntime', 'plotly', 'numpy', 'click', 'tqdm', 'kbdfl.kernels', 'kbdfl.run'"
    out, _ = in_another_python(
        f"import sys, kbdfl; print([name for name in ({heavy}) if name in sys.modules])"
    )
    assert out == "[]\n"


def test_what_it_takes_is_what_the_command_takes():
    own = set(inspect.signature(kbdfl.simulate).parameters) - {"options", "progress"}
    asked = {each.name for each in command.params} - {"compare", "compared", "out", "as_json"}
    assert Options.__annotations__.keys() | own == asked
    assert Options.__annotations__.keys() & own == set()


def test_it_ends_in_the_same_bytes_as_the_command(run, tmp_path):
    options = [word for name, value in QUICK.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    main(["simulate", *options, "--runs", str(tmp_path), "--name", "front", "--json"])
    same = [
        "config.toml",
        "checkpoints/000004.safetensors",
        "model/model.onnx",
        "tokenizer.json",
        "fleet.json",
    ]
    for name in same:
        assert (run.path / name).read_bytes() == (tmp_path / "front" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"device": 3}, "there is no option 'device'; did you mean devices?"),
        ({"devices": "3"}, "devices must be int, got '3'"),
        ({"devices": True}, "devices must be int, got True"),
        ({"secure": 1}, "secure must be bool, got 1"),
        ({"cohort": [1]}, r"cohort must be int or float or str, got \[1\]"),
        ({"algorithm": "sgd"}, "algorithm must be one of fedavg, .*, got sgd"),
        ({"workers": 0}, "workers must be >= 1, got 0"),
        ({"snapshot_s": -1}, "snapshot_s must be >= 0, got -1"),
        ({"track": "wandb"}, "a tracker must be one of tensorboard, mlflow, got 'wandb'"),
        ({"config_file": "none.toml"}, "no configuration file at none.toml"),
    ],
)
def test_what_cannot_be_is_refused_before_there_is_a_folder(options, reason, tmp_path):
    with pytest.raises(ConfigError, match=reason):
        kbdfl.simulate(**options, runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_options_may_be_numpys_numbers_paths_and_none():
    made = config_from(
        checked(
            {"seed": np.int64(7), "server_lr": np.float32(0.5), "source": Path("log.jsonl"), "rounds": None}
        )
    )
    assert (made.settings.seed, made.settings.source) == (7, "log.jsonl")
    assert type(made.settings.seed) is int
    assert made.algorithm.server.learning_rate == 0.5
    assert config_from(checked({"devices": 200, "cohort": 0.05})).rule.cohort == 10


def test_an_algorithm_that_is_given_whole_stays_whole():
    whole = kbdfl.Algorithm(client=ClientRule(epochs=2), server=FedAdam(0.5, decay_rounds=3), weights="sqrt")
    assert config_from(checked({"algorithm": whole, "preset": "tiny"})).algorithm == whole
    changed = config_from(checked({"algorithm": whole, "server_lr": 0.25})).algorithm
    assert changed.server == FedAdam(0.25, decay_rounds=3)


def test_privacy_may_be_given_whole():
    asked = {"dp": "tree", "dp_noise": 2.0, "dp_separation": 4, "dp_population": 1000}
    more = {"update_clip_norm": 1.0, "rounds": 8, "cohort": 10}
    by_name = config_from(checked(asked | more))
    whole = kbdfl.Privacy(mechanism="tree", noise_multiplier=2.0, separation=4, population=1000)
    assert config_from(checked({"dp": whole} | more)) == by_name
    assert by_name.algorithm.weights == "uniform"


def test_a_run_is_read_as_its_folder_has_it(run):
    again = kbdfl.load(str(run.path))
    assert again.metrics == [
        json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()
    ]
    assert again.columns["round"] == [0, 1, 2, 3]
    assert [value is None for value in again.columns["recall_top1"]] == [True, False, True, False]
    assert again.summary["reports"] == sum(again.columns["reports"]) == 12
    assert (again.name, again.finished, again.config.settings.devices) == ("front", True, 20)


def test_a_run_that_is_under_way_has_the_rounds_that_are_written(tmp_path, run):
    folder = RunFolder.create(tmp_path, "begun", default="x")
    folder.write_config((run.path / "config.toml").read_text())
    begun = kbdfl.load(folder.path)
    assert (begun.metrics, begun.columns, begun.finished) == ([], {}, False)
    assert repr(begun) == f"<Run {folder.path}: 0 of 4 rounds, recall@1 not measured>"
    folder.add_row(run.metrics[0])
    with open(folder.metrics, "a") as file:
        file.write('{"round": 1, "sta')
    assert begun.metrics == run.metrics[:1]
    with pytest.raises(ModelError, match="has no checkpoints"):
        begun.model  # noqa: B018
    folder.metrics.write_text("{\n")
    with pytest.raises(DataError, match="must hold a round's JSON object a line"):
        begun.metrics  # noqa: B018


def test_where_there_is_no_run_that_is_said(tmp_path):
    with pytest.raises(ConfigError, match=f"there is no run at {tmp_path}"):
        kbdfl.load(tmp_path)


@pytest.mark.parametrize(
    ("what", "drawn"),
    [
        ("recall", {"recall@1": "recall_top1", "recall@3": "recall_top3"}),
        ("loss", {"loss": "train_loss"}),
        ("bytes", {"up": "uplink_bytes", "down": "downlink_bytes"}),
        ("phones", {"reported": "reports", "dropped": "dropped", "refused": "refused"}),
    ],
)
def test_a_plot_draws_the_runs_figures_under_a_title(run, what, drawn):
    figure = run.plot(what)
    assert {trace.name for trace in figure.data} == drawn.keys()
    for trace in figure.data:
        values = [value for value in run.columns[drawn[trace.name]] if value is not None]
        expected = np.cumsum(values) / 1e9 if what == "bytes" else values
        assert list(trace.y) == pytest.approx(expected)
    assert figure.layout.title.text.endswith(": front")
    assert json.loads(figure.to_json())["data"]


def test_a_plot_of_something_else_is_refused(run):
    with pytest.raises(
        ConfigError, match="a plot must be one of recall, loss, bytes, phones, got 'accuracy'"
    ):
        run.plot("accuracy")


def test_runs_are_compared_in_one_figure(run):
    figure = kbdfl.compare(run, str(run.path), top=3)
    assert [trace.name for trace in figure.data] == ["front", "front"]
    assert list(figure.data[0].y) == [value for value in run.columns["recall_top3"] if value is not None]
    for arguments, reason in (((), "at least one run"), ((run,), "top must be 1 or 3, got 2")):
        with pytest.raises(ConfigError, match=reason):
            kbdfl.compare(*arguments, top=2 if arguments else 1)


def test_a_model_predicts_as_the_command_does(run, capsys):
    for text, complete in (("how are", False), ("how are yo", True)):
        flag = ["--complete"] if complete else []
        main(["predict", text, "--model", str(run.path / "model"), "-k", "4", "--json", *flag])
        said = json.loads(capsys.readouterr().out)["suggestions"]
        found = run.model.predict(text, k=4, complete=complete)
        assert [{"word": each.word, "probability": each.probability} for each in found] == said
        assert found.words == [each["word"] for each in said]


def test_the_newest_model_is_opened_once_and_leaves_nothing_behind(run):
    before = sorted(run.path.rglob("*"))
    assert run.model is run.model
    assert sorted(run.path.rglob("*")) == before
    assert repr(run.model.predictor).startswith(f"<Predictor of {run.path}: ")
    assert run.model.facts["params_sha256"] == kbdfl.Model(run.path / "model").facts["params_sha256"]
    assert run.model.vocabulary[:2] == ("<pad>", "<unk>")


@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
def test_an_export_is_the_commands(run, precision, tmp_path, capsys):
    main(["export", str(run.path), "--precision", precision, "--out", str(tmp_path / "by-command")])
    made = run.export(tmp_path / "model", precision=precision)
    assert made.bundle.folder == tmp_path / "model"
    assert (tmp_path / "model/model.onnx").read_bytes() == (tmp_path / "by-command/model.onnx").read_bytes()


def test_an_export_goes_to_the_runs_folder_unless_another_is_named(run):
    assert run.export().bundle.folder == run.path / "model-int8"
    with pytest.raises(ConfigError, match="precision must be one of float32, int8, int4, got 'int2'"):
        run.export(precision="int2")


def test_an_interrupted_run_goes_on_to_the_same_bytes(run, tmp_path, monkeypatch):
    class Interrupted(bars.rounds_bar(4, 0, shown=False).__class__):
        def update(self, n=1):
            if (tmp_path / "runs/broken/metrics.jsonl").read_text().count("\n") == 2:
                raise KeyboardInterrupt

    broken = {"name": "broken", "runs": tmp_path / "runs", "snapshot_s": 0}
    with monkeypatch.context() as patch:
        patch.setattr(simulating, "rounds_bar", lambda *_, **__: Interrupted(disable=True))
        with pytest.raises(KeyboardInterrupt):
            kbdfl.simulate(**QUICK, **broken)
    half = kbdfl.load(tmp_path / "runs/broken")
    assert (len(half.metrics), half.finished) == (2, False)
    with pytest.raises(ConfigError, match="says, and takes no rounds"):
        kbdfl.simulate(resume=half, rounds=9)
    whole = kbdfl.simulate(resume=half)
    assert (whole.path, whole.finished) == (half.path, True)
    name = "checkpoints/000004.safetensors"
    assert (whole.path / name).read_bytes() == (run.path / name).read_bytes()


def test_every_object_is_one_line_and_a_table(run):
    shown = [run, run.model, run.model.predictor, run.model.predict("see you")]
    for each in shown:
        assert "\n" not in repr(each)
        assert each._repr_html_().startswith("<table>")
    assert (
        repr(run) == f"<Run {run.path}: finished, 4 of 4 rounds, recall@1 {run.summary['recall_top1']:.1%}>"
    )
    assert repr(run.model) == "<Model tiny, 12,180 parameters, 500 tokens, float32>"
    assert repr(run.model.predict("see you")).count("%") == 3


def test_what_stands_in_a_table_is_no_html_of_its_own(run):
    suggestion = type(run.model.predict("a")[0])("<b>", 0.5)
    table = type(run.model.predict("a"))([suggestion])._repr_html_()
    assert "&lt;b&gt;" in table
    assert "<b>" not in table


# What a kernel's interpreter has, and an output that says what is done to it.
NOTEBOOK = """
import sys, types
class Output:
    def update(self, data, *, raw): print("shows", data["text/plain"])
def display(data, *, raw, display_id):
    print("begins", data["text/plain"])
    return Output()
shell, inside = types.ModuleType("IPython"), types.ModuleType("IPython.display")
shell.display, inside.display = inside, display
sys.modules |= {"ipykernel.zmqshell": types.ModuleType("z"), "IPython": shell, "IPython.display": inside}
"""


def barred(before, shown):
    """What a bar of three rounds, one of them done before, prints in another interpreter."""
    code = (
        f"with rounds_bar(3, 1, shown={shown}) as bar: bar.update(); bar.update(); bar.set_postfix_str('end')"
    )
    return in_another_python(f"{before}\nfrom kbdfl.api.bars import rounds_bar\n{code}")


@pytest.mark.parametrize(("shown", "seen"), [(None, False), (True, True), (False, False)])
def test_a_bar_is_a_line_of_standard_error_where_it_is_asked_for(shown, seen):
    out, err = barred("", shown)
    assert out == ""
    assert ("3/3" in err) == seen, err


@pytest.mark.parametrize("shown", [None, True, False])
def test_a_bar_is_one_output_of_its_cell_in_a_notebook(shown):
    out, err = barred(NOTEBOOK, shown)
    assert err == ""
    lines = out.splitlines()
    if shown is False:
        assert lines == []
    else:
        assert lines[0].startswith("begins simulate:  33%")
        assert {line.split()[0] for line in lines[1:]} == {"shows"}
        assert "3/3" in lines[-1]
        assert lines[-1].endswith("end]")


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_the_two_lines_of_the_page_read_all_rounds(run, library, tmp_path, monkeypatch):
    pytest.importorskip(library, reason=f"{library} is not installed")
    page = (Path(__file__).parents[2] / "docs/notebook.md").read_text()
    (lines,) = re.findall(rf"```python\n(import {library}\n\n?.+\n)```", page)
    shutil.copytree(run.path, tmp_path / "runs/NAME")
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(lines, found)  # noqa: S102
    assert found["frame"]["reports"].to_list() == run.columns["reports"]
    assert found["frame"]["train_loss"].to_list() == pytest.approx(run.columns["train_loss"])
    assert list(found["frame"].columns) == list(run.columns)
