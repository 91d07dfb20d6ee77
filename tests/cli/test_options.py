"""The options of a run: what becomes of them, and that a configuration file is a beginning, not an end."""

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.algorithms import (
    DeadlineAware,
    Download,
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
from kbdfl.cli.options import run_options
from kbdfl.errors import ConfigError
from kbdfl.model import PRESETS
from kbdfl.options import SERVER_RATES, config_from
from kbdfl.run import RunConfig


@click.command()
@run_options
def command(**options):
    """Gives back what it got."""
    return options


def config(*arguments, **more):
    options = command.main([str(argument) for argument in arguments], standalone_mode=False)
    return config_from(options | more)


def test_nothing_asked_for_is_the_defaults_with_the_presets_server_rate():
    made = config()
    plain = RunConfig()
    assert made.settings == plain.settings
    assert made.rule == plain.rule
    assert made.algorithm.client == plain.algorithm.client
    assert made.algorithm.server == FedAdam(
        SERVER_RATES[plain.settings.preset], decay_rounds=plain.rule.rounds
    )


def test_every_preset_has_a_server_rate():
    assert SERVER_RATES.keys() == PRESETS.keys()
    for preset, rate in SERVER_RATES.items():
        assert config("--preset", preset).algorithm.server.learning_rate == rate


def test_every_option_reaches_its_field():
    asked = """
        --preset tiny --source chat --devices 50 --vocabulary training-users --evaluate-every 3 --seed 9
        --rounds 7 --cohort 5 --over-selection 1.5 --min-reports 2 --deadline-s 11
        --server-lr 0.5 --epochs 2 --batch-size 8 --client-lr 0.25 --clip-norm 0 --max-messages 33
        --candidates 400 --report-words 800 --local-steps 4 --client-momentum 0.5 --proximal 0.75
        --final-client-lr 0.125 --client-decay-rounds 6 --partial-work
        --upload float32 --update-clip-norm 1.25 --max-weight 10 --weights sqrt
        --aggregate krum --faulty 2 --keep 4 --selection deadline --min-separation 6 --target-s 5.5
    """
    made = config(*asked.split(), dropout=0.125)
    s, c, r, a = made.settings, made.algorithm.client, made.rule, made.algorithm
    assert (s.preset, s.source, s.devices, s.vocabulary) == ("tiny", "chat", 50, "training-users")
    assert (s.evaluate_every, s.seed, s.dropout) == (3, 9, 0.125)
    assert (r.rounds, r.cohort, r.over_selection, r.min_reports, r.deadline_s) == (7, 5, 1.5, 2, 11)
    assert (c.epochs, c.batch_size, c.learning_rate, c.clip_norm, c.max_messages) == (2, 8, 0.25, 0, 33)
    assert (c.candidates, c.report_words) == (400, 800)
    assert (c.steps, c.momentum, c.proximal) == (4, 0.5, 0.75)
    assert (c.final_learning_rate, c.decay_rounds, c.partial_work) == (0.125, 6, True)
    assert (a.upload, a.update_clip_norm, a.max_weight) == ("float32", 1.25, 10)
    assert (a.weights, a.aggregate) == ("sqrt", Krum(faulty=2, keep=4))
    assert a.selection == DeadlineAware(target_s=5.5, min_separation=6)
    assert a.server == FedAdam(learning_rate=0.5, decay_rounds=7)


def test_the_way_down_and_the_way_up_by_name():
    made = config("--download", "grid", "--download-steps", 2, "--upload", "topk:0.25+int4").algorithm
    assert made.download == Download("grid", steps=2)
    assert made.upload == "topk:0.25+int4"
    client = config("--report-words", 300, "--partial-model", "--feedback-rounds", 5).algorithm.client
    assert (client.report_words, client.partial_model, client.feedback_rounds) == (300, True, 5)
    with pytest.raises(ConfigError, match="--download-steps must come with --download grid, got float32"):
        config("--download-steps", 2)
    with pytest.raises(ConfigError, match="partial_model needs report_words > 0"):
        config("--partial-model")


def test_secure_aggregation_brings_an_upload_and_weights_that_can_be_summed(tmp_path):
    asked = ["--secure", "--update-clip-norm", 1, "--cohort", 40, "--min-reports", 33]
    made = config(*asked, "--secure-devices", 36, "--secure-dropout", 0.25, "--phase-deadline-s", 9).algorithm
    assert made.secure == SecureAggregation(True, devices=36, dropout=0.25, phase_deadline_s=9.0)
    assert (made.upload, made.weights) == ("summable", "uniform")
    fewer = "rotate-shared+shared:0.125+fixed:3"
    assert config(*asked, "--upload", fewer).algorithm.upload == fewer
    file = tmp_path / "config.toml"
    file.write_text(config(*asked, "--upload", fewer).to_toml())
    again = config("--config", file, "--phase-deadline-s", 4).algorithm
    assert (again.upload, again.secure.on, again.secure.phase_deadline_s) == (fewer, True, 4.0)
    with pytest.raises(ConfigError, match="update_clip_norm must be > 0 with fixed"):
        config("--secure")
    with pytest.raises(ConfigError, match="phase_deadline_s must come with secure aggregation"):
        config("--phase-deadline-s", 9)
    with pytest.raises(ConfigError, match="int8 differs from phone to phone"):
        config(*asked, "--upload", "int8")


def test_scaffold_by_name_or_by_option():
    by_name = config("--algorithm", "scaffold", "--control-rounds", 50).algorithm
    assert (by_name.client.scaffold, by_name.client.control_rounds) == (2, 50)
    assert config("--algorithm", "scaffold", "--scaffold", 1).algorithm.client.scaffold == 1
    with pytest.raises(ConfigError, match=r"momentum must be 0 with scaffold, got 0\.5"):
        config("--algorithm", "scaffold", "--client-momentum", 0.5)


def test_an_algorithm_by_name():
    assert isinstance(config("--algorithm", "fedavg").algorithm.server, FedAvg)
    assert config("--algorithm", "fedavg", "--server-lr", 0.5).algorithm.server == FedAvg(0.5)
    assert config("--algorithm", "fedavgm").algorithm.server == FedAvgM()
    yogi = config("--algorithm", "fedyogi", "--preset", "tiny", "--rounds", 8).algorithm.server
    assert yogi == FedYogi(SERVER_RATES["tiny"], decay_rounds=8)
    with pytest.raises(ConfigError, match=r"algorithm must be one of fedavg, .*fedadam.*, got sgd"):
        config("--algorithm", "sgd")


def test_an_aggregate_by_name(tmp_path):
    assert config().algorithm.aggregate == Mean()
    assert config("--aggregate", "median").algorithm.aggregate == Median()
    assert config("--aggregate", "trimmed-mean", "--faulty", 3).algorithm.aggregate == TrimmedMean(3)
    file = tmp_path / "config.toml"
    file.write_text(config("--aggregate", "krum", "--keep", 3).to_toml())
    assert config("--config", file, "--faulty", 2).algorithm.aggregate == Krum(faulty=2, keep=3)


def test_a_selection_by_name(tmp_path):
    assert config().algorithm.selection == Uniform()
    assert config("--min-separation", 4).algorithm.selection == Uniform(4)
    file = tmp_path / "config.toml"
    file.write_text(config("--selection", "oort", "--algorithm", "fedbuff").to_toml())
    assert config("--config", file, "--min-separation", 2).algorithm.selection == Oort(min_separation=2)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--selection", "best"], "selection must be one of uniform, available, deadline, oort, got 'best'"),
        (
            ["--target-s", 5],
            r"--target-s must come with another --selection, got Uniform\(min_separation=0\)",
        ),
        (["--min-separation", -1], "min_separation must be >= 0, got -1"),
        (["--aggregate", "mode"], "aggregate must be one of mean, median, trimmed-mean, krum, got 'mode'"),
        (["--faulty", 1], r"--faulty must come with another --aggregate, got Mean\(\)"),
        (["--aggregate", "trimmed-mean", "--keep", 1], "--keep must come with another --aggregate, got Tri"),
        (["--aggregate", "krum", "--faulty", -1], "faulty must be >= 0, got -1"),
        (["--weights", "mine"], "weights must be one of examples, uniform, sqrt, got 'mine'"),
    ],
)
def test_an_impossible_aggregate_is_refused(options, reason):
    with pytest.raises(ConfigError, match=reason):
        config(*options)


def test_fedbuff_and_its_numbers(tmp_path):
    assert config().algorithm.mode == Synchronous()
    made = config("--algorithm", "fedbuff", "--preset", "tiny", "--rounds", 8)
    assert made.algorithm.mode == FedBuff()
    assert made.algorithm.server == FedAdam(SERVER_RATES["tiny"], decay_rounds=8)
    numbers = ["--concurrency", 6, "--max-staleness", 3, "--staleness-exponent", 0.25]
    made = config("--algorithm", "fedbuff", *numbers)
    assert made.algorithm.mode == FedBuff(concurrency=6, max_staleness=3, exponent=0.25)
    file = tmp_path / "config.toml"
    file.write_text(made.to_toml())
    assert config("--config", file) == made
    again = config("--config", file, "--max-staleness", 0)
    assert again.algorithm.mode == FedBuff(concurrency=6, max_staleness=0, exponent=0.25)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--concurrency", 6], r"--concurrency, .* must come with fedbuff, got Synchronous\(\)"),
        (["--algorithm", "fedavg", "--staleness-exponent", 1], "must come with fedbuff"),
        (["--algorithm", "fedbuff", "--concurrency", 0], "concurrency must be >= 1, got 0"),
        (["--algorithm", "fedbuff", "--over-selection", 2], "--over-selection must not come with fedbuff"),
        (["--algorithm", "fedbuff", "--scaffold", 2], "scaffold must be 0 with fedbuff"),
        (["--algorithm", "fedbuff", "--report-words", 9], "report_words must be 0 with fedbuff"),
        (["--algorithm", "fedbuff", "--aggregate", "median"], "aggregate must be mean with fedbuff"),
    ],
)
def test_what_does_not_go_with_a_mode_is_refused(options, reason):
    with pytest.raises(ConfigError, match=reason):
        config(*options)


def test_logs_is_another_name_of_source():
    assert (
        config("--logs", "a.jsonl").settings.source
        == config("--source", "a.jsonl").settings.source
        == "a.jsonl"
    )


def test_a_file_is_the_beginning_and_options_change_it(tmp_path):
    file = tmp_path / "config.toml"
    first = config("--preset", "tiny", "--rounds", 9, "--cohort", 3, "--server-lr", 0.125, dropout=0.5)
    file.write_text(first.to_toml())
    assert config("--config", file) == first
    changed = config("--config", file, "--cohort", 4, "--epochs", 2)
    assert changed.rule.cohort == 4
    assert changed.algorithm.client.epochs == 2
    assert changed.settings == first.settings
    assert changed.algorithm.server == first.algorithm.server


@pytest.mark.parametrize(
    ("cohort", "devices", "expected"),
    [
        ("5", 0, 5),
        ("1", 100, 1),
        ("1.0", 100, 100),
        ("0.01", 1000, 10),
        ("0.07", 100, 7),
        ("0.29", 100, 29),
        ("0.001", 100, 1),
        (".5", 3, 2),
        ("1e-2", 200, 2),
        ("5E-1", 10, 5),
    ],
)
def test_cohort_is_a_number_or_a_share_of_the_devices(cohort, devices, expected):
    assert config("--cohort", cohort, "--devices", devices).rule.cohort == expected


@given(percent=st.integers(1, 100), hundreds=st.integers(1, 500))
def test_a_share_in_whole_percent_is_exact(percent, hundreds):
    made = config("--cohort", f"{percent / 100:.2f}", "--devices", 100 * hundreds)
    assert made.rule.cohort == percent * hundreds


@given(text=st.text(max_size=20) | st.floats().map(str) | st.integers().map(str))
def test_any_text_as_a_cohort_is_a_number_or_refused(text):
    options = command.main([], standalone_mode=False) | {"cohort": text, "devices": 50}
    try:
        made = config_from(options)
    except ConfigError:
        return
    assert made.rule.cohort >= 1


@pytest.mark.parametrize(
    ("cohort", "reason"),
    [
        ("0", "cohort must be >= 1, got 0"),
        ("-3", "cohort must be >= 1, got -3"),
        ("0.0", "must lie in"),
        ("-0.5", "must lie in"),
        ("1.5", "must lie in"),
        ("1e3", "must lie in"),
        ("nan", "must be a number or a fraction"),
        ("inf", "must be a number or a fraction"),
        ("ten", "must be a number or a fraction"),
        ("", "must be a number or a fraction"),
        ("9" * 5000, "must be a number or a fraction"),
    ],
)
def test_an_impossible_cohort_is_refused(cohort, reason):
    with pytest.raises(ConfigError, match=reason) as error:
        config("--cohort", cohort, "--devices", 100)
    assert len(str(error.value)) < 300


def test_a_share_of_nobody_knows_how_many_is_refused():
    with pytest.raises(ConfigError, match="needs --devices"):
        config("--cohort", "0.1")


def test_phones_with_hours_of_their_own_are_told_to_wait_longer_unless_it_is_said():
    assert (config().rule.pace_s, config(availability="nightly").rule.deadline_s) == (1.0, 120.0)
    for availability in ("weekly", "hours.csv"):
        rule = config(availability=availability).rule
        assert (rule.pace_s, rule.deadline_s) == (900.0, 1_800.0)
    assert config("--pace-s", 5, availability="weekly").rule.pace_s == 5
    assert config("--deadline-s", 60, availability="weekly").rule.deadline_s == 60
