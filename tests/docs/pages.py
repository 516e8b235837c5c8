"""The pages of the documentation as a test sees them: their blocks of code, their links, what they promise.

A fenced block is run by its language: `python` (top-level `await` allowed), `sh` lines that call `clepsydra`. An HTML
comment right above it may change that:

    <!-- file: app.py -->         the block is written to that file instead of being run
    <!-- prints -->               a `text` block: exactly what the block above it has printed
    <!-- skip: reason -->         it is not run
    <!-- only: trio -->           anywhere on the page: its blocks are run on that event loop alone
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
RUN = ("python", "sh")
KNOWN = (*RUN, "text", "toml", "json", "sql", "ini")

_FENCE = re.compile(r"^```(\w*)\s*$")
_MARK = re.compile(r"<!--\s*(file|prints|skip)(?::\s*(.*?))?\s*-->")
_ONLY = re.compile(r"<!--\s*only:\s*(\w+)\s*-->")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+\s+(.*)$", re.MULTILINE)


@frozen
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    """Of its first line of code, counted from 1."""
    language: str
    text: str
    mark: str = ""
    """`file`, `prints` or `skip`, where a comment above it says so."""
    argument: str = ""

    @property
    def place(self) -> str:
        """Where a reader finds it."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """README, CHANGELOG and everything under docs/."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]


def title(page: Path) -> str:
    """The page's path, as a test's id."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, in order."""
    language, start, said = None, 0, ("", "")
    collected: list[str] = []
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if language is not None and fence:
            yield Block(page, start, language, "\n".join(collected) + "\n", *said)
            language, said = None, ("", "")
        elif language is not None:
            collected.append(line)
        elif fence:
            language, start, collected = fence[1], number + 1, []
        elif mark := _MARK.search(line):
            said = (mark[1], mark[2] or "")
        elif line.strip():
            said = ("", "")
    assert language is None, f"{title(page)}: the block that begins in line {start} is not closed"


def event_loops(page: Path) -> tuple[str, ...]:
    """On which event loops its blocks are run."""
    only = _ONLY.search(page.read_text("utf-8"))
    return (only[1],) if only else ("asyncio", "trio")


def prose(page: Path) -> str:
    """The page without its blocks."""
    return re.sub(r"^```.*?^```\s*$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    """Where it points to."""
    return _LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """The anchors that its headings get on the forges."""
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(prose(page)))
    return {heading.strip().replace(" ", "-") for heading in plain}
