"""The overlap rule: what becomes of an execution whose job is busy. One pure function, asked inside the store's
`start`, so that it holds across processes.

An execution occupies its job from its first start until it has ended and its task has stopped, waits for a retry or
after a snooze included. Success, failure, cancellation and timeout free it alike.
"""

from __future__ import annotations

from enum import Enum, auto

from .policies import Overlap


class Decision(Enum):
    """What to do with the execution that wants to start."""

    START = auto()
    SKIP = auto()
    HOLD = auto()
    """It waits until a `finish` makes room."""
    CANCEL_OTHERS = auto()
    """Those that occupy the job are cancelled; it waits for them, and what waited before it is skipped."""


def judge(overlap: Overlap, max_running: int, occupying: int, held: int) -> Decision:
    """Decide, given how many executions occupy the job and how many are held for it."""
    if overlap is Overlap.ALLOW or (occupying < max_running and not held):
        return Decision.START
    if overlap is Overlap.SKIP:
        return Decision.SKIP if occupying >= max_running else Decision.START
    if overlap is Overlap.CANCEL_RUNNING:
        return Decision.CANCEL_OTHERS if occupying >= max_running else Decision.START
    if overlap is Overlap.BUFFER_ONE and held:
        return Decision.SKIP
    return Decision.HOLD


def to_release(max_running: int, occupying: int, held: int) -> int:
    """How many held executions there is room for now."""
    return max(0, min(held, max_running - occupying))
