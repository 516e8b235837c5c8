"""The scripts of the benchmarks measure: each of ours once, at a tiny size, without the peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..postgres import Schemas

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"

OURS = [
    ("fan_out.py", "asyncio", "clepsydra", 20),
    ("cron_steps.py", "all", "clepsydra", 2),
    ("idle.py", "SQLite", "clepsydra", 50),
    ("drain.py", "SQLite", "clepsydra", 100),
    ("drain.py", "PostgreSQL", "clepsydra", 100),
    ("pick_up.py", "PostgreSQL", "clepsydra, elsewhere", 2),
]
THE_OTHERS = [
    ("fan_out.py", "uvloop", "clepsydra", 20),
    ("fan_out.py", "trio", "clepsydra", 20),
    ("fan_out.py", "trio", "bare loop", 20),
    ("cron_steps.py", "all", "croniter", 2),
    ("idle.py", "memory", "clepsydra", 50),
    ("idle.py", "memory", "clepsydra, crons by the minute", 50),
    ("idle.py", "memory", "clepsydra without jobs", 50),
    ("idle.py", "PostgreSQL", "clepsydra", 50),
    ("cron_steps.py", "all", "cronsim", 2),
    ("drain.py", "SQLite", "bare loop, batches of 64", 100),
    ("drain.py", "PostgreSQL", "bare loop, batches of 64", 100),
    ("pick_up.py", "SQLite", "clepsydra", 2),
    ("pick_up.py", "SQLite", "clepsydra, elsewhere", 2),
    ("pick_up.py", "PostgreSQL", "clepsydra", 2),
    ("pick_up.py", "SQLite", "bare loop", 2),
    ("pick_up.py", "PostgreSQL", "bare loop", 2),
    ("pick_up.py", "PostgreSQL", "bare: one commit", 2),
    ("pick_up.py", "PostgreSQL", "bare: NOTIFY round trip", 2),
    ("queued_memory.py", "SQLite", "clepsydra", 50),
    ("queued_memory.py", "PostgreSQL", "clepsydra", 50),
    ("scheduled_durable.py", "SQLite", "clepsydra", 20),
    ("scheduled_durable.py", "SQLite", "bare loop, batches of 64", 100),
    ("scheduled_durable.py", "PostgreSQL", "clepsydra", 20),
    ("scheduled_durable.py", "PostgreSQL", "bare loop, batches of 64", 100),
    ("steady_state.py", "1,000 a second", "clepsydra", 1),
    ("steady_state.py", "10,000 a second, spread", "bare loop", 1),
    ("growth.py", "jobs, memory", "clepsydra", 100),
    ("growth.py", "history, SQLite", "clepsydra", 100),
    ("growth.py", "history, PostgreSQL", "clepsydra", 100),
    ("growth.py", "nodes, SQLite", "clepsydra", 1),
    ("growth.py", "nodes, PostgreSQL", "clepsydra", 1),
    ("soak.py", "virtual time", "clepsydra", 2),
    ("soak.py", "memory", "clepsydra", 5),
    ("soak.py", "SQLite", "clepsydra", 5),
]


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the benchmarks are not installed")
@pytest.mark.parametrize(
    ("script", "group", "contender", "size"),
    [*OURS, *(pytest.param(*other, marks=pytest.mark.long) for other in THE_OTHERS)],
)
def test_a_benchmark_measures(
    script: str, group: str, contender: str, size: int, request: pytest.FixtureRequest
) -> None:
    environment = dict(os.environ)
    if "PostgreSQL" in group:
        postgres: Schemas = request.getfixturevalue("postgres")
        environment |= {"CLEPSYDRA_BENCH_POSTGRES": postgres.dsn, "CLEPSYDRA_BENCH_UNSYNCED": "yes"}

    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), "--one", group, contender, "--size", str(size)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=300,
    )

    assert done.returncode == 0, done.stderr
    numbers = json.loads(done.stdout.splitlines()[-1])
    assert numbers
    assert all(isinstance(number, float) for number in numbers.values()), numbers
