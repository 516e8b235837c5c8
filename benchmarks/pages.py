"""Says the results in Markdown, for the terminal and for docs/performance/ alike. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from results import About, Group, Page, Reached, Row, Table

INDEX = """# What was measured

Made by `make bench`, one page for each question of `benchmarks/`. What stands behind the figures, and how to read
them, is told in [Performance](../performance.md).
"""


def page(results: Page, plot: bool = True) -> str:
    """A whole page."""
    parts = [
        f"# {_capital(results['title'])}",
        results["claim"],
        *([f"![{results['title']}: the figures of the tables below]({results['question']}.svg)"] if plot else []),
        _how(results),
        *(["## The bars", *_bars(results["bars"], results["sizes"])] if results["bars"] else []),
        *(part for group in results["groups"] for part in _group(group, results)),
        f"The figures of each round are in [{results['question']}.json]({results['question']}.json).",
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def index(all_results: Iterable[Page]) -> str:
    """The page that leads to the others."""
    pages = list(all_results)
    rows = [
        (f"[{each['title']}]({each['question']}.md)", each["at"][:10], each["commit"], _score(each["bars"]))
        for each in pages
    ]
    if not rows:
        return INDEX
    parts = [INDEX, _aligned(("question", "measured", "commit", "bars reached"), rows)]
    for each in pages:
        if each["bars"]:
            parts += [f"## {_capital(each['title'])}", *_bars(each["bars"], each["sizes"])]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _score(bars: Sequence[Reached]) -> str:
    known = [bar for bar in bars if bar["reached"] is not None]
    score = f"{sum(bar['reached'] is True for bar in known)} of {len(known)}" if known else "-"
    return score + (f", {len(bars) - len(known)} not measured" if len(bars) > len(known) else "")


def _how(results: Page) -> str:
    machine = "; ".join(f"{name}: {value}" for name, value in results["machine"].items())
    sizes = ", ".join(number(size) for size in results["sizes"])
    return (
        f"Measured {results['at'][:16].replace('T', ' ')} UTC at commit {results['commit']}: "
        f"{results['rounds']} round{'s' if results['rounds'] > 1 else ''} in turn, each measurement in a process of "
        f"its own, size {sizes}. Medians, in brackets the least and the most.\n\n{machine}."
    )


def _bars(bars: Sequence[Reached], sizes: Sequence[int]) -> Iterable[str]:
    rows = [
        (
            bar["bar"],
            bar["group"] + (f", {number(bar['size'])}" if len(sizes) > 1 and bar["size"] else ""),
            number(bar["measured"]),
            number(bar["wanted"]),
            _verdict(bar),
        )
        for bar in bars
    ]
    yield _aligned(("bar", "where", "measured", "the bar", ""), rows)


def _verdict(bar: Reached) -> str:
    if bar["reached"] is None:
        return "not measured"
    margin = bar["margin"]
    if bar["reached"]:
        return "reached" + (f", {number(margin)} times better" if margin and margin >= 1.005 else "")
    return "**not reached**" + (f", {number(1 / margin)} times short of it" if margin else "")


def _group(group: Group, results: Page) -> Iterable[str]:
    if len(results["groups"]) > 1:
        yield f"## {_capital(group['name'])}"
    else:
        yield "## The figures"
    yield from group["notes"]
    yield _fewer_rounds(group, results["rounds"])
    yield _contenders(group["contenders"])
    several = len({row["size"] for table in group["tables"] for row in table["rows"]}) > 1
    for table in group["tables"]:
        yield f"**{table['measure']}**"
        yield _by_size(table) if several else _by_contender(table)


def _fewer_rounds(group: Group, rounds: int) -> str:
    """Where there was no time for all of them."""
    had: dict[int, int] = {}
    for table in group["tables"]:
        for row in table["rows"]:
            had[row["size"]] = max(had.get(row["size"], 0), len(row["values"]))
    told = ", ".join(f"{number(had[size])} of size {number(size)}" for size in sorted(had) if had[size] < rounds)
    return f"Rounds, where there was no time for {rounds}: {told}." if told else ""


def _contenders(contenders: Mapping[str, About]) -> str:
    rows = [
        (name, about["role"], about["version"] or "-", about["configured"] + _absent(about))
        for name, about in contenders.items()
    ]
    return _aligned(("contender", "part", "version", "how it was set"), rows)


def _absent(about: About) -> str:
    said = {"Missing": about["missing"], "Not finished": about.get("unfinished", ""), "Failed": about["failed"]}
    return "".join(f" **{what}: {reason}**" for what, reason in said.items() if reason)


def _by_contender(table: Table) -> str:
    rows = [(row["contender"], _median(row), number(row["to_ours"]), number(row["to_limit"])) for row in table["rows"]]
    return _aligned(("", "median", "times ours", "times the limit"), rows)


def _by_size(table: Table) -> str:
    """Two tables: the medians, and the ratios."""
    sizes = sorted({row["size"] for row in table["rows"]})
    head = ["", *map(number, sizes)]
    names = list(dict.fromkeys(row["contender"] for row in table["rows"]))
    found = {(row["contender"], row["size"]): row for row in table["rows"]}
    medians = [[name, *(_median(found.get((name, size))) for size in sizes)] for name in names]
    ratios = [[name, *(_ratios(found.get((name, size))) for size in sizes)] for name in names]
    return f"{_aligned(head, medians)}\n\nTimes ours / times the limit:\n\n{_aligned(head, ratios)}"


def _median(row: Row | None) -> str:
    return f"{number(row['median'])} ({number(row['least'])} to {number(row['most'])})" if row else "-"


def _ratios(row: Row | None) -> str:
    return f"{number(row['to_ours'])} / {number(row['to_limit'])}" if row else "-"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def number(value: float | None) -> str:
    """With three digits that count, and all of a whole number's."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    digits = next((digits for digits in range(12) if abs(value) * 10**digits >= 99.5), 12)
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that is as readable in a terminal as on a page."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (head, *rows)]
    kept = [
        column for column in range(len(head)) if column == 0 or any(row[column] not in ("", "-") for row in cells[1:])
    ]
    widths = {column: max(3, min(40, max(len(row[column]) for row in cells))) for column in kept}
    lines = ["| " + " | ".join(row[column].ljust(widths[column]) for column in kept) + " |" for row in cells]
    lines.insert(1, "| " + " | ".join("-" * widths[column] for column in kept) + " |")
    return "\n".join(lines)
