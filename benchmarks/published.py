"""The results in docs/performance/: of each question the JSON, the page and the plot, and a page that leads to them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

from machine import ROOT
from pages import index, page
from results import Page

FOLDER = ROOT / "docs" / "performance"


def check(folder: Path) -> None:
    """That publishing there will not fail after all the work."""
    if importlib.util.find_spec("matplotlib") is None:
        raise SystemExit("matplotlib, which draws the plots, is not installed: pip install --group bench")
    folder.mkdir(parents=True, exist_ok=True)


def publish(results: Page, folder: Path = FOLDER) -> None:
    """Write its JSON, then all that is made of it."""
    (folder / f"{results['question']}.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    render(results, folder)
    (folder / "README.md").write_text(index(found(folder)), "utf-8")


def render(results: Page, folder: Path = FOLDER) -> None:
    """The page and the plot of what was measured."""
    import plots  # matplotlib takes its time

    (folder / f"{results['question']}.svg").write_text(plots.svg(results), "utf-8")
    (folder / f"{results['question']}.md").write_text(page(results), "utf-8")


def found(folder: Path = FOLDER) -> Iterator[Page]:
    """What was published there, by name."""
    for file in sorted(folder.glob("*.json")):
        results: Page = json.loads(file.read_text("utf-8"))
        yield results
