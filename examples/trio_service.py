"""A trio service: the scheduler runs in a nursery beside what the service does.

    pip install "clepsydra[trio]"
    python examples/trio_service.py

`nursery.start` returns when jobs are being fired. A cancellation of the nursery drains the scheduler first: what runs
has the grace of the settings.
"""

from __future__ import annotations

import sys
from datetime import timedelta

import trio

from clepsydra import Every, Retry, Scheduler, Stages, current_execution

scheduler = Scheduler(stages=Stages(grace=timedelta(seconds=5)))
attempts: list[int] = []


@scheduler.job(Every(seconds=0.2), name="sample")
async def sample() -> None:
    """Async tasks may use everything that trio has."""
    with trio.move_on_after(1):
        await trio.sleep(0.01)
    print("sampled", current_execution().nominal)


@scheduler.task(name="flaky")
async def flaky() -> str:
    """Fails the first time."""
    attempts.append(current_execution().attempt)
    if len(attempts) == 1:
        raise ConnectionError("nobody there")
    return "got through"


async def main(seconds: float) -> None:
    """Serve for so long."""
    async with trio.open_nursery() as nursery:
        await nursery.start(scheduler.run)
        handle = await scheduler.enqueue(flaky.call(), retry=Retry(attempts=3, backoff=0.05))
        print(await handle.result())
        await trio.sleep(seconds)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
