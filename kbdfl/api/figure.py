"""Figures of runs as notebooks show them."""

from typing import Any

import plotly.io
from plotly.graph_objects import Figure

from kbdfl.api.cells import in_notebook, output
from kbdfl.report.still import still

LIVE = "plotly_mimetype"  # what plotly does in a kernel unless it is told otherwise: data, for a script of its own


class RunFigure(Figure):  # type: ignore[misc]  # to mypy plotly has no types
    """A plotly figure that a notebook shows with a still picture beside its data.

    JupyterLab and VS Code draw the data, so that the figure can be zoomed. JupyterLab without plotly in its own
    environment, pages made by nbconvert and GitHub know nothing of it, and show the picture. Where another of plotly's
    renderers is chosen, that one alone decides.
    """

    def _ipython_display_(self) -> None:
        if not in_notebook() or plotly.io.renderers.default != LIVE:
            super()._ipython_display_()
            return
        data: dict[str, Any] = self._repr_mimebundle_()
        output(data | {"image/svg+xml": still(self)})
