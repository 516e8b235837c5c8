"""Every operation and every case of the contracts that stand behind this library is ours by name, and has its test."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from clepsydra import Scheduler, Storage
from clepsydra.storage.conformance import CONTRACT

from .pages import DOCS, ROOT

PAGE = (DOCS / "reference" / "contracts.md").read_text("utf-8")

CASES = {"QS": 15, "QE": 50, "QU": 23, "OR": 45, "JQ": 27, "GS": 15}
EVERY_CASE = {f"{sort}{number}" for sort, count in CASES.items() for number in range(1, count + 1)}

_IN_A_NAME = re.compile(r"(?<=_)(qs|qe|qu|or|jq|gs)(\d\d)(?=_)")


def cases_of_tests() -> Iterator[tuple[str, str, str]]:
    """A case, the test whose name has it, and the test's docstring."""
    for path in sorted(Path(ROOT, "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                for sort, number in _IN_A_NAME.findall(node.name):
                    yield f"{sort.upper()}{int(number)}", node.name, ast.get_docstring(node) or ""


def cases_of_promises() -> set[str]:
    return {case for check in CONTRACT for case in check.cases}


def table(heading: str) -> list[list[str]]:
    """The cells of the rows below a heading, without the head of the table."""
    part = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ")[0]
    rows = [line for line in part.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[2:]]


def decided_differently() -> Mapping[str, str]:
    return {case: row[1] for row in table("Cases") for case in row[0].split(", ")}


def test_every_case_is_a_test_that_bears_its_id() -> None:
    named = {case for case, _, _ in cases_of_tests()} | cases_of_promises()

    assert len(EVERY_CASE) == 175
    assert named == EVERY_CASE


def test_what_is_decided_differently_is_in_the_table_and_the_test_says_so() -> None:
    table = decided_differently()
    say_so = {case: name for case, name, text in cases_of_tests() if text.startswith("Decided differently")}

    assert set(table) <= EVERY_CASE
    assert set(say_so) <= set(table), "a test decides differently and the table does not have it"
    of_scheduler = set(table) - cases_of_promises()
    assert of_scheduler <= set(say_so), "the table decides differently and no test says so"


def test_every_operation_of_the_stores_has_a_row() -> None:
    rows = table("Stores")

    assert [row[0] for row in rows] == [str(number) for number in range(1, 34)]
    assert {len(row) for row in rows} == {8}
    assert [row[0] for row in table("Quantum's execution broadcaster")] == ["34", "35", "36", "37", "38"]


def test_every_method_that_a_row_names_exists() -> None:
    named = set(re.findall(r"`(Storage|Scheduler)\.(\w+)`", PAGE))

    of_store = {name for of, name in named if of == "Storage"}
    of_scheduler = {name for of, name in named if of == "Scheduler"}
    assert [name for name in of_store if not hasattr(Storage, name)] == []
    assert [name for name in of_scheduler if not hasattr(Scheduler, name)] == []
    # Of the protocol nothing stands outside of the contracts but what keeps processes apart, and what tells why.
    own = {name for name in dir(Storage) if not name.startswith("_")} - of_store
    assert own <= {
        *("blocking", "shared", "interrupt", "transaction", "heartbeat_node", "nodes", "changes", "take_quarantined"),
        *("list_attempts", "unplaced", "place", "heartbeat", "retry_executions"),
        *("verdicts", "looking", "account", "lives", "standings"),
    }


def test_every_row_names_a_test_that_exists() -> None:
    for row in (*table("Stores"), *table("Quantum's execution broadcaster")):
        tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[-1])
        promises = re.findall(r"`(clepsydra\.[\w.]+):(\w+)`", row[-1])
        assert tests or promises, row[0]
        for path, name in tests:
            assert re.search(rf"def {name}\(", (ROOT / path).read_text("utf-8")), f"{path}::{name}"
        for module, name in promises:
            assert getattr(importlib.import_module(module), name) in CONTRACT, f"{module}:{name}"
