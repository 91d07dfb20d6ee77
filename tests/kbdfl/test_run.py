from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.algorithms import (
    WEIGHTS,
    Algorithm,
    AvailabilityAware,
    ClientRule,
    DeadlineAware,
    Download,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedBuff,
    FedYogi,
    Krum,
    Mean,
    Median,
    Oort,
    Synchronous,
    TrimmedMean,
    Uniform,
)
from kbdfl.algorithms.secure import SecureAggregation
from kbdfl.errors import ConfigError, DataError
from kbdfl.model import PRESETS
from kbdfl.params import load_checkpoint
from kbdfl.privacy import Privacy
from kbdfl.run import Built, RunConfig, RunFolder, Settings, build_task, checkpoint_facts
from kbdfl.task import RoundRule
from kbdfl.text import Vocabulary

POSITIVE = st.floats(1e-6, 1e6)
COUNTS = st.integers(1, 10_000)
SCHEDULE = {
    "learning_rate": POSITIVE,
    "final_learning_rate": POSITIVE,
    "decay_rounds": st.integers(0, 10_000),
}
BETA = st.floats(0, 0.999)
SERVERS = (
    st.builds(FedAvg, **SCHEDULE)
    | st.builds(FedAvgM, **SCHEDULE, momentum=BETA)
    | st.builds(FedAdagrad, **SCHEDULE, beta1=BETA, epsilon=POSITIVE)
    | st.builds(FedAdam, **SCHEDULE, beta1=BETA, beta2=BETA, epsilon=POSITIVE)
    | st.builds(FedYogi, **SCHEDULE, beta1=BETA, beta2=BETA, epsilon=POSITIVE)
)
AGGREGATES = (
    st.just(Mean())
    | st.just(Median())
    | st.builds(TrimmedMean, faulty=st.integers(0, 10))
    | st.builds(Krum, faulty=st.integers(0, 10), keep=st.integers(0, 20))
)
MODES = st.builds(
    FedBuff, concurrency=COUNTS, max_staleness=st.integers(0, 10_000), exponent=st.floats(0, 1e6)
)
WAYS = st.tuples(AGGREGATES, st.just(Synchronous())) | st.tuples(st.just(Mean()), MODES)
SELECTIONS = st.one_of(
    st.builds(Uniform, min_separation=st.integers(0, 1_000)),
    st.builds(AvailabilityAware, min_separation=st.integers(0, 1_000)),
    st.builds(DeadlineAware, target_s=POSITIVE, retry_rounds=COUNTS),
    st.builds(Oort, exploration=st.floats(0, 1), penalty=st.floats(0, 100), window=COUNTS),
)
CONFIGS = st.builds(
    RunConfig,
    settings=st.builds(
        Settings,
        seed=st.integers(0, 2**63 - 1),
        preset=st.sampled_from(sorted(PRESETS)),
        source=st.text(st.characters(codec="utf-8"), max_size=30),
        devices=st.integers(0, 10**6),
        vocabulary=st.sampled_from(["public", "training-users"]),
        dropout=st.floats(0, 0.99),
        evaluate_every=COUNTS,
        evaluate_words=COUNTS,
    ),
    algorithm=st.builds(
        lambda way, **rest: Algorithm(aggregate=way[0], mode=way[1], **rest),
        client=st.builds(
            ClientRule,
            epochs=COUNTS,
            batch_size=COUNTS,
            learning_rate=POSITIVE,
            clip_norm=st.floats(0, 1e6),
            max_messages=COUNTS,
            max_words=COUNTS,
        ),
        upload=st.sampled_from(["int8", "float32"]),
        update_clip_norm=st.just(0.0) | POSITIVE,
        server=SERVERS,
        weights=st.sampled_from(sorted(WEIGHTS)),
        max_weight=COUNTS,
        way=WAYS,
        selection=SELECTIONS,
    ),
    rule=st.builds(
        RoundRule,
        cohort=st.integers(100, 10_000),
        over_selection=st.floats(1, 10),
        min_reports=st.integers(0, 100),
        deadline_s=st.floats(1e6, 1e9, exclude_min=True),
        rounds=COUNTS,
        pace_s=POSITIVE,
        max_report_bytes=st.integers(0, 2**40),
    ),
)


@settings(max_examples=50, deadline=None)
@given(CONFIGS)
def test_a_run_reads_back_from_its_config_toml(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("run") / "config.toml"
    path.write_text(config.to_toml(), "utf-8")
    back = RunConfig.load(path)
    assert back == config
    assert back.to_toml() == config.to_toml()


def test_the_file_holds_every_field():
    document = read_toml_text(RunConfig().to_toml())
    assert set(document["run"]) == {field.name for field in fields(Settings)}
    assert set(document["client"]) == {field.name for field in fields(ClientRule)}
    assert set(document["round"]) == {field.name for field in fields(RoundRule)}
    assert set(document["server"]) == {"rule"} | {field.name for field in fields(FedAdam)}
    elsewhere = {
        "client",
        "server",
        "upload",
        "download",
        "aggregate",
        "mode",
        "selection",
        "privacy",
        "secure",
    }
    algorithm = {field.name for field in fields(Algorithm)} - elsewhere
    assert document["aggregate"] == {"rule": "mean"}
    assert document["mode"] == {"rule": "synchronous"}
    assert set(document["download"]) == {field.name for field in fields(Download)}
    assert document["selection"] == {"rule": "uniform", "min_separation": 0}
    assert set(document["secure"]) == {field.name for field in fields(SecureAggregation)}
    assert set(document["privacy"]) == {field.name for field in fields(Privacy)}
    assert set(document["upload"]) == algorithm | {"codec"}


def read_toml_text(text):
    import tomllib

    return tomllib.loads(text)


def test_an_empty_file_is_the_default_run(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("")
    assert RunConfig.load(path) == RunConfig()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"runs": {}}, "config.toml has an unknown table 'runs'"),
        ({"a\nb": 1}, r"unknown table 'a\\nb'"),
        ({"run": {"sed": 1}}, "run has no field 'sed'; its fields are seed, preset"),
        ({"run": {"seed": "1"}}, "run.seed must be int, got '1'"),
        ({"run": {"seed": -1}}, "seed must be >= 0, got -1"),
        ({"run": {"devices": -1}}, "devices must be >= 0, got -1"),
        ({"run": {"preset": "huge"}}, "preset must be one of tiny, small, chat, gboard, got huge"),
        ({"run": {"vocabulary": "mine"}}, "vocabulary must be one of public, training-users, got mine"),
        ({"run": {"speeds": "fast"}}, "speeds must be one of equal, tiers, heavy-tailed, got fast"),
        (
            {"run": {"availability": "never"}},
            "availability must be one of always, nightly, weekly, got never",
        ),
        ({"run": {"dropout": 1}}, r"dropout must lie in \[0, 1\), got 1"),
        ({"run": {"evaluate_every": 0}}, "evaluate_every must be >= 1, got 0"),
        ({"run": 3}, "run must be a table, got 3"),
        ({"client": {"epochs": True}}, "client.epochs must be int, got True"),
        ({"upload": {"codec": "morse"}}, "upload must be one of float32, int8, .*got 'morse'"),
        ({"upload": []}, "upload must be a table"),
        ({"server": 3}, "server must be a table, got 3"),
        ({"server": "fedavg"}, "server must be a table"),
        ({"server": {"rule": "sgd"}}, "server.rule must be one of fedavg, fedavgm, .*, fedyogi, got 'sgd'"),
        ({"server": {"rule": ["fedavg"]}}, "server.rule must be one of fedavg, fedavgm"),
        ({"server": {"rule": "fedavg", "beta1": 0.9}}, "server has no field 'beta1'"),
        ({"aggregate": "krum"}, "aggregate must be a table, got 'krum'"),
        (
            {"aggregate": {"rule": "mode"}},
            "aggregate.rule must be one of mean, median, trimmed-mean, krum, got 'mode'",
        ),
        ({"aggregate": {"rule": "median", "faulty": 1}}, "aggregate has no field 'faulty'"),
        ({"aggregate": {"rule": "krum", "faulty": -1}}, "faulty must be >= 0, got -1"),
        ({"upload": {"weights": "mine"}}, "weights must be one of examples, uniform, sqrt, got 'mine'"),
        ({"round": {"cohort": 0}}, "cohort must be >= 1, got 0"),
    ],
)
def test_a_document_that_describes_no_run_is_refused_in_one_line(document, message):
    with pytest.raises(ConfigError, match=message) as error:
        RunConfig.from_document(document, where="config.toml")
    assert "\n" not in str(error.value)


def test_reading_a_document_leaves_it_as_it_is():
    document = {"server": {"rule": "fedavg", "learning_rate": 2.0}}
    assert RunConfig.from_document(document, where="x").algorithm.server == FedAvg(2.0)
    assert document == {"server": {"rule": "fedavg", "learning_rate": 2.0}}


def tiny(**more) -> RunConfig:
    return RunConfig(settings=Settings(preset="tiny", **more))


def test_a_task_has_the_public_vocabulary_unless_asked_otherwise():
    def texts():
        raise AssertionError("the phones' messages were looked at")
        yield

    built = build_task(tiny(seed=7), training_texts=texts())
    assert built.task.config == PRESETS["tiny"]
    assert len(built.vocabulary) == 500
    assert built.task.vocabulary_sha256 == built.vocabulary.sha256
    assert built.task.seed == 7
    assert built.params.shape == (PRESETS["tiny"].spec.size,)
    assert "wordfreq" in built.vocabulary.source
    np.testing.assert_array_equal(built.params, build_task(tiny(seed=7)).params)
    assert not np.array_equal(built.params, build_task(tiny(seed=8)).params)


def test_a_vocabulary_counted_on_the_users_shapes_the_model_and_says_so():
    built = build_task(tiny(vocabulary="training-users"), training_texts=["see you", "see me"])
    assert built.vocabulary.tokens[4:] == ("see", "me", "you")
    assert built.task.config == replace(PRESETS["tiny"], vocab=7)
    assert built.params.shape == (built.task.config.spec.size,)
    assert "training users" in built.vocabulary.source
    bias = built.task.config.spec.views(built.params)["bias"]
    assert bias[4] - bias[5] == pytest.approx(np.log(2), rel=1e-5)
    facts = checkpoint_facts(tiny(vocabulary="training-users"), built, round=0, version=0)
    assert "training users" in facts["vocabulary_source"]


def test_a_vocabulary_cannot_be_counted_on_nothing():
    with pytest.raises(DataError, match="hold no words"):
        build_task(tiny(vocabulary="training-users"))


def test_a_secure_task_says_that_no_update_was_readable():
    secure = Algorithm(
        upload="summable", update_clip_norm=1.0, weights="uniform", secure=SecureAggregation(on=True)
    )
    config = RunConfig(Settings(preset="tiny"), secure, RoundRule(cohort=40, min_reports=33))
    facts = checkpoint_facts(config, build_task(config), round=0, version=0)
    assert "no single update was readable; the server saw sums over at least 33 phones" in facts["privacy"]
    assert "privacy" not in checkpoint_facts(RunConfig(), build_task(RunConfig()), round=0, version=0)


def test_checkpoint_facts_suffice_to_export(tmp_path):
    built = build_task(tiny(vocabulary="training-users"), training_texts=["see you", "see me"])
    config = tiny(source="/home/someone/logs.jsonl", vocabulary="training-users")
    facts = checkpoint_facts(config, built, round=4, version=3)
    assert facts["config"] == {"vocab": 7, "embed": 16, "hidden": 32}
    assert (facts["preset"], facts["round"], facts["version"]) == ("tiny", 4, 3)
    assert facts["data"] == "typing logs of the source logs.jsonl"  # the file, not whose home it is in
    folder = RunFolder.create(tmp_path, "one", default="x")
    path = folder.save(built.params, built, facts)
    assert path == tmp_path / "one" / "checkpoints" / "000003.safetensors"
    flat, spec, metadata = load_checkpoint(path)
    np.testing.assert_array_equal(flat, built.params)
    assert spec == built.task.config.spec
    assert facts.items() <= metadata.items()
    words = Vocabulary.load(folder.path / "tokenizer.json")
    assert words.sha256 == facts["vocabulary_sha256"] == built.vocabulary.sha256


def test_a_built_task_is_what_it_was_built_from():
    built = build_task(RunConfig(settings=Settings(preset="tiny"), rule=RoundRule(rounds=3)), name="mine")
    assert isinstance(built, Built)
    assert (built.task.name, built.task.rule.rounds) == ("mine", 3)
    assert built.task.algorithm == Algorithm()


def test_a_run_folder_has_the_name_it_is_given(tmp_path):
    folder = RunFolder.create(tmp_path / "deep" / "runs", "my-run_1.a", default="x")
    assert folder.path == tmp_path / "deep" / "runs" / "my-run_1.a"
    assert folder.checkpoints.is_dir()
    folder.write_config(tiny().to_toml())
    assert RunConfig.load(folder.path / "config.toml") == tiny()


def test_runs_without_a_name_never_meet(tmp_path):
    folders = {RunFolder.create(tmp_path, None, default="simulate-tiny").path.name for _ in range(4)}
    assert len(folders) == 4
    assert all(name.startswith("simulate-tiny-") for name in folders)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", ".hidden", "-x", "a b", "a\n", "a" * 101, "é"]
)
def test_a_name_that_is_no_folder_name_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="a run's name must be letters") as error:
        RunFolder.create(tmp_path, name, default="x")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_never_written_over(tmp_path):
    RunFolder.create(tmp_path, "one", default="x")
    (tmp_path / "two").mkdir()  # whatever it is
    for name in ("one", "two"):
        with pytest.raises(ConfigError, match=r"there is a run at .* already; choose another --name"):
            RunFolder.create(tmp_path, name, default="x")
    assert list((tmp_path / "two").iterdir()) == []


def test_runs_go_to_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"runs go to a folder, but .*file is a file"):
        RunFolder.create(tmp_path / "file", "one", default="x")
    with pytest.raises(ConfigError, match="no run folder can be made at"):
        RunFolder.create(tmp_path / "file" / "deeper", "one", default="x")


def test_rows_come_back_in_the_order_they_were_added(tmp_path):
    folder = RunFolder.create(tmp_path, "one", default="x")
    assert folder.rows() == []
    rows = [{"round": number, "train_loss": None if number else 0.1 + 0.2} for number in range(3)]
    for row in rows:
        folder.add_row(row)
    assert folder.rows() == rows
    assert RunFolder(folder.path).rows() == rows
    assert folder.metrics.read_text().count("\n") == 3
