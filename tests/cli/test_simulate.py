"""`kbdfl simulate`: its folder, its bytes, and what it refuses."""

import json
from pathlib import Path

import pytest

from kbdfl.device_sim.typing.sources import is_held_out
from kbdfl.export.bundle import load_bundle
from kbdfl.export.run import read_run
from kbdfl.run import RunConfig

RUN = ["--preset", "tiny", "--source", "personas", "--devices", "200", "--rounds", "5"]
QUICK = ["--preset", "tiny", "--source", "personas", "--devices", "30", "--rounds", "2", "--cohort", "3"]


@pytest.fixture
def simulate(kbdfl, tmp_path):
    """Run the command with --json below tmp_path/runs; gives the printed object and the run's folder."""

    def run(name, *arguments):
        code, out, err = kbdfl("simulate", *arguments, "--runs", tmp_path / "runs", "--name", name, "--json")
        assert (code, err) == (0, "")
        return json.loads(out), tmp_path / "runs" / name

    return run


def test_workers_do_not_change_a_byte_and_the_seed_does(
    simulate, tmp_path, final_checkpoint, without_seconds
):
    _, one = simulate("one", *RUN, "--seed", 1, "--workers", 1)
    _, two = simulate("two", *RUN, "--seed", 1, "--workers", 2)
    assert final_checkpoint(one) == final_checkpoint(two)
    assert without_seconds(one) == without_seconds(two)
    assert (one / "model" / "model.onnx").read_bytes() == (two / "model" / "model.onnx").read_bytes()
    _, other = simulate("other", *RUN, "--seed", 2, "--workers", 2)
    assert final_checkpoint(other) != final_checkpoint(one)


def test_a_runs_own_config_runs_again_to_the_same_bytes(simulate, final_checkpoint, without_seconds):
    """Every option that is not a default must have been written down."""
    _, first = simulate(
        "first", *QUICK, "--dropout", 0.2, "--min-reports", 1, "--seed", 7, "--epochs", 2, "--client-lr", 1.5,
        "--over-selection", 2, "--algorithm", "fedavg", "--upload", "float32", "--update-clip-norm", 0.5,
        "--max-weight", 3, "--vocabulary", "training-users", "--speeds", "tiers", "--availability", "nightly",
    )  # fmt: skip
    _, again = simulate("again", "--config", first / "config.toml")
    assert (first / "config.toml").read_bytes() == (again / "config.toml").read_bytes()
    assert final_checkpoint(first) == final_checkpoint(again)
    assert without_seconds(first) == without_seconds(again)


def test_a_secure_task_runs_again_to_the_same_bytes_and_its_bundle_says_what_it_was(
    simulate, final_checkpoint
):
    options = ["--secure", "--secure-devices", 5, "--update-clip-norm", 1, "--cohort", 6, "--min-reports", 5]
    options += ["--dropout", 0.1, "--upload", "rotate-shared+shared:0.25+fixed:7"]
    printed, first = simulate("first", *QUICK, *options)
    _, again = simulate("again", "--config", first / "config.toml")
    assert final_checkpoint(first) == final_checkpoint(again)
    assert printed["committed"] == 2
    said = load_bundle(first / "model").manifest["privacy"]
    assert said == printed["privacy"]
    assert "no single update was readable; the server saw sums over at least 5 phones" in said
    assert said.endswith("This was a simulation: its sums were made without masks.")


def test_the_folder_holds_everything_and_the_printed_object_sums_it_up(simulate, without_seconds):
    printed, folder = simulate("whole", *QUICK, "--evaluate-every", 1)
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "config.toml",
        "fleet.json",
        "metrics.jsonl",
        "report.html",
        "tokenizer.json",
        "checkpoints/000002.safetensors",
        "model/model.onnx",
        "model/tokenizer.json",
        "model/manifest.json",
    }
    rows = without_seconds(folder)
    assert [row["round"] for row in rows] == [0, 1]
    assert printed["run"] == str(folder)
    assert printed["devices"] == 30
    assert Path(printed["checkpoint"]) == folder / "checkpoints" / "000002.safetensors"
    assert (printed["rounds"], printed["committed"], printed["abandoned"], printed["reports"]) == (2, 2, 0, 6)
    assert printed["recall_top1"] == rows[-1]["recall_top1"]
    assert printed["uplink_bytes_per_report"] == round(sum(row["uplink_bytes"] for row in rows) / 6)
    assert RunConfig.load(folder / "config.toml").settings.devices == 30
    assert read_run(folder).facts["version"] == 2
    manifest = load_bundle(folder / "model").manifest
    assert (manifest["rounds"], manifest["preset"], manifest["precision"]) == (2, "tiny", "float32")
    page = (folder / "report.html").read_text()
    assert "kbdfl run whole" in page
    assert "<script src=" not in page  # self-contained


def test_text_output_is_a_line_a_fact(kbdfl, tmp_path):
    code, out, err = kbdfl("simulate", *QUICK, "--runs", tmp_path)
    assert (code, err) == (0, "")
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert facts["reports"] == "6"
    assert Path(facts["run"]).name.startswith("simulate-tiny-")


def test_cohort_may_be_a_fraction(simulate):
    printed, folder = simulate("share", *QUICK[:-2], "--cohort", "0.2")
    assert printed["reports"] == 2 * 6
    assert RunConfig.load(folder / "config.toml").rule.cohort == 6


def test_dropouts_are_in_the_rows(simulate, without_seconds):
    _, folder = simulate("drops", *QUICK, "--rounds", 8, "--dropout", 0.5, "--min-reports", 1)
    rows = without_seconds(folder)
    assert sum(row["dropped"] for row in rows) > 8
    assert all(row["reports"] + row["dropped"] == 4 for row in rows)


def names(held_out, count):
    return [f"u{i}" for i in range(1000) if is_held_out(f"u{i}") == held_out][:count]


def write_log(path, texts):
    path.write_text("".join(json.dumps({"user": u, "text": t}) + "\n" for u in texts for t in texts[u]))
    return path


def test_users_with_one_message_each_can_learn(simulate, tmp_path):
    users = names(False, 8) + names(True, 2)
    log = write_log(tmp_path / "log.jsonl", {user: ["see you later today"] for user in users})
    printed, _ = simulate("one-each", "--preset", "tiny", "--logs", log, "--rounds", 2, "--cohort", 4)
    assert (printed["devices"], printed["reports"]) == (8, 8)


BAD_OPTIONS = {
    "an unknown preset": (["--preset", "huge"], "preset must be one of tiny, small, chat, gboard, got huge"),
    "an unknown algorithm": (["--algorithm", "sgd"], "algorithm must be one of"),
    "an unknown upload": (["--upload", "pigeon"], "upload must be one of"),
    "an unknown vocabulary": (["--vocabulary", "secret"], "vocabulary must be one of"),
    "an unknown source": (["--source", "nowhere"], "a source must be chat, personas or a .jsonl"),
    "a cohort of 0": (["--cohort", "0"], "cohort must be >= 1, got 0"),
    "a cohort of nan": (["--cohort", "nan"], "cohort must be a number"),
    "a cohort larger than the fleet": (["--cohort", "31"], "at most the 30 phones that take part, got 31"),
    "a share above one": (["--cohort", "1.01"], "must lie in (0, 1]"),
    "a share of every user": (["--cohort", "0.5", "--devices", "0"], "needs --devices"),
    "negative rounds": (["--rounds", "-1"], "rounds must be >= 1, got -1"),
    "negative devices": (["--devices", "-1"], "devices must be >= 0, got -1"),
    "endless devices": (["--devices", str(10**18)], "devices must lie in"),
    "a negative seed": (["--seed", "-1"], "seed must be >= 0, got -1"),
    "an unknown speed": (["--speeds", "fast"], "speeds must be one of equal, tiers, heavy-tailed, got fast"),
    "an unknown availability": (["--availability", "never"], "availability must be one of always, nightly"),
    "a dropout of 1": (["--dropout", "1"], "dropout must lie in [0, 1), got 1.0"),
    "a dropout of nan": (["--dropout", "nan"], "dropout must lie in [0, 1), got nan"),
    "no workers": (["--workers", "0"], "workers"),
    "no over-selection": (["--over-selection", "0.5"], "over_selection must lie in [1, 10], got 0.5"),
    "more reports than the cohort": (["--min-reports", "4"], "min_reports must lie in"),
    "no time": (["--deadline-s", "0"], "deadline_s must be > 0"),
    "no epochs": (["--epochs", "0"], "epochs must be >= 1, got 0"),
    "empty batches": (["--batch-size", "0"], "batch_size must be >= 1, got 0"),
    "no messages": (["--max-messages", "0"], "max_messages must be >= 1, got 0"),
    "a client rate of nan": (["--client-lr", "nan"], "learning_rate must be > 0 and finite, got nan"),
    "a server rate of 0": (["--server-lr", "0"], "learning_rate must be > 0 and finite, got 0.0"),
    "a negative clip": (["--clip-norm", "-1"], "clip_norm must be >= 0"),
    "an update clip of nan": (["--update-clip-norm", "nan"], "clip_norm must be"),
    "more faulty than the cohort bears": (
        ["--aggregate", "krum", "--faulty", "1"],
        "cohort if that is 0, must be >= 5 for Krum(faulty=1, keep=0), got 3",
    ),
    "no weight": (["--max-weight", "0"], "max_weight must be >= 1, got 0"),
    "no evaluation": (["--evaluate-every", "0"], "evaluate_every must be >= 1, got 0"),
    "a name that is a path": (["--name", "../up"], "a run's name must be"),
    "an empty name": (["--name", ""], "a run's name must be"),
    "a name of two lines": (["--name", "a\nb"], "a run's name must be"),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_impossible_options_are_one_line_and_leave_nothing(refused, tmp_path, name):
    options, reason = BAD_OPTIONS[name]
    runs = tmp_path / "runs"
    assert reason in refused("simulate", *QUICK, "--runs", runs, *options)
    assert not runs.exists()


BAD_FILES = {
    "not TOML": ("run = [", "is not TOML"),
    "no text": (b"\xff\xfe\x00", "is not TOML"),
    "an unknown table": ("[runs]\nseed = 1\n", "runs"),
    "an unknown field": ("[run]\nsede = 1\n", "sede"),
    "a field that is no field of its table": ("[client]\nseed = 1\n", "seed"),
    "words for a number": ('[round]\ncohort = "ten"\n', "round.cohort must be int"),
    "a fraction for a number": ("[round]\nrounds = 2.5\n", "round.rounds must be int"),
    "true for a number": ("[run]\ndevices = true\n", "run.devices must be int"),
    "a number for a table": ("run = 3\n", "run must be a table"),
    "a number for the server": ("server = 3\n", "server"),
    "a list for a table": ("[[round]]\ncohort = 3\n", "round must be a table"),
    "an unknown rule": ('[server]\nrule = "fedsgd"\n', "fedsgd"),
    "a rule that is no word": ("[server]\nrule = [1]\n", "rule"),
    "another rule's field": ('[server]\nrule = "fedavg"\nbeta1 = 0.9\n', "beta1"),
    "an impossible value": ("[run]\ndropout = 2.0\n", "dropout must lie in"),
    "a date": ("[run]\nseed = 2024-01-01\n", "run.seed must be int"),
    "very deep": ("a = " + "[" * 20_000, ""),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_configuration_file_is_one_line(refused, tmp_path, name):
    content, reason = BAD_FILES[name]
    file = tmp_path / "config.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert reason in refused("simulate", "--config", file, "--runs", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_configuration_that_is_not_there_is_one_line(refused, tmp_path):
    assert "no configuration file at" in refused("simulate", "--config", tmp_path / "none.toml")
    assert str(tmp_path) in refused("simulate", "--config", tmp_path)  # a folder


BAD_LOGS = {
    "missing": None,
    "empty": "",
    "blank": "\n\n",
    "not JSON": "hello\n",
    "a list": "[1]\n",
    "no text": '{"user": "a"}\n',
    "text of numbers": '{"user": "a", "text": 3}\n',
    "binary": "\x00\x01\n",
    "cut": '{"user": "a", "text": "hi"}\n{"user": "b", "te',
}


@pytest.mark.parametrize("name", BAD_LOGS)
def test_a_bad_log_is_one_line(refused, tmp_path, name):
    log = tmp_path / "log.jsonl"
    if BAD_LOGS[name] is not None:
        log.write_text(BAD_LOGS[name])
    assert "log.jsonl" in refused("simulate", "--preset", "tiny", "--logs", log, "--runs", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_damaged_gzip_log_is_one_line(refused, tmp_path):
    log = tmp_path / "log.jsonl.gz"
    log.write_bytes(b"\x1f\x8b\x08\x00 no gzip at all")
    assert "log.jsonl.gz" in refused("simulate", "--preset", "tiny", "--logs", log)


def test_a_log_of_one_kind_of_user_is_one_line(refused, tmp_path):
    options = ("--preset", "tiny", "--runs", tmp_path / "runs", "--cohort", 1, "--logs")
    log = write_log(tmp_path / "log.jsonl", {user: ["see you"] for user in names(False, 3)})
    assert "no held-out users" in refused("simulate", *options, log)
    log = write_log(tmp_path / "log.jsonl", {user: ["see you"] for user in names(True, 3)})
    assert "no training users" in refused("simulate", *options, log)


def test_a_log_without_words_is_one_line(refused, tmp_path):
    users = names(False, 4) + names(True, 2)
    options = ("--preset", "tiny", "--runs", tmp_path / "runs", "--cohort", 1, "--logs")
    log = write_log(tmp_path / "log.jsonl", {user: ["... !?"] for user in users})
    assert "no words" in refused("simulate", *options, log)
    assert "no words" in refused("simulate", *options, log, "--vocabulary", "training-users")
    unknown = {user: ["see you" if is_held_out(user) else "zyzzyva"] for user in users}
    log = write_log(tmp_path / "log.jsonl", unknown)
    assert "none has a log with words that the model knows" in refused("simulate", *options, log)


def test_more_devices_than_users_is_one_line(refused, tmp_path):
    log = write_log(tmp_path / "log.jsonl", {user: ["see you"] for user in names(False, 3) + names(True, 1)})
    line = refused("simulate", "--preset", "tiny", "--logs", log, "--devices", 4)
    assert "devices must be at most the 3 training users of log.jsonl, got 4" in line


def test_a_name_that_is_taken_is_one_line_and_harms_nothing(refused, simulate, tmp_path, final_checkpoint):
    _, folder = simulate("mine", *QUICK)
    before = final_checkpoint(folder)
    assert "choose another --name" in refused(
        "simulate", *QUICK, "--runs", tmp_path / "runs", "--name", "mine"
    )
    assert final_checkpoint(folder) == before


def test_a_place_where_nothing_can_be_written_is_one_line(refused, tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    assert "file" in refused("simulate", *QUICK, "--runs", file)
    assert "file" in refused("simulate", *QUICK, "--runs", file / "below")
