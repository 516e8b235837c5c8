"""Hints: how a store says at once that another process has written something.

A hint is never the only way to learn of it: whoever is told looks into the store, and looks there from time to time
anyway. So hints may be lost, doubled, or about nothing. Not every store gives them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable


@runtime_checkable
class GivesHints(Protocol):
    """A store that can tell when there may be news from other processes."""

    def listen(self, on_hint: Callable[[], object]) -> Callable[[], None]:
        """From now on call this when there may be news, from a thread of the store's; gives what ends it.

        Returns at once, whether the store can be reached or not; while it cannot, nothing is heard.
        """
        ...
