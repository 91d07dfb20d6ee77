import json
import re
from html.parser import HTMLParser

import pytest

from kbdfl.errors import DataError
from kbdfl.export.predictor import Predictor
from kbdfl.report import finish_run, summarise, write_report
from kbdfl.run import RunConfig, RunFolder, Settings, build_task, checkpoint_facts

VOID = {"meta", "link", "br", "img", "input", "hr"}


def row(number, **changes):
    return {
        "round": number,
        "status": "committed",
        "version": number + 1,
        "reports": 4,
        "dropped": 1,
        "refused": 0,
        "staleness": None,
        "tokens": 100,
        "train_loss": 5.0 - number,
        "recall_top1": None,
        "recall_top3": None,
        "uplink_bytes": 4000,
        "downlink_bytes": 8001,
        "wall_s": 1.5 * (number + 1),
        "virtual_s": None,
        "epsilon": None,
    } | changes


ABANDONED = {"status": "abandoned", "reports": 0, "train_loss": None, "uplink_bytes": 0}
ROWS = [
    row(0, recall_top1=0.1, recall_top3=0.2),
    row(1, recall_top1=0.15, recall_top3=0.25),
    row(2),
    row(3, **ABANDONED),
]


def test_a_summary_adds_up_its_rows():
    assert summarise(ROWS) == {
        "rounds": 4,
        "committed": 3,
        "abandoned": 1,
        "reports": 12,
        "recall_top1": 0.15,
        "recall_top3": 0.25,
        "train_loss": 3.0,
        "uplink_bytes_per_report": 1000,
        "downlink_bytes_per_report": 2667,
        "socket_up_bytes_per_report": None,
        "socket_down_bytes_per_report": None,
        "wall_s": 6.0,
    }


def test_what_crossed_the_socket_is_summarised_and_shown(folder):
    rows = [row(n, socket_up_bytes=5000 + n, socket_down_bytes=9000, socket_devices=4) for n in range(2)]
    for line in rows:
        folder.add_row(line)
    summary = write_report(folder)
    assert (summary["socket_up_bytes_per_report"], summary["socket_down_bytes_per_report"]) == (1250, 2250)
    page = (folder.path / "report.html").read_text("utf-8")
    assert page.count("a report at the socket, heads included") == 2


def test_a_run_without_a_report_is_summarised_too():
    nothing = summarise([row(0, **ABANDONED)])
    assert (nothing["rounds"], nothing["committed"], nothing["reports"]) == (1, 0, 0)
    assert nothing["uplink_bytes_per_report"] is None
    assert nothing["recall_top1"] is None
    assert summarise([])["wall_s"] == 0.0


class Page(HTMLParser):
    """Checks that tags close in order and remembers the text and whatever would be fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.fetched = [], "", []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        self.fetched += [value for name, value in attributes if name in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "script" not in self.open:
            self.text += data


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder.create(tmp_path, "a.run", default="x")
    folder.write_config(RunConfig(settings=Settings(preset="tiny", source="<b>logs</b>.jsonl")).to_toml())
    return folder


@pytest.mark.parametrize("rows", [ROWS, [row(0, **ABANDONED)], []], ids=["four rounds", "abandoned", "none"])
def test_a_report_is_one_page_that_fetches_nothing(folder, rows):
    for line in rows:
        folder.add_row(line)
    assert write_report(folder) == summarise(rows)
    page = Page()
    page.feed((folder.path / "report.html").read_text("utf-8"))
    page.close()
    assert page.open == []
    assert page.fetched == []
    assert "kbdfl run a.run" in page.text
    assert f"{summarise(rows)['committed']} of {len(rows)}" in page.text
    assert "<b>logs</b>.jsonl" in page.text  # shown as written, not as a tag


def test_staleness_is_plotted_where_there_is_any(folder):
    folder.add_row(row(0))
    write_report(folder)
    assert "Staleness" not in (folder.path / "report.html").read_text("utf-8")
    folder.add_row(row(1, staleness=0.5))
    write_report(folder)
    assert "Staleness" in (folder.path / "report.html").read_text("utf-8")


def drawn(folder):
    """The traces of each plot of report.html."""
    html = (folder.path / "report.html").read_text("utf-8")
    return [
        json.loads(data) for data in re.findall(r'Plotly\.newPlot\(\s*"plot-\d+",\s*(\[.*?\]),\s*\{"', html)
    ]


def test_a_report_plots_what_the_rows_say(folder):
    for line in ROWS:
        folder.add_row(line)
    write_report(folder)
    html = (folder.path / "report.html").read_text("utf-8")
    assert html.count('<div id="plot-') == 4
    lines = {line["name"]: (line["x"], line["y"]) for plot in drawn(folder) for line in plot}
    assert lines["recall@1"] == ([1, 2], [0.1, 0.15])
    assert lines["loss"] == ([1, 2, 3, 4], [5.0, 4.0, 3.0, None])
    assert lines["up"][1] == pytest.approx([4e-6, 8e-6, 12e-6, 12e-6])
    assert lines["reported"][1] == [4, 4, 4, 0]
    assert "15.0%" in html
    assert "25.0%" in html


def test_virtual_hours_are_an_axis_where_there_are_any(folder):
    for line in ROWS:
        folder.add_row(line)
    write_report(folder)
    page = (folder.path / "report.html").read_text("utf-8")
    assert "by megabyte" in page
    assert "by virtual hour" not in page
    folder.add_row(row(4, virtual_s=7200.0, recall_top1=0.2, recall_top3=0.3))
    write_report(folder)
    assert "by virtual hour" in (folder.path / "report.html").read_text("utf-8")


FLEET = {
    "format": 1,
    "population": 10,
    "hours": [[2.5] * 24] * 6 + [[None] * 24],
    "tiers": {
        "mid": {
            "phones": 4,
            "assigned": 20,
            "reported": 12,
            "dropped": {"download": 1, "training": 2, "upload": 0, "late": 3, "declined": 0, "left": 1},
        }
    },
    "participation": [6, 0, 2, 1, 1],
}


def test_a_report_shows_the_phones_of_a_fleet(folder):
    for line in ROWS:
        folder.add_row(line)
    (folder.path / "fleet.json").write_text(json.dumps(FLEET))
    write_report(folder)
    page = Page()
    page.feed((folder.path / "report.html").read_text("utf-8"))
    assert page.open == []
    assert "Of all assignments 35.0% were dropped." in page.text
    assert "Gini coefficient" in page.text
    heat, dropouts, (counted,) = drawn(folder)[4:]
    assert heat[0]["z"] == FLEET["hours"]
    assert {bar["name"]: bar["y"] for bar in dropouts}["late"] == [0.15]
    assert (counted["x"], counted["y"]) == (["0", "1", "2", "3", "4"], [6, 0, 2, 1, 1])


def test_a_malformed_fleet_is_refused_by_name(folder):
    folder.add_row(row(0))
    (folder.path / "fleet.json").write_text("{}")
    with pytest.raises(DataError, match=r"fleet\.json: it must be an object with format"):
        write_report(folder)


def test_a_hundred_thousand_rounds_are_drawn_in_the_size_of_a_thousand(tmp_path):
    sizes = []
    for count in (1_000, 100_000):
        folder = RunFolder.create(tmp_path, f"of-{count:06d}", default="x")
        folder.write_config(RunConfig().to_toml())
        lines = (
            row(n, recall_top1=n / count, recall_top3=n / count, virtual_s=60.5 * n) for n in range(count)
        )
        folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
        write_report(folder)
        for line in (line for plot in drawn(folder) for line in plot):
            assert len(line["x"]) == len(line["y"]) == 1_000
            assert (line["x"][0], line["x"][-1]) == (1, count)
        page = (folder.path / "report.html").read_text("utf-8")
        sizes.append(len(page) - page.index("<body>"))  # the head holds plotly
    assert sizes[1] < 1.5 * sizes[0] < 1e6
    assert "Of 100,000 rounds a curve draws 1,000" in page


def test_a_finished_run_has_a_bundle_that_predicts(folder):
    config = RunConfig.load(folder.path / "config.toml")
    built = build_task(config)
    for line in ROWS:
        folder.add_row(line)
    facts = checkpoint_facts(config, built, round=3, version=3)
    assert finish_run(folder, built.params, built, facts) == summarise(ROWS)
    manifest = json.loads((folder.path / "model" / "manifest.json").read_text())
    assert "wordfreq" in json.dumps(manifest)
    assert "logs" in json.dumps(manifest)
    suggestions = Predictor(folder.path / "model").suggest("see you", k=3)
    assert len({suggestion.word for suggestion in suggestions}) == 3
    assert (folder.path / "report.html").is_file()
