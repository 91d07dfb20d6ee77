"""What TensorBoard and MLflow read of a run, by their own libraries."""

import json
import shutil
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.cli.simulate import simulate as command
from kbdfl.errors import ConfigError
from kbdfl.run import RunConfig, RunFolder
from kbdfl.tracking import TRACKERS, Tracking, open_tracking, track_rows
from kbdfl.tracking.follow import writer_class
from kbdfl.tracking.rows import parameters, scalars, step_of


def row(number, **changes):
    return {
        "round": number,
        "status": "committed",
        "version": number + 1,
        "reports": 4,
        "train_loss": 5.0 - number,
        "recall_top1": None,
        "wall_s": 1.5 * (number + 1),
    } | changes


ROWS = [row(0), row(1, recall_top1=0.25), row(2, status="abandoned", train_loss=None), row(3), row(4)]


@pytest.fixture
def folder(tmp_path, mlflow_store, monkeypatch):
    """A run's folder as it is when its first round begins, beside an MLflow store of others."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = RunFolder.create(tmp_path / "runs", "a", default="x")
    made.write_config(RunConfig().to_toml())
    if mlflow_store is not None:
        shutil.copy(mlflow_store, made.path.parent)
    return made.path


def refuse(text):
    raise AssertionError(text)


def follow(names, folder, rows, *, done=None):
    with open_tracking(names, folder, begins=done is None, done=done, say=refuse) as tracking:
        for each in rows:
            tracking.add(each)


class Tensorboard:
    """What TensorBoard shows of a folder."""

    name = "tensorboard"

    def __init__(self):
        pytest.importorskip("tensorboardX", reason="the extra tensorboard is not installed")
        self.events = pytest.importorskip(
            "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is not installed"
        )

    def read(self, folder):
        """(figures by name as {step: value}, seconds at which the first figure's steps closed)"""
        found = self.events.EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
        found.Reload()
        figures = {name: found.Scalars(name) for name in found.Tags()["scalars"]}
        values = {name: [(each.step, each.value) for each in events] for name, events in figures.items()}
        return values, [each.wall_time for each in figures["wall_s"]]


class Mlflow:
    """What an MLflow client finds in the store beside a folder."""

    name = "mlflow"

    def __init__(self):
        self.mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
        pytest.importorskip("alembic", reason="the extra mlflow is not installed")

    def client(self, folder):
        return self.mlflow.MlflowClient(f"sqlite:///{folder.parent / 'mlflow.db'}")

    def runs(self, folder):
        client = self.client(folder)
        found = client.search_runs([client.get_experiment_by_name("kbdfl").experiment_id])
        return [run for run in found if run.info.run_name == folder.name]

    def read(self, folder):
        (run,) = self.runs(folder)
        history = {
            name: self.client(folder).get_metric_history(run.info.run_id, name) for name in run.data.metrics
        }
        values = {name: [(each.step, each.value) for each in found] for name, found in history.items()}
        return values, [each.timestamp / 1000 for each in history["wall_s"]]


@pytest.fixture(params=[Tensorboard, Mlflow], ids=lambda kind: kind.name)
def library(request):
    return request.param()


def test_each_round_is_read_back_as_it_was_written(library, folder):
    follow([library.name], folder, ROWS)
    read, _ = library.read(folder)
    assert read["reports"] == [(step, 4) for step in range(1, 6)]
    assert read["train_loss"] == [(1, 5), (2, 4), (4, 2), (5, 1)]  # what was not measured is not there
    assert read["recall_top1"] == [(2, 0.25)]
    assert read.keys() == {"version", "reports", "train_loss", "recall_top1", "wall_s"}


def test_a_run_that_goes_on_has_each_round_once(library, folder):
    """It was killed after four rounds, and its last snapshot was of two."""
    follow([library.name], folder, ROWS[:4])
    follow([library.name], folder, ROWS[2:], done=2)
    read, _ = library.read(folder)
    assert read["reports"] == [(step, 4) for step in range(1, 6)]
    assert read["wall_s"] == [(step, 1.5 * step) for step in range(1, 6)]


def test_figures_that_come_later_are_added_and_those_that_stand_there_stay(library, folder):
    """As a server's do, whose recall is measured after a round, and which may be killed at any moment."""
    follow([library.name], folder, ROWS[:2])
    for _ in range(2):
        with open_tracking([library.name], folder, begins=False, done=None, say=refuse) as tracking:
            for each in [*ROWS[:2], row(2, train_loss=3.0), row(2, recall_top1=0.5), row(2, train_loss=9.0)]:
                tracking.add(each)
    read, _ = library.read(folder)
    assert read["reports"] == [(1, 4), (2, 4), (3, 4)]
    assert read["recall_top1"] == [(2, 0.25), (3, 0.5)]
    assert read["train_loss"] == [(1, 5), (2, 4), (3, 3)]


@pytest.mark.parametrize("left", [1, 11, 13, 40])
def test_a_file_that_was_not_written_to_its_end_is_read_up_to_there(left, folder):
    library = Tensorboard()
    follow(["tensorboard"], folder, [row(0)])
    (file,) = (folder / "tensorboard").iterdir()
    whole = file.stat().st_size
    follow(["tensorboard"], folder, [row(1)], done=1)
    *_, file = sorted((folder / "tensorboard").iterdir())
    file.write_bytes(file.read_bytes()[:-left])
    with open_tracking(["tensorboard"], folder, begins=False, done=None, say=refuse) as tracking:
        for each in (row(0), row(1)):
            tracking.add(each)
    read, _ = library.read(folder)
    assert whole > left
    assert {name for name, found in read.items() if [step for step, _ in found] != [1, 2]} == set()
    assert read["wall_s"] == [(1, 1.5), (2, 3.0)]


def test_a_disk_that_is_full_is_said_and_nothing_waits(folder, monkeypatch):
    """tensorboardX's own queue would fill up behind a thread that has died."""
    pytest.importorskip("tensorboardX", reason="the extra tensorboard is not installed")
    said, writer = [], writer_class("tensorboard")(folder, begins=True, done=None)
    with Tracking({"tensorboard": writer}, say=said.append) as tracking:
        tracking.add(row(0))
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            for number in range(1, 20):
                tracking.add(row(number))
    writer.close(finished=False)
    assert said == ["tensorboard is written no more: [Errno 28] No space left on device"]


def test_a_run_that_is_there_is_written_once_at_the_times_of_its_rounds(library, folder):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in ROWS))
    closed_s = (folder / "metrics.jsonl").stat().st_mtime
    for _ in range(2):
        track_rows([library.name], folder, ROWS)
    read, times = library.read(folder)
    assert read["reports"] == [(step, 4) for step in range(1, 6)]
    assert times == pytest.approx(
        [closed_s - 6, closed_s - 4.5, closed_s - 3, closed_s - 1.5, closed_s], abs=0.01
    )


def test_mlflow_has_the_settings_the_files_and_how_it_ended(folder):
    library = Mlflow()
    (folder / "report.html").write_text("<p>")
    follow(["mlflow"], folder, ROWS[:1])
    (run,) = library.runs(folder)
    assert (run.info.run_name, run.info.status) == ("a", "FINISHED")
    assert run.data.params == parameters(folder)
    files = {file.path for file in library.client(folder).list_artifacts(run.info.run_id)}
    assert files == {"config.toml", "report.html"}
    with (
        pytest.raises(KeyboardInterrupt),
        open_tracking(["mlflow"], folder, begins=False, done=1, say=refuse),
    ):
        raise KeyboardInterrupt
    assert [run.info.status for run in library.runs(folder)] == ["KILLED"]
    follow(["mlflow"], folder, ROWS[:1])  # a run that begins is another one
    assert [run.info.status for run in library.runs(folder)] == ["FINISHED", "KILLED"]


def test_mlflow_sends_nothing_home():
    Mlflow()
    from mlflow.telemetry.utils import is_telemetry_disabled

    import kbdfl.tracking.mlflow  # noqa: F401

    assert is_telemetry_disabled()


def test_tensorboard_shows_the_configuration(folder):
    library = Tensorboard()
    follow(["tensorboard"], folder, ROWS[:1])
    found = library.events.EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    (event,) = found.Tensors("config/text_summary")
    text = event.tensor_proto.string_val[0].decode()
    assert [line.removeprefix("    ") for line in text.splitlines()] == (
        folder / "config.toml"
    ).read_text().splitlines()


class Writer:
    """Keeps what it gets, until it breaks."""

    def __init__(self, *, breaks=False):
        self.rows, self.closed, self.breaks = [], None, breaks

    def add(self, row, *, at_s):
        if self.breaks:
            raise OSError("no space\nleft")
        self.rows.append(row)

    def close(self, *, finished):
        self.closed = finished


def test_a_run_goes_on_without_a_writer_that_fails():
    said, good, bad = [], Writer(), Writer(breaks=True)
    with Tracking({"bad": bad, "good": good}, say=said.append) as tracking:
        for each in ROWS:
            tracking.add(each)
    assert said == ["bad is written no more: no space left"]
    assert good.rows == ROWS
    assert (good.closed, bad.closed) == (True, None)


def test_a_tracker_of_another_name_is_refused(folder):
    with pytest.raises(ConfigError, match="a tracker must be one of tensorboard, mlflow, got 'wandb'"):
        open_tracking(["wandb"], folder, begins=True, done=None, say=refuse)


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("mlflow", "mlflow")])
def test_a_library_that_is_missing_is_named_with_its_extra(name, package, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"kbdfl.tracking.{name}", raising=False)
    with pytest.raises(ConfigError, match=rf"pip install 'kbdfl\[{name}\]'"):
        open_tracking([name], folder, begins=True, done=None, say=refuse)


def test_a_store_that_cannot_be_opened_is_refused_in_one_line(folder, monkeypatch):
    Mlflow()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://x")
    with pytest.raises(ConfigError, match=r"^mlflow cannot be written: .*nowhere"):
        open_tracking(["mlflow"], folder, begins=True, done=None, say=refuse)


def test_the_command_offers_all_trackers():
    (option,) = (each for each in command.params if each.name == "track")
    assert list(option.type.choices) == list(TRACKERS)


VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
)


@given(found=st.dictionaries(st.text(min_size=1, max_size=8), VALUES), number=st.integers(0, 10**6))
def test_the_numbers_of_a_row_and_nothing_else_are_figures(found, number):
    written = found | {"round": number}
    figures = scalars(written)
    assert all(figures[name] == found[name] and type(figures[name]) is float for name in figures)
    left = written.keys() - figures.keys() - {"round"}
    assert not [name for name in left if type(found[name]) in (int, float)]
    assert step_of(written) == number + 1


def test_every_setting_is_a_parameter(folder):
    found = parameters(folder)
    assert found["run.seed"] == "1"
    assert found["server.rule"] == "fedadam"
    assert len(found) > 50


def test_a_run_that_begins_in_an_old_ones_folder_hides_it(library, folder):
    follow([library.name], folder, ROWS)
    with open_tracking([library.name], folder, begins=True, done=None, say=refuse) as tracking:
        tracking.add(row(0, train_loss=9.0))
    if library.name == "tensorboard":
        read, _ = library.read(folder)
        assert read["train_loss"] == [(1, 9.0)]
    else:
        assert [run.data.metrics["train_loss"] for run in library.runs(folder)] == [9.0, 1.0]  # two runs


def test_event_files_that_cannot_be_begun_leave_nothing_and_the_next_one_has_all(folder, monkeypatch):
    library = Tensorboard()
    from kbdfl.tracking.tensorboard import event_file_writer

    def full(self):
        self._py_recordio_writer.close()
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(event_file_writer.EventsWriter, "flush", full)
        with pytest.raises(ConfigError, match="no space left"):
            open_tracking(["tensorboard"], folder, begins=True, done=None, say=refuse)
    assert list((folder / "tensorboard").iterdir()) == []
    with open_tracking(["tensorboard"], folder, begins=False, done=None, say=refuse) as tracking:
        tracking.add(ROWS[0])
    found = library.events.EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    assert [name for name in found.Tags()["tensors"] if "config" in name]


def test_an_mlflow_run_without_its_settings_is_taken_back_or_completed(folder, monkeypatch):
    library = Mlflow()
    from kbdfl.tracking import mlflow

    def away(self, run_id, *, params=(), metrics=()):
        raise OSError("nobody is there")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "log_batch", away)
        with pytest.raises(ConfigError, match="nobody is there"):
            open_tracking(["mlflow"], folder, begins=True, done=None, say=refuse)
        assert library.runs(folder) == []
        patch.setattr(mlflow.MlflowClient, "delete_run", away)  # as if it were killed there
        with pytest.raises(ConfigError, match="nobody is there"):
            open_tracking(["mlflow"], folder, begins=True, done=None, say=refuse)
    follow_on = open_tracking(["mlflow"], folder, begins=False, done=None, say=refuse)
    with follow_on as tracking:
        tracking.add(ROWS[0])
    (run,) = library.runs(folder)
    assert run.data.params == parameters(folder)
