"""A program without an event loop of its own: the scheduler lives in one thread, plain threads use it.

    python examples/threads.py

`anyio.from_thread.start_blocking_portal` gives the scheduler its loop; `scheduler.from_thread` is how everybody else
talks to it. Each call is carried to the loop and waited for, and what goes wrong there is raised here.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from anyio.from_thread import start_blocking_portal

from clepsydra import Every, Job, Scheduler

scheduler = Scheduler()


@scheduler.task(name="square")
def square(number: int) -> int:
    """Runs in a thread of the scheduler's."""
    return number * number


def squared(number: int) -> int:
    """Called in a thread of ours."""
    handle = scheduler.from_thread.enqueue(square.call(number))
    result: int = scheduler.from_thread.result(handle, timeout=10)
    return result


def main() -> list[int]:
    """Start the scheduler, use it from several threads, stop it."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(scheduler):
        scheduler.from_thread.add_job(Job("hourly", square.call(2), Every(hours=1)))
        with ThreadPoolExecutor(4) as threads:
            results = list(threads.map(squared, range(8)))
        print(results, scheduler.from_thread.health().status)
    return results


if __name__ == "__main__":
    main()
