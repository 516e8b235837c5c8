"""huey on SQLite with fsync, measured: `with_huey.py drain|pick_up SIZE FILE`, in an environment where it is installed.

Its consumer runs here, with one worker thread and its other defaults. One call enqueues one task. It deletes what it
takes, before it runs it, and keeps no history.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import threading
import time
from typing import Any

WORKERS = 1
ENOUGH = 2000
"""It runs a few thousand a second: so many say what more would."""


def made(path: str) -> Any:
    """As its users make it, its commits synced."""
    return importlib.import_module("huey").SqliteHuey(filename=path, fsync=True)  # not of the checks


def drain(size: int, path: str) -> dict[str, float]:
    """Enqueue, then run all of it."""
    huey, size = made(path), min(size, ENOUGH)
    ran, finished = 0, threading.Event()

    def noop() -> None:
        nonlocal ran
        ran += 1  # under the interpreter's lock, by one thread
        if ran == size:
            finished.set()

    task = huey.task(name="noop")(noop)
    began = time.perf_counter()
    for _ in range(size):
        task()
    numbers = {"enqueued one by one, per second": size / (time.perf_counter() - began)}
    consumer = huey.create_consumer(workers=WORKERS, worker_type="thread", periodic=False)
    began, used = time.perf_counter(), time.process_time()
    consumer.start()
    finished.wait()
    numbers["run and recorded, per second"] = size / (time.perf_counter() - began)
    numbers["CPU of the process, microseconds a run"] = (time.process_time() - used) / size * 1e6
    consumer.stop(graceful=True)
    return numbers


def pick_up(size: int, path: str) -> list[tuple[float, float]]:
    """Enqueue one after another: seconds from each call, and from its return, to the start."""
    huey = made(path)
    began = threading.Event()
    started = 0.0

    def noop() -> None:
        nonlocal started
        started = time.perf_counter()
        began.set()

    task = huey.task(name="noop")(noop)
    consumer = huey.create_consumer(workers=WORKERS, worker_type="thread", periodic=False)
    consumer.start()
    time.sleep(1)
    late: list[tuple[float, float]] = []
    for _ in range(size):
        called = time.perf_counter()
        task()
        returned = time.perf_counter()
        began.wait()
        began.clear()
        late.append((started - called, started - returned))
        time.sleep(0.02)
    consumer.stop(graceful=True)
    return late


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    print(json.dumps({"drain": drain, "pick_up": pick_up}[sys.argv[1]](int(sys.argv[2]), sys.argv[3])))
