"""A run as an object: what it was asked for, its rounds, its plots, its model."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from kbdfl.api.model import Model
from kbdfl.errors import ConfigError, DataError
from kbdfl.export.bundle import load_bundle
from kbdfl.export.precision import PRECISIONS
from kbdfl.export.run import read_run
from kbdfl.report.curves import Line, recall_figure, recall_points
from kbdfl.report.page import styled
from kbdfl.report.run import round_plots, summarise
from kbdfl.run import RunConfig, RunFolder
from kbdfl.tables import facts_table, percent


class Run:
    """The run in a folder, finished or not; what it has is read anew whenever it is asked for.

        run = kbdfl.load("runs/demo")
        run.metrics[-1]["recall_top1"]      # a dict a closed round, as in metrics.jsonl
        run.columns["train_loss"]           # one figure of all of them
        run.plot("loss")                    # a plotly figure
        run.model.predict("how are")

    `config` is its whole configuration, `path` its folder.
    """

    def __init__(self, path: str | Path) -> None:
        """Raises ConfigError where there is no run."""
        self._folder = RunFolder.open(Path(path))
        self.path: Path = self._folder.path
        self.config: RunConfig = RunConfig.load(self.path / "config.toml")
        self._model: tuple[str, Model] | None = None

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.path.resolve().name

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """A dict for each closed round, as `kbdfl.rounds.metrics_row` describes it. Raises DataError."""
        try:
            return self._folder.rows(growing=True)
        except json.JSONDecodeError:
            raise DataError(f"{self._folder.metrics} must hold a round's JSON object a line") from None

    @property
    def columns(self) -> dict[str, list[Any]]:
        """The same by figure, for `pandas.DataFrame(run.columns)`; what a round did not measure is None."""
        rows = self.metrics
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: [row.get(name) for row in rows] for name in names}

    @property
    def summary(self) -> dict[str, Any]:
        """Totals, and the recall that was measured last."""
        return summarise(self.metrics)

    @property
    def finished(self) -> bool:
        """Whether it came to its end and wrote its report; a server's run never says so."""
        return (self.path / "report.html").is_file()

    def plot(self, what: str = "recall") -> Any:
        """A plotly figure: recall, loss, bytes, phones or, of asynchronous runs, staleness. Raises ConfigError."""
        plots = round_plots(self.metrics)
        if what not in plots:
            raise ConfigError(f"a plot must be one of {', '.join(plots)}, got {what!r}"[:200])
        return _titled(plots[what].figure, f"{plots[what].title}: {self.name}")

    @property
    def model(self) -> Model:
        """The newest model, in full precision. Raises ModelError while there is none."""
        found = read_run(self.path)
        if self._model is None or self._model[0] != found.checkpoint.name:
            # Apart from the run's own folder, which a server may be writing.
            with tempfile.TemporaryDirectory() as folder:
                found.write(Path(folder) / "model", precision="float32")
                bundle = replace(load_bundle(Path(folder) / "model"), folder=self.path)  # for its names
                self._model = found.checkpoint.name, Model(bundle)
        return self._model[1]

    def export(self, folder: str | Path | None = None, *, precision: str = "int8") -> Model:
        """Write the newest model as a bundle for phones, float32, int8 or int4, and open it.

        `folder` is by default the run's own `model-PRECISION`, and `model` for float32, as `kbdfl export` has it.
        Raises ConfigError, and ModelError while there is no model.
        """
        if precision not in PRECISIONS:
            raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}"[:200])
        if folder is None:
            folder = self.path / ("model" if precision == "float32" else f"model-{precision}")
        read_run(self.path).write(Path(folder), precision=precision)
        return Model(folder)

    def __repr__(self) -> str:
        total = self.summary
        state = "finished, " if self.finished else ""
        return (
            f"<Run {self.path}: {state}{total['rounds']:,} of {self.config.rule.rounds:,} rounds,"
            f" recall@1 {percent(total['recall_top1'])}>"
        )

    def _repr_html_(self) -> str:
        total, settings, rule = self.summary, self.config.settings, self.config.rule
        algorithm = self.config.algorithm
        loss = total["train_loss"]
        return facts_table(
            f"kbdfl run {self.name}",
            {
                "model, source": f"{settings.preset}, {settings.source}",
                "server rule": type(algorithm.server).__name__,
                "rounds": f"{total['rounds']:,} of {rule.rounds:,}, {rule.cohort:,} reports each",
                "reports": f"{total['reports']:,}",
                "recall@1, @3": f"{percent(total['recall_top1'])}, {percent(total['recall_top3'])}",
                "training loss": "none" if loss is None else f"{loss:.3f} nats a word",
                "bytes a report": f"{total['uplink_bytes_per_report'] or 0:,} up,"
                f" {total['downlink_bytes_per_report'] or 0:,} down",
                "seconds": f"{total['wall_s']:,.1f}",
                "folder": str(self.path),
            },
        )


def load(path: str | Path) -> Run:
    """The run in the folder `path`, finished or running. Raises ConfigError where there is none."""
    return Run(path)


def compare(*runs: Run | str | Path, top: int = 1) -> Any:
    """A plotly figure with the recall of several runs, by round, virtual hour or megabyte; `top` is 1 or 3.

    Raises ConfigError.
    """
    if top not in (1, 3):
        raise ConfigError(f"top must be 1 or 3, got {top!r}"[:200])
    if not runs:
        raise ConfigError("compare needs at least one run")
    opened = [each if isinstance(each, Run) else Run(each) for each in runs]
    figure = recall_figure([Line(run.name, recall_points(run.metrics), top=top) for run in opened])
    return _titled(figure, f"Recall@{top} on held-out users")


def _titled(figure: Any, title: str) -> Any:
    """For a notebook, where no page says what is drawn."""
    from kbdfl.api.figure import RunFigure

    titled = RunFigure(styled(figure))
    titled.update_layout(
        title={"text": title, "x": 0, "xref": "container", "yref": "container", "y": 0.98, "pad": {"l": 10}},
        height=420,
        margin={"t": 90},
    )
    return titled
