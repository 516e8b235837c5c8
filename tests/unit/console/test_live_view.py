"""The live screen's frames: what they show at which size, and that nothing wraps or obeys what a job's error says."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from attrs import evolve
from rich.cells import cell_len

from clepsydra import Kind, to_instant
from clepsydra.console.journal import Entry
from clepsydra.console.live import keys_of
from clepsydra.console.live_view import JobLook, Look, Mode, Queue, Vessel, frame
from clepsydra.console.words import SECOND

NOW = to_instant(datetime(2027, 3, 1, 12, tzinfo=UTC))


def entry(name: str, happened: str = "succeeded", note: str = "", verdict: Kind = Kind.FIRED) -> Entry:
    return Entry(NOW, name, happened, nominal=NOW, late=2000, verdict=verdict, took=12_000, note=note)


LOOK = Look(
    now=NOW,
    node="api-1",
    store="SQLiteStorage('jobs.db')",
    since=NOW - 3600 * SECOND,
    status="ok",
    jobs=3,
    counted="2 runs, 1 failed",
    vessels=[Vessel("commands", 0, None), Vessel("execution_broadcaster", 16, 16, 2.0), Vessel("executor", 0, 16)],
    queues=[Queue("default", 3, 64, 61), Queue("mail", 4, 4, 0)],
    due=[(NOW - 5 * SECOND, "late one"), (NOW + 90 * SECOND, "feeds"), (NOW + 86_400 * SECOND, "backup")],
    recent=[
        entry("feeds"),
        entry("backup", "failed", "ValueError: \x1b[31mboom\n" * 20),
        entry("x", verdict=Kind.MISSED),
    ],
    failures=[entry("backup", "failed", "ValueError: boom")],
    said=["WARNING app: \x1b]0;title\x07"],
)


def shown(look: Look, width: int = 80, height: int = 24) -> str:
    lines = [line.plain for line in frame(look, width, height)]
    assert len(lines) == height
    assert all(cell_len(line) <= width for line in lines)
    assert all(sign.isprintable() for line in lines for sign in line)
    return "\n".join(lines)


@pytest.mark.parametrize("size", [(80, 24), (160, 40), (40, 12), (20, 5), (200, 3)])
@pytest.mark.parametrize("mode", ["overview", "search", "job"])
def test_a_frame_has_the_size_of_its_terminal(size: tuple[int, int], mode: Mode) -> None:
    job = JobLook("feeds", [("state", "active")], [NOW + SECOND], [entry("fired")] * 50, ["  File x\x00", "ValueError"])
    shown(evolve(LOOK, mode=mode, job=job, found=[f"job {number} 界" for number in range(500)], chosen=300), *size)


@pytest.mark.parametrize("width", [80, 160])
def test_the_overview_tells_how_full_the_chain_is_and_what_comes_and_went(width: int) -> None:
    text = shown(LOOK, width, 30)

    for part in (
        "api-1", "3 jobs", "ok", "broadcaster 16/16 2s", "mail", "4/4 slots, credit 0", "late 5s  late one",
        "in 1m 30s  feeds", "just ran: 2 runs, 1 failed", "+2.0ms  succeeded     12ms", "failed", "missed",
        "ValueError: boom", "WARNING app",
    ):  # fmt: skip
        assert part in text


def test_what_is_wrong_and_that_it_ends_is_said_at_the_top() -> None:
    degraded = evolve(LOOK, status="degraded", reasons=["the store does not answer: disk I/O error"])

    assert "the store does not answer: disk I/O error" in shown(degraded)
    assert "waiting for 2 runs" in shown(evolve(degraded, draining="SIGTERM: draining, waiting for 2 runs"))


def test_a_look_into_a_job_and_what_a_key_has_done() -> None:
    job = JobLook(
        "feeds", [("state", "paused"), ("schedule", "every 3 seconds")], (), [entry("fired", "failed")], ["E: x"]
    )
    text = shown(evolve(LOOK, mode="job", job=job, message="feeds: paused"))

    for part in ("paused", "every 3 seconds", "last runs", "last failure", "E: x", "feeds: paused"):
        assert part in text


def test_the_chosen_job_stays_in_sight() -> None:
    found = [f"job-{number}" for number in range(1000)]

    assert "▸ job-700" in shown(evolve(LOOK, mode="search", found=found, chosen=700))


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1bOB", ["up", "down"]),
        (b"\x1b", ["back"]),
        (b"\x1b[15~p", ["p"]),
        (b"\r\x7f", ["enter", "erase"]),
        ("né界".encode(), ["n", "é", "界"]),
        (b"\xff", ["\ufffd"]),
        (b"\x1b[", []),
    ],
)
def test_keys_are_what_terminals_send(data: bytes, keys: list[str]) -> None:
    assert keys_of(data) == keys
