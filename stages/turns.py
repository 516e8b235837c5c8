"""Many items on the event loop, so that it turns between one batch of them and the next (law 6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from anyio.lowlevel import checkpoint

T = TypeVar("T")

BATCH = 64
"""The most that is handled between two turns."""


async def in_batches(items: Sequence[T], deal_with: Callable[[Sequence[T]], object]) -> None:
    """Deal with all of them. Others have their turn in between, not before the first batch or after the last."""
    for start in range(0, len(items), BATCH):
        if start:
            await checkpoint()
        deal_with(items[start : start + BATCH])
