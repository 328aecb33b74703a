"""Inline SVG charts that follow the page: its colours through CSS variables, its fonts, its dark mode.

Each chart is small (300 × 200), so that its text stays legible on a phone; the page lays several side by side. The same
input gives the same bytes: ids are salted with the chart's name, and no date is written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from typing import Any
from xml.sax.saxutils import escape

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from tuneloop.metrics import Calibration

# Stand-ins that matplotlib draws with; each becomes the CSS variable of its name.
INK, MUTED, LINE = "#010101", "#020202", "#030303"
FIRST, SECOND = "#040404", "#050505"
VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", FIRST: "--series-1", SECOND: "--series-2"}
WIDTH_PX, HEIGHT_PX = 300, 200
STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "text.color": INK,
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "round",
    "axes.formatter.limits": (-3, 4),
    "axes.formatter.useoffset": False,
}
History = Sequence[Mapping[str, Any]]


def loss_curve(history: History) -> str | None:
    """Return training and validation loss over steps; None where neither was recorded."""
    series = [("training", "train_loss", FIRST), ("validation", "validation_loss", SECOND)]
    found = [(name, *_points(history, key), colour) for name, key, colour in series]
    found = [curve for curve in found if curve[1]]
    if not found:
        return None

    def draw(axes: Axes) -> None:
        for name, steps, values, colour in found:
            axes.plot(steps, values, color=colour, label=name, marker="o" if len(steps) <= 40 else "", markersize=3)
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, labelcolor=MUTED, loc="upper right", handlelength=1.4)

    ends = "; ".join(f"{name} from {values[0]:.3g} to {values[-1]:.3g}" for name, _, values, _ in found)
    return _chart("loss", "Loss", f"Loss over {found[0][1][-1]} steps: {ends}.", draw, x="step")


def learning_rate_curve(history: History) -> str | None:
    """Return the learning rate over steps, or None."""
    return _single_curve(history, "learning_rate", "Learning rate")


def gradient_norm_curve(history: History) -> str | None:
    """Return the gradient norm (before clipping) over steps, or None."""
    return _single_curve(history, "grad_norm", "Gradient norm")


def reliability_diagram(calibration: Calibration) -> str | None:
    """Return accuracy over probability with the intervals of the bins, against the diagonal of a calibrated model."""
    bins = calibration.bins
    if not bins:
        return None

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        for found in bins:
            axes.plot([found.mean_probability] * 2, [found.accuracy.low, found.accuracy.high], color=FIRST, alpha=0.45)
        means, shares = [b.mean_probability for b in bins], [b.accuracy.estimate for b in bins]
        axes.plot(means, shares, color=FIRST, linestyle="none", marker="o", markersize=4.5)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), ylabel="accuracy")

    text = "; ".join(f"{b.mean_probability:.2f} → {b.accuracy.estimate:.2f} ({b.n})" for b in bins)
    description = f"Mean probability → share answered correctly (documents) in {len(bins)} groups: {text}."
    return _chart("reliability", "Probability against accuracy", description, draw, x="probability")


def confusion_heat_map(confusion: Sequence[Sequence[int]]) -> str:
    """Return a map of many classes without names: rows are truths, columns answers, the last one "no label".

    Right answers are drawn in one colour and mistakes in another; darker is a larger share of the row.
    """
    rows, columns = len(confusion), len(confusion[0])

    def draw(axes: Axes) -> None:
        for row, counts in enumerate(confusion):
            for column, count in enumerate(counts):
                if count:
                    share = count / sum(counts)
                    colour = FIRST if row == column else SECOND
                    axes.add_patch(Rectangle((column, row), 1, 1, color=colour, alpha=0.25 + 0.75 * share, linewidth=0))
        axes.set(xlim=(0, columns), ylim=(rows, 0), ylabel="truth", aspect="equal", xticks=[], yticks=[])
        axes.spines[["top", "right"]].set_visible(True)
        axes.grid(visible=False)

    wrong = sum(sum(counts) - counts[row] for row, counts in enumerate(confusion))
    description = f"{rows} classes; {wrong} answers off the diagonal. The pairs are in the table beside it."
    return _chart("confusion", "Confusion matrix", description, draw, x="answer", height_px=310)


def _points(history: History, key: str) -> tuple[list[float], list[float]]:
    found = [(point["step"], point[key]) for point in history if math.isfinite(_number(point.get(key)))]
    return [step for step, _ in found], [float(value) for _, value in found]


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _single_curve(history: History, key: str, title: str) -> str | None:
    steps, values = _points(history, key)
    if not steps:
        return None

    def draw(axes: Axes) -> None:
        axes.plot(steps, values, color=FIRST)
        axes.set_ylim(bottom=0)

    description = (
        f"{title} over {steps[-1]} steps: from {values[0]:.3g}, at most {max(values):.3g}, to {values[-1]:.3g}."
    )
    return _chart(key.replace("_", "-"), title, description, draw, x="step")


def _chart(
    name: str, title: str, description: str, draw: Callable[[Axes], None], *, x: str, height_px: int = HEIGHT_PX
) -> str:
    """Draw on fresh axes and return an <svg> element fit for a page that holds several."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH_PX / 72, height_px / 72), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.set_xlabel(x)
        if x == "step":
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        draw(axes)
        file = StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(file.getvalue(), name, title, description)


def _inline(svg: str, name: str, title: str, description: str) -> str:
    """Turn matplotlib's document into an element: own ids, CSS colours, the page's font, a title for screen readers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]+"', svg)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'{box.group() if box else ""} role="img" aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
    )
    body = svg[svg.index(">") + 1 :]
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'(href="|url\()#([^")]+)', rf"\1#{name}-\2", body)
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    body = re.sub(r"font-family: [^;\"]+;?", "", body)
    body = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", body)
    return head + body.rstrip()
