"""What a store must do in a child made by `fork`: it must not use what its parent has open."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable


def watch_forks(forget_parent: Callable[[], None]) -> None:
    """Call this method in every child, as long as its object lives."""
    if not hasattr(os, "register_at_fork"):
        return
    method = weakref.WeakMethod(forget_parent)

    def in_child() -> None:
        if (living := method()) is not None:
            living()

    os.register_at_fork(after_in_child=in_child)
