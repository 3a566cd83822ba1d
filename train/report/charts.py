"""Charts of a page: figures of plotly.js as JSON, in one style, told apart without colour vision.

Only SVG traces are used, so that a chart stays sharp on any screen and needs no graphics card.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from laughstore.errors import ConfigError

# Okabe and Ito's palette: told apart by colour-blind readers, too.
BLUE: Final = "#0072B2"
ORANGE: Final = "#E69F00"
VERMILLION: Final = "#D55E00"
GREEN: Final = "#009E73"
PURPLE: Final = "#CC79A7"
SKY: Final = "#56B4E9"
PALETTE: Final = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
"""Of several lines, in this order; with `DASHES`, so that more than six differ, too."""
DASHES: Final = ("solid", "dash", "dot", "dashdot")
INK: Final = "#1f2933"
MUTED: Final = "#66727f"
GRID: Final = "#e6eaee"
_NAME: Final = re.compile(r"[a-z][a-z0-9-]*")

type Figure = dict[str, Any]  # Any: JSON values
"""A part of a figure as plotly.js takes it."""


@dataclass(frozen=True)
class Chart:
    """One figure and what is said of it.

    Raises:
        ConfigError: its name cannot stand in a page.
    """

    name: str
    """In the page: lower-case letters, digits and dashes."""
    title: str
    traces: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any] = field(default_factory=dict)
    """What differs from the style of all charts."""
    note: str = ""
    """Below it: what it shows, in a sentence or two."""
    height: int = 320
    """In pixels."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"a chart is named {self.name!r}; use a-z, 0-9 and dashes")

    def to_json(self) -> Figure:
        """Return what `Plotly.newPlot` takes."""
        return {"data": list(self.traces), "layout": _merged(style(self.height), self.layout)}


def line(
    x: Sequence[float | None],
    y: Sequence[float | None],
    name: str,
    number: int = 0,
    *,
    shape: str = "linear",
    **more: object,
) -> Figure:
    """Return a line, the given one of several; steps where shape is `hv` or `vh`."""
    look = {
        "color": PALETTE[number % len(PALETTE)],
        "dash": DASHES[number // len(PALETTE) % len(DASHES)],
        "width": 2,
        "shape": shape,
    }
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, "line": look, **more}


def reference_line(x: Sequence[float], y: Sequence[float], name: str) -> Figure:
    """Return a thin dashed line that others are held against."""
    look = {"color": MUTED, "dash": "dash", "width": 1.25}
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "name": name,
        "line": look,
        "hoverinfo": "skip",
    }


def points(
    x: Sequence[float], y: Sequence[float], name: str, *, color: str = BLUE, **more: object
) -> Figure:
    """Return marks without a line."""
    look = {"color": color, "size": 9, "line": {"color": "#fff", "width": 1.5}}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": x,
        "y": y,
        "name": name,
        "marker": look,
        **more,
    }


def axis(title: str, **more: object) -> Figure:
    """Return an axis of the common style."""
    return {
        "title": {"text": title, "standoff": 8},
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": "#b8c1ca",
        "ticks": "outside",
        "tickcolor": "#b8c1ca",
        "ticklen": 4,
        **more,
    }


def style(height: int) -> Figure:
    """Return the layout that all charts share; fonts are those of the reader's system."""
    return {
        "height": height,
        "autosize": True,
        "margin": {"l": 56, "r": 16, "t": 12, "b": 48},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": INK},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "xanchor": "left"},
        "hoverlabel": {"font": {"family": "system-ui, sans-serif", "size": 12}},
        "dragmode": False,
    }


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Figure:
    """One layout over another, object by object."""
    found = dict(base)
    for name, value in over.items():
        here = found.get(name)
        if isinstance(here, Mapping) and isinstance(value, Mapping):
            value = _merged(here, value)
        found[name] = value
    return found
