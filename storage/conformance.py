"""One contract for every store: what they all must do, as checks that anybody can run on an adapter of theirs.

    for check in CONTRACT:
        check(make_storage)

`make_storage()` gives a storage on a fresh, empty place, not opened; `make_storage.again(storage)` another one on the
same data (see `StorageMaker`). A check raises `AssertionError` when its promise is not kept. No test framework is
needed; with pytest, parametrise over `CONTRACT` and let `str(check)` name the test.
"""

from __future__ import annotations

from collections.abc import Sequence

from .promises import (
    auditing,
    cancelling,
    enqueueing,
    finishing,
    firing,
    jobs,
    lifecycle,
    overlap,
    placing,
    queries,
    rescuing,
    retention,
    starting,
)
from .promises.ground import Check, StorageMaker

_PARTS = (
    *(lifecycle, jobs, firing, enqueueing, placing, starting, overlap),
    *(finishing, cancelling, rescuing, queries, retention, auditing),
)

CONTRACT: Sequence[Check] = tuple(value for part in _PARTS for value in vars(part).values() if isinstance(value, Check))
"""Every promise of the storage protocol, in the order in which the modules make them."""

__all__ = ["CONTRACT", "Check", "StorageMaker"]
