"""audit.json in the report and as text: a table, an example and figures; or one line of refusal."""

import json

import pytest

from kbdfl.errors import DataError
from kbdfl.report import write_report
from kbdfl.report.audit import AUDIT, audit_section, read_audit, summary_lines
from kbdfl.run import RunConfig, RunFolder

EXAMPLE = {"right": ["old", "mill"], "wrong": ["<b>weir</b>"], "wrong_words": 14}
READ = {"precision": 0.9, "recall": 0.8, "f1": 0.85, "auc": 0.99, "example": EXAMPLE}
NOTHING = READ | {"f1": 0.01, "auc": 0.5, "example": {"right": [], "wrong": [], "wrong_words": 0}}
FINDING = {"claimed_epsilon": 5.0, "lower_epsilon": 2.5, "refuted": False, "game": "alone"}
DOCUMENT = {
    "format": 1, "version": 7, "phones": 41, "delta": 1e-6,
    "example": {"sentence": "the old mill & more", "known": ["the", "old", "mill"]},
    "modes": {
        "plain": READ | {"counts_auc": 0.86},
        "compressed": {"int8": READ},
        "masked": NOTHING | {"phones": 41, "sum": {"precision": 1.0, "recall": 0.5, "f1": 0.66}},
        "noised": NOTHING | {"auc": None},
    },
    "verdicts": {"masked frames say nothing": True, "every planted fault is caught": False},
}  # fmt: skip
ARM = {"mean_bits": 11.5, "bits": [11.0, 12.0], "recall_top1": 0.08}
NOISE = {
    "canary": {
        "secrets": 2, "secret_bits": 12.0, "null_limit_bits": 3.5,
        "control": ARM, "clip_alone": ARM, "protected": ARM | {"mean_bits": 1.0},
    },
    "membership": {"plain_auc": 0.8, "protected_auc": 0.5, "cohort": 8},
    "mechanism": FINDING,
    "planted": {"half noise": FINDING | {"refuted": True, "lower_epsilon": 7.5}, "no clip": FINDING},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder.create(tmp_path, "audited", default="x")
    folder.write_config(RunConfig().to_toml())
    return folder


def test_the_report_has_a_section_of_what_the_server_could_read(folder):
    (folder.path / AUDIT).write_text(json.dumps(DOCUMENT | NOISE))
    write_report(folder)
    page = (folder.path / "report.html").read_text("utf-8")
    assert page.count("What the server could read") == 1
    assert "An example: “the old mill &amp; more”" in page
    assert page.count("<mark>mill</mark>") == 3  # typed, read plain, read compressed
    assert "&lt;b&gt;weir&lt;/b&gt; and 13 more" in page
    assert page.count("<i>not one of them</i>") == 2
    assert page.index("plain, float32") < page.index("masked, one of 41") < page.index("noised, the sum")
    assert "✗ not so:</b> every planted fault is caught" in page


def test_plots_have_ids_of_their_own(folder):
    (folder.path / AUDIT).write_text(json.dumps(DOCUMENT | NOISE))
    write_report(folder)
    page = (folder.path / "report.html").read_text("utf-8")
    ids = [part.split('"')[0] for part in page.split('<div id="')[1:]]
    assert len([name for name in ids if name.startswith("plot-")]) == len(set(ids)) == 6


def test_a_report_without_an_audit_has_no_such_section(folder):
    write_report(folder)
    assert "could read" not in (folder.path / "report.html").read_text("utf-8")


def test_an_audit_of_some_modes_shows_these():
    some = DOCUMENT | {"modes": {"masked": DOCUMENT["modes"]["masked"]}}
    assert "plain" not in audit_section(some, first=0)
    assert "Does the noise hold" not in audit_section(some, first=0)


def test_the_text_has_a_line_a_mode_and_the_verdicts():
    lines = summary_lines(DOCUMENT | NOISE)
    assert [line.split()[-1] for line in lines[1:4]] == ["0.990", "0.860", "0.990"]
    assert "typed: the old mill & more" in lines
    assert any(line.endswith("old mill; beside 14 that were not typed") for line in lines)
    assert "planted: half noise: caught by “alone”, measured > 7.50, claimed 5.00" in lines
    assert "planted: no clip: NOT caught, measured > 2.50, claimed 5.00" in lines
    assert lines[-2:] == ["yes  masked frames say nothing", "NO   every planted fault is caught"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "must be an audit of format 1"),
        ('{"format": 2}', "must be an audit of format 1"),
        ('{"format": 1}', "lacks what an audit says"),
        (json.dumps(DOCUMENT | {"example": 3}), "lacks what an audit says"),
        (json.dumps(DOCUMENT | {"modes": {"plain": {"f1": "much"}}}), "lacks what an audit says"),
    ],
)
def test_what_is_no_audit_is_refused_in_a_line(tmp_path, text, message):
    path = tmp_path / AUDIT
    path.write_text(text)
    with pytest.raises(DataError, match=message) as refused:
        read_audit(path)
    assert "\n" not in str(refused.value)


def test_an_audit_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_audit(tmp_path / AUDIT)
