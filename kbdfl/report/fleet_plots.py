"""Three plots of a run's phones: when they are there, where they are lost, how evenly they are heard."""

import html
from collections.abc import Sequence

from kbdfl.report.fleet import DAYS, HOURS, REASONS, FleetCounts, gini, loudest_tenth
from kbdfl.report.page import COLOURS, Plot

MOST_BARS = 40
_MOST_TICKS = 10
_CROWDED = 0.9  # of all phones in one bar: on a linear axis the others would not be seen
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_EMPTY = "#f1f3f6"  # an hour that the run never got to
_SHADES = [(0.0, "#e3eef7"), (0.5, "#3f93c7"), (1.0, "#00324f")]


def fleet_plots(fleet: FleetCounts) -> list[Plot]:
    """Check-ins by weekday and hour, drop-outs by tier, and how often phones were counted."""
    return [_availability(fleet), _dropouts(fleet), _fairness(fleet)]


def bars(participation: Sequence[int], most: int = MOST_BARS) -> list[tuple[str, int]]:
    """How often and how many phones, in at most `most` (>= 2) bars; the phones never counted have one of their own."""
    width = _width(participation, most)
    found = [("0", participation[0])]
    for first in range(1, len(participation), width):
        last = min(first + width, len(participation)) - 1
        label = str(first) if first == last else f"{first}–{last}"
        found.append((label, sum(participation[first : last + 1])))
    return found


def _width(participation: Sequence[int], most: int) -> int:
    return max(1, -(-(len(participation) - 1) // (most - 1)))


def _availability(fleet: FleetCounts) -> Plot:
    import plotly.graph_objects as go

    known = [hour for day in fleet.hours for hour in day if hour is not None]
    figure = go.Figure()
    figure.add_heatmap(
        x=list(range(HOURS)),
        y=list(_DAYS),
        z=[list(day) for day in fleet.hours],
        zmin=0,
        zmax=max(known, default=0) or 1,
        colorscale=_SHADES,
        xgap=1,
        ygap=1,
        hoverongaps=False,
        hovertemplate="%{y} %{x}:00<br>%{z:,.4~r} check-ins<extra></extra>",
        colorbar={
            "orientation": "h",
            "thickness": 10,
            "len": 0.6,
            "xpad": 0,
            "ypad": 0,
            "x": 0,
            "xanchor": "left",
            "y": 1.04,
            "yanchor": "bottom",
            "outlinewidth": 0,
            "nticks": 5,
        },
    )
    figure.update_xaxes(title="hour of the virtual day", showgrid=False, dtick=3, zeroline=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_layout(plot_bgcolor=_EMPTY)
    blank = len(known) < DAYS * HOURS
    return Plot(
        "Check-ins by hour",
        figure,
        f"{fleet.population:,} phones; mean check-ins an hour."
        + (" Grey: the run never got to that hour." if blank else ""),
        wide=True,
    )


def _dropouts(fleet: FleetCounts) -> Plot:
    import plotly.graph_objects as go

    tiers = fleet.tiers
    labels = [f"{html.escape(name)}<br>{tier.assigned:,}" for name, tier in tiers.items()]
    figure = go.Figure()
    for number, reason in enumerate(REASONS):
        figure.add_bar(
            x=labels,
            y=[tier.dropped[reason] / max(1, tier.assigned) for tier in tiers.values()],
            customdata=[tier.dropped[reason] for tier in tiers.values()],
            name=reason,
            marker={"color": COLOURS[number]},
            hovertemplate="%{y:.2%}, %{customdata:,} assignments",
        )
    figure.update_layout(barmode="stack")
    figure.update_xaxes(type="category", title="tier, and its assignments")
    lost = _lost(fleet)
    # Without a bar an axis would reach as far below zero as above.
    figure.update_yaxes(title="share of assignments", tickformat=".2~%", range=None if lost else [0, 0.1])
    return Plot(
        "Drop-outs by tier",
        figure,
        f"Of all assignments {lost:.1%} were dropped. Phones that came after their round was full are not among them.",
    )


def _lost(fleet: FleetCounts) -> float:
    tiers = fleet.tiers.values()
    return sum(sum(tier.dropped.values()) for tier in tiers) / max(1, sum(tier.assigned for tier in tiers))


def _fairness(fleet: FleetCounts) -> Plot:
    import plotly.graph_objects as go

    found = bars(fleet.participation)
    crowded = max(phones for _, phones in found) > _CROWDED * fleet.population
    figure = go.Figure()
    figure.add_bar(
        x=[label for label, _ in found],
        y=[phones for _, phones in found],
        marker={"color": [COLOURS[-1], *[COLOURS[0]] * (len(found) - 1)]},
        hovertemplate="%{x} times: %{y:,} phones<extra></extra>",
    )
    width, shown = _width(fleet.participation, MOST_BARS), found[:: max(1, -(-len(found) // _MOST_TICKS))]
    figure.update_xaxes(
        type="category",
        title="times counted" if width == 1 else f"times counted, {width} a bar",
        tickvals=[label for label, _ in shown],
        ticktext=[label.split("–")[0] for label, _ in shown],
        tickangle=0,
    )
    figure.update_yaxes(title="phones, logarithmic" if crowded else "phones")
    if crowded:
        figure.update_yaxes(type="log", dtick=1)
    figure.update_layout(bargap=0.1)
    return Plot("How evenly phones were heard", figure, _evenness(fleet.participation))


def _evenness(participation: Sequence[int]) -> str:
    uneven, loudest = gini(participation), loudest_tenth(participation)
    if uneven is None or loudest is None:
        return "No phone was counted."
    return (
        f"Gini coefficient {uneven:.3f}: the mean difference of two phones' counts by twice the mean count, "
        f"0 if all are heard alike. The tenth heard most often sent {loudest:.1%} of the reports."
    )
