"""Draws the results as SVG: dots with their ranges, or lines over the sizes. Same results, same bytes.

Drawn by matplotlib in colours that stand for roles; they are then replaced by variables of a style sheet that has a
light and a dark set, so that the one file suits both kinds of pages.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from pages import number
from results import Group, Page, Row, Table

# Drawn with the first; shown with the second on a light page and with the third on a dark one.
INK = ("#000001", "#1f2328", "#e6edf3")
QUIET = ("#000002", "#59636e", "#9198a1")
GRID = ("#000003", "#d8dee4", "#2f353d")
PAPER = ("#000004", "#ffffff", "#0d1117")
OURS = ("#000005", "#0b6bcb", "#4c9dff")
LIMIT = ("#000006", "#2a7f3f", "#56b870")
PEERS = (
    ("#000007", "#b3541e", "#e8935a"),
    ("#000008", "#8250a8", "#bf8fe6"),
    ("#000009", "#9a6700", "#d8a82a"),
    ("#00000a", "#b4234f", "#f0758f"),
    ("#00000b", "#4c6a72", "#8fb3bd"),
    ("#00000c", "#6b5b3e", "#b8a685"),
    ("#00000d", "#4a55b5", "#929cf0"),
    ("#00000e", "#00776c", "#45b8ac"),
)
COLOURS = (INK, QUIET, GRID, PAPER, OURS, LIMIT, *PEERS)
MARKERS = "sDv^PXp*<>"

_AT = re.compile(r"(.+) at ([\d,]+) (\w+), (.+)")
_WIDE = 7.6
_ROW = 0.235
_LARGE_RATIO = 12
"""A measure that spans more than that is drawn on a logarithmic scale."""
_ACROSS = 3
"""Panels beside each other."""
_FEW_DECADES = 300
"""One that spans less than that has marks at 2 and 5, too."""


def svg(results: Page) -> str:
    """The drawing of a question."""
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "clepsydra",
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 8.5,
        "axes.facecolor": "none",
        "axes.edgecolor": GRID[0],
        "axes.linewidth": 0.8,
        "text.color": INK[0],
        "axes.labelcolor": QUIET[0],
        "xtick.color": QUIET[0],
        "ytick.color": QUIET[0],
        "grid.color": GRID[0],
        "grid.linewidth": 0.7,
    }
    results = with_curves(results)
    with import_module("matplotlib").rc_context(settings):
        figure = _lines(results) if _is_a_curve(results) else _dots(results)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, facecolor=PAPER[0])
    return _with_style(file.getvalue())


def with_curves(results: Page) -> Page:
    """Measures that say `at so many`, as one measure over those sizes, in place of all others of their question."""
    groups: list[Group] = [{**group, "tables": _curves_of(group["tables"])} for group in results["groups"]]
    drawn: Page = {**results, "groups": groups, "plotted": []}
    return drawn if any(group["tables"] for group in groups) else results


def _curves_of(tables: Sequence[Table]) -> list[Table]:
    curves: dict[str, Table] = {}
    for table in tables:
        if found := _AT.fullmatch(table["measure"]):
            what, size, of, unit = found.groups()
            name = f"{what}, {unit}, by {of}"
            rows: list[Row] = [{**row, "size": int(size.replace(",", ""))} for row in table["rows"]]
            curves.setdefault(name, Table(measure=name, rows=[]))["rows"].extend(rows)
    return list(curves.values())


def _is_a_curve(results: Page) -> bool:
    return len({row["size"] for group in results["groups"] for table in group["tables"] for row in table["rows"]}) > 1


def _plotted(group: Group, results: Page) -> list[Table]:
    tables = [table for table in group["tables"] if table["rows"]]
    return [table for table in tables if not results["plotted"] or table["measure"] in results["plotted"]]


def _colours(results: Page) -> Mapping[str, tuple[str, str, str]]:
    """A colour, a marker and a dash for each contender, the same in all groups."""
    roles = {name: about["role"] for group in results["groups"] for name, about in group["contenders"].items()}
    chosen: dict[str, tuple[str, str, str]] = {}
    for role, colours, markers in (("ours", (OURS,), "oh8"), ("peer", PEERS, MARKERS), ("limit", (LIMIT,), "dHP")):
        for place, name in enumerate(name for name, its in roles.items() if its == role):
            colour, again = colours[place % len(colours)][0], place >= len(colours)
            chosen[name] = (colour, markers[place % len(markers)], "--" if again else "-")
    return chosen


# ---- one size: a panel for each measure of each group, a row for each contender


def _dots(results: Page) -> Any:
    panels = [(group, table) for group in results["groups"] for table in _plotted(group, results)]
    rows = [len(table["rows"]) for _, table in panels]
    above, below, between = 0.4, 0.12, 0.66
    heights = [_ROW * (many + 0.6) for many in rows]
    tall = above + sum(heights) + between * len(panels) + below
    figure: Any = _matplotlib("figure").Figure(figsize=(_WIDE, tall))
    _title(figure, results, tall)
    left = _room_for(row["contender"] for _, table in panels for row in table["rows"])
    top = tall - above
    for (group, table), height in zip(panels, heights, strict=True):
        top -= between * 0.55
        axes = figure.add_axes((left, (top - height) / tall, 0.9 - left, height / tall))
        _panel(axes, table, results, group["name"] if len(results["groups"]) > 1 else "")
        top -= height + between * 0.45
    return figure


def _room_for(names: Any) -> float:
    """The share of the width that the longest of them takes."""
    return min(0.42, 0.035 + 0.0115 * max(map(len, names), default=10))


def _title(figure: Any, results: Page, tall: float) -> None:
    title = results["title"][:1].upper() + results["title"][1:]
    figure.text(0.02, 1 - 0.25 / tall, title, fontsize=10.5, fontweight="bold", va="center")


def _panel(axes: Any, table: Table, results: Page, group: str) -> None:
    colours, rows = _colours(results), table["rows"]
    lowest = _scale(axes.set_xscale, axes.set_xlim, rows)
    for place, row in enumerate(rows):
        colour, _, _ = colours[row["contender"]]
        axes.plot(
            (max(lowest, row["least"]), max(lowest, row["most"])),
            (place, place),
            color=colour,
            linewidth=1.6,
            solid_capstyle="round",
        )
        axes.plot(row["median"], place, "o", color=colour, markersize=5.5)
        axes.annotate(
            number(row["median"]),
            (row["most"], place),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            color=QUIET[0],
        )
    axes.set_yticks(range(len(rows)), [row["contender"] for row in rows])
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_color(INK[0])
        label.set_fontweight("bold" if colours[row["contender"]][0] == OURS[0] else "normal")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    _plain(axes, "x")
    axes.tick_params(axis="y", length=0)
    _heading(axes, table["measure"], results, group)


def _heading(axes: Any, measure: str, results: Page, group: str) -> None:
    where = f"{group}: " if group else ""
    axes.set_title(f"{where}{measure}", loc="left", fontsize=8.5, pad=5)
    axes.set_title(_better(measure, results), loc="right", fontsize=7, pad=5, color=QUIET[0])


def _better(measure: str, results: Page) -> str:
    more = "per second" in measure or measure in results["more_is_better"]
    return f"{'more' if more else 'less'} is better"


def _scale(set_scale: Any, set_limits: Any, rows: Sequence[Row]) -> float:
    """Where it begins."""
    values = [row[which] for row in rows for which in ("least", "median", "most")]
    positive, most = [value for value in values if value > 0], max(values)
    if positive and most / min(positive) > _LARGE_RATIO:
        lowest: float = math.pow(10, math.log10(min(positive)) - 0.12)
        set_scale("log")
        set_limits(lowest, 10 ** (math.log10(most) + 0.12))
        return lowest
    lowest = min(0.0, 1.05 * min(values))
    set_limits(lowest, max(most * 1.04, 1e-9))
    return lowest


def _plain(axes: Any, grid: str) -> None:
    ticker = _matplotlib("ticker")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(side == "left" and grid == "both")
    axes.grid(axis=grid)
    axes.set_axisbelow(True)
    for axis in (axes.xaxis, axes.yaxis) if grid == "both" else (axes.xaxis,):
        axis.set_major_formatter(ticker.FuncFormatter(_marked))
        axis.set_minor_formatter(ticker.NullFormatter())
        if axis.get_scale() == "log":
            least, most = axis.get_view_interval()
            axis.set_major_locator(
                ticker.LogLocator(subs=(1, 2, 5) if most / least < _FEW_DECADES else (1,), numticks=12)
            )
            axis.set_minor_locator(ticker.NullLocator())
    axes.tick_params(labelsize=7.5, length=0)


def _marked(value: float, _: int) -> str:
    text: str = number(value)
    return text


# ---- several sizes: a row of panels for each measure, a panel for each group, a line for each contender


def _lines(results: Page) -> Any:
    grid = [(group, _plotted(group, results)) for group in results["groups"]]
    measures = list(dict.fromkeys(table["measure"] for _, tables in grid for table in tables))
    names = {row["contender"] for _, tables in grid for table in tables for row in table["rows"]}
    each, between, heading = 1.6, 0.42, 0.34
    rows_of = [
        _rows([(group, table) for group, tables in grid for table in tables if table["measure"] == measure])
        for measure in measures
    ]
    across = max(len(panels) for rows in rows_of for panels in rows)
    above, below = 0.56 + 0.2 * math.ceil(len(names) / 4), 0.1
    tall = above + sum(heading + len(rows) * (each + between) for rows in rows_of) + below
    figure: Any = _matplotlib("figure").Figure(figsize=(max(_WIDE, 2.9 * across), tall))
    _title(figure, results, tall)
    top, width = tall - above, 0.94 / across
    for measure, rows in zip(measures, rows_of, strict=True):
        _row_heading(figure, measure, results, (top - 0.06) / tall)
        in_all = [row for panels in rows for _, table in panels for row in table["rows"]]
        top -= heading
        for panels in rows:
            for column, (group, table) in enumerate(panels):
                place = (0.07 + column * width, (top - each) / tall, width - 0.055, each / tall)
                axes = figure.add_axes(place)
                _curves(axes, table, results, in_all)
                if len(grid) > 1:
                    axes.set_title(group["name"], loc="left", fontsize=8, pad=4, color=QUIET[0])
            top -= each + between
    _legend(figure, results, names, tall)
    return figure


def _rows(panels: list[tuple[Group, Table]]) -> list[list[tuple[Group, Table]]]:
    return [panels[start : start + _ACROSS] for start in range(0, len(panels), _ACROSS)]


def _row_heading(figure: Any, measure: str, results: Page, height: float) -> None:
    figure.text(0.02, height, measure, fontsize=9, va="center")
    figure.text(0.99, height, _better(measure, results), fontsize=7, va="center", ha="right", color=QUIET[0])


def _curves(axes: Any, table: Table, results: Page, in_the_row: Sequence[Row]) -> None:
    colours, lowest = _colours(results), _scale(axes.set_yscale, axes.set_ylim, in_the_row)
    for name in dict.fromkeys(row["contender"] for row in table["rows"]):
        rows = sorted((row for row in table["rows"] if row["contender"] == name), key=lambda row: row["size"])
        sizes, (colour, marker, dash) = [row["size"] for row in rows], colours[name]
        medians = [row["median"] for row in rows]
        axes.plot(sizes, medians, dash, color=colour, marker=marker, markersize=4, linewidth=1.3)
        axes.vlines(
            sizes,
            [max(lowest, row["least"]) for row in rows],
            [max(lowest, row["most"]) for row in rows],
            color=colour,
            linewidth=1.1,
        )
    sizes = sorted({row["size"] for row in table["rows"]})
    if sizes[-1] / sizes[0] > _LARGE_RATIO:
        axes.set_xscale("log")
    _plain(axes, "both")
    axes.set_xticks(sizes, [_size(size) for size in sizes])


def _size(size: int) -> str:
    """Short, so that the marks do not meet."""
    text: str = number(size / 1_000_000) + " M" if size >= 1_000_000 else number(size)
    return text


def _legend(figure: Any, results: Page, names: set[str], tall: float) -> None:
    line = _matplotlib("lines").Line2D
    colours = {name: each for name, each in _colours(results).items() if name in names}
    handles = [
        line([], [], color=colour, marker=marker, linestyle=dash, markersize=4, linewidth=1.3)
        for colour, marker, dash in colours.values()
    ]
    figure.legend(
        handles,
        list(colours),
        loc="upper left",
        bbox_to_anchor=(0.01, 1 - 0.36 / tall),
        ncols=4,
        frameon=False,
        fontsize=8,
        handlelength=1.6,
        columnspacing=1.4,
    )


def _matplotlib(module: str) -> Any:
    return import_module(f"matplotlib.{module}")  # of the bench group, not of the checks


# ---- the colours, and a small file


def _with_style(drawn: str) -> str:
    """The colours of the roles in place of those that it was drawn with, and nothing that a reader cannot see."""
    drawn = re.sub(r"<\?xml.*?<svg", "<svg", drawn, count=1, flags=re.DOTALL)
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(
        r' transform="rotate\(-0 [^"]*"| id="(?:axes|figure|line2d|matplotlib|patch|text|[xy]tick)[^"]*"', "", drawn
    )
    drawn = re.sub(r"<g/>\s*", "", drawn)
    drawn = re.sub(r'"[^"<>]*"', lambda found: re.sub(r"(\d+\.\d\d)\d+", r"\1", found[0]), drawn)
    drawn = re.sub(r"\s*\n\s*", "\n", drawn)
    drawn, classes = _classes(drawn.replace("'DejaVu Sans', sans-serif", "system-ui, 'DejaVu Sans', sans-serif"))
    for place, (drawn_with, _, _) in enumerate(COLOURS):
        drawn, classes = (text.replace(drawn_with, f"var(--c{place})") for text in (drawn, classes))
    light, dark = (
        "".join(f"--c{place}:{colour[side]};" for place, colour in enumerate(COLOURS) if f"var(--c{place})" in classes)
        for side in (1, 2)
    )
    style = f"<style>svg{{{light}}}@media (prefers-color-scheme:dark){{svg{{{dark}}}}}\n{classes}</style>"
    return re.sub(r"(<svg[^>]*>)", lambda found: f"{found[1]}\n{style}", drawn, count=1)


def _classes(drawn: str) -> tuple[str, str]:
    """With classes in place of what is said again and again at the elements, and those classes."""
    styles = list(dict.fromkeys(re.findall(r' style="([^"]*)"', drawn)))
    drawn = re.sub(r' style="([^"]*)"', lambda found: f' class="s{styles.index(found[1])}"', drawn)
    return drawn, "\n".join(f".s{place}{{{style}}}" for place, style in enumerate(styles))
