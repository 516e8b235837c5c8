"""For tests, users' as ours: the virtual clock, and the contract that a storage adapter is held to."""

from ..storage.conformance import CONTRACT, Check, StorageMaker
from .clock import ClockInUse, ClockMiscounted, ClockStalled, VirtualClock

__all__ = [
    "CONTRACT",
    "Check",
    "ClockInUse",
    "ClockMiscounted",
    "ClockStalled",
    "StorageMaker",
    "VirtualClock",
]
