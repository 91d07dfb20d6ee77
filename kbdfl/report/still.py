"""A plotly figure of lines as a still picture: SVG of a few kilobytes, for viewers that do not know plotly's figures.

plotly itself draws pictures with a browser that it starts, and pages with a script of five megabytes. This draws what
the plots of runs have: lines over linear axes, a title, the names of several lines.
"""

import html
import math
from collections.abc import Sequence
from typing import Any

from kbdfl.report.page import COLOURS

WIDTH, HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 70, 50  # around the lines
_TICKS = 6
_DASHES = {"dash": "9 6", "dot": "3 3", "dashdot": "9 4 3 4"}


def still(figure: Any) -> str:
    """`figure` as an SVG; its legend is left out where one line needs none. What was not measured is a gap."""
    traces = [trace for trace in figure.data if trace.x is not None and trace.y is not None]
    lines = [[_point(x, y) for x, y in zip(trace.x, trace.y, strict=True)] for trace in traces]
    points = [point for line in lines for point in line if point is not None]
    layout = figure.layout
    x_axis = _axis([x for x, _ in points], zero=layout.xaxis.rangemode == "tozero")
    y_axis = _axis([y for _, y in points], zero=layout.yaxis.rangemode == "tozero")

    def across(x: float) -> float:
        return _LEFT + (x - x_axis[0]) / (x_axis[-1] - x_axis[0]) * (WIDTH - _LEFT - _RIGHT)

    def down(y: float) -> float:
        return HEIGHT - _BOTTOM - (y - y_axis[0]) / (y_axis[-1] - y_axis[0]) * (HEIGHT - _TOP - _BOTTOM)

    parts = [_text(10, 24, layout.title.text, size=16)]
    for x in x_axis:
        parts.append(_line(across(x), _TOP, across(x), HEIGHT - _BOTTOM))
        parts.append(_text(across(x), HEIGHT - _BOTTOM + 18, f"{x:,.10g}", anchor="middle"))
    share = (layout.yaxis.tickformat or "").endswith("%")
    for y in y_axis:
        parts.append(_line(_LEFT, down(y), WIDTH - _RIGHT, down(y)))
        written = f"{100 * y:,.10g}%" if share else f"{y:,.10g}"
        parts.append(_text(_LEFT - 8, down(y) + 4, written, anchor="end"))
    parts.append(_text(WIDTH / 2, HEIGHT - 8, layout.xaxis.title.text, anchor="middle"))
    middle = (HEIGHT + _TOP - _BOTTOM) / 2
    parts.append(_text(18, middle, layout.yaxis.title.text, anchor="middle", turned=True))
    for number, (trace, line) in enumerate(zip(traces, lines, strict=True)):
        colour = trace.line.color or COLOURS[number % len(COLOURS)]
        dash = f' stroke-dasharray="{_DASHES[trace.line.dash]}"' if trace.line.dash in _DASHES else ""
        drawn = [None if point is None else (across(point[0]), down(point[1])) for point in line]
        parts.append(
            f'<path d="{_path(drawn)}" fill="none" stroke="{html.escape(colour)}" stroke-width="2"{dash}/>'
        )
        if "markers" in (trace.mode or ""):
            dots = (f'<circle cx="{p[0]:.1f}" cy="{p[1]:.1f}" r="3"/>' for p in drawn if p is not None)
            parts.append(f'<g fill="{html.escape(colour)}">{"".join(dots)}</g>')
    if len(traces) > 1:
        parts += _legend([(trace.name or "", trace.line.color) for trace in traces])
    if not points:
        parts.append(_text(WIDTH / 2, HEIGHT / 2, "nothing is measured yet", anchor="middle", size=16))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
        f' font-family="sans-serif"><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>{"".join(parts)}</svg>'
    )


def _point(x: float | None, y: float | None) -> tuple[float, float] | None:
    """None where something was not measured, or is no number."""
    return (x, y) if x is not None and y is not None and math.isfinite(x) and math.isfinite(y) else None


def _axis(values: Sequence[float], *, zero: bool) -> list[float]:
    """Round numbers at equal distances, two or more, from below the least of the values to above the greatest."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        low, high = (low - abs(low) / 2, high + abs(high) / 2) if low else (0.0, 1.0)
    rough = (high - low) / (_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * each for each in (1, 2, 5, 10) if power * each >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    """Lines from point to point, with a gap where there is none."""
    drawn, before = [], None
    for point in points:
        if point is not None:
            drawn.append(f"{'M' if before is None else 'L'}{point[0]:.1f} {point[1]:.1f}")
        before = point
    return " ".join(drawn)


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f} L{x2:.1f} {y2:.1f}" stroke="#e2e6ec"/>'


def _text(
    x: float, y: float, text: str | None, *, anchor: str = "start", size: int = 12, turned: bool = False
) -> str:
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="#2a3f5f"{turn}'
    return f"<text {place}>{html.escape(text or '')}</text>"


def _legend(lines: Sequence[tuple[str, str | None]]) -> list[str]:
    """Names side by side below the title; those for which there is no room are left to the figure itself."""
    parts, x = [], 10.0
    for number, (name, colour) in enumerate(lines):
        width = 40 + 7 * len(name)
        if x + width > WIDTH:
            parts.append(_text(x, 50, f"and {len(lines) - number} more"))
            break
        stroke = html.escape(colour or COLOURS[number % len(COLOURS)])
        parts.append(f'<path d="M{x:.0f} 46 h20" stroke="{stroke}" stroke-width="3"/>')
        parts.append(_text(x + 26, 50, name))
        x += width
    return parts
