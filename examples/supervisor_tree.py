"""The scheduler as a child in an app's own supervision tree, beside a child that crashes now and then.

    python examples/supervisor_tree.py

The supervisor restarts what crashes, stops the last started first, and gives up loudly when a budget is spent. A
scheduler whose own budget is spent raises `SchedulerFailed`, which is a crash for this supervisor: it enters it again.
"""

from __future__ import annotations

import sys

import anyio

from clepsydra import Child, Every, Intensity, Restart, Scheduler, Strategy, Supervisor

scheduler = Scheduler()
crashes = 0


@scheduler.job(Every(seconds=0.2), name="beat")
async def beat() -> None:
    """A job that does not care what happens to its neighbours."""
    print("beat")


async def listen() -> None:
    """A neighbour that crashes twice, and then behaves."""
    global crashes
    if crashes < 2:
        crashes += 1
        raise ConnectionError(f"crash {crashes}")
    await anyio.sleep_forever()


def tree() -> Supervisor:
    """The app."""
    return Supervisor(
        "app",
        [
            Child("scheduler", scheduler.run),
            Child("listener", listen, restart=Restart.TRANSIENT, intensity=Intensity(restarts=5, within=10)),
        ],
        strategy=Strategy.ONE_FOR_ONE,
    )


async def main(seconds: float) -> None:
    """Run the tree for so long, and show it."""
    app = tree()
    async with anyio.create_task_group() as group:
        await group.start(app.run)
        await anyio.sleep(seconds)
        print("\n".join(app.tree().lines()))
        group.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main, float(sys.argv[1]) if len(sys.argv) > 1 else 5.0)
