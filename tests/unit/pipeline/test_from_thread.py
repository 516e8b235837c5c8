"""`scheduler.from_thread` is the scheduler, for plain threads: every command and query, with the same arguments."""

from __future__ import annotations

import inspect

import pytest

from clepsydra import Scheduler
from clepsydra.pipeline.from_thread import FromThread

NOT_CARRIED = {"task", "job", "tasks", "declared_jobs", "from_toml", "stages", "run", "attach", "events", "enqueue_in"}
"""Declarations, which come before; what calls back on the loop; and what is for any thread as it is."""

ITS_OWN = {"entered", "left", "result"}


def public(of: type) -> dict[str, object]:
    return {name: member for name, member in inspect.getmembers_static(of) if not name.startswith("_")}


def test_it_has_every_command_and_query_of_the_scheduler_and_nothing_else() -> None:
    assert set(public(FromThread)) - ITS_OWN == set(public(Scheduler)) - NOT_CARRIED


@pytest.mark.parametrize("name", sorted(set(public(FromThread)) - ITS_OWN))
def test_its_methods_take_and_give_what_the_schedulers_do(name: str) -> None:
    theirs, ours = public(Scheduler)[name], inspect.signature(getattr(FromThread, name))
    signature = inspect.signature(theirs.fget if isinstance(theirs, property) else theirs)  # type: ignore[arg-type]
    gives = str(signature.return_annotation).replace("AsyncIterator", "Sequence")

    assert list(ours.parameters.values()) == list(signature.parameters.values())
    assert ours.return_annotation == gives
    assert (getattr(FromThread, name).__doc__ or "").startswith(f"As `Scheduler.{name}`")
