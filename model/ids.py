"""Ids: UUIDs of version 7 (RFC 9562), time-ordered, made from the clock and strictly increasing within a process.

An id is made once, by the caller, before anything is stored: repeating a call whose answer was lost can then be
recognised. Ids say nothing but their order.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from .instants import MILLISECOND, Instant

_STEPS = tuple(f"{step:03x}" for step in range(4096))
"""What an id says of its place within a millisecond."""


class IdMaker:
    """Makes ids. Not thread-safe: each event loop has its own."""

    def __init__(self, now: Callable[[], Instant], entropy: int | None = None) -> None:
        random = (secrets.randbits(62) if entropy is None else entropy) & (2**62 - 1)
        tail = f"{0b10 << 62 | random:016x}"
        self._now = now
        self._last = 0
        # The random part is drawn once: within a process the counter differs, between processes this does.
        self._tail = f"-{tail[:4]}-{tail[4:]}"

    def __call__(self) -> str:
        """The next id: later in order than every id this maker has made, whatever the clock does."""
        # 48 bits of milliseconds and 12 bits that count within one; a 13th step borrows from the next millisecond.
        counter = (self._now() // MILLISECOND) << 12
        self._last = counter = counter if counter > self._last else self._last + 1
        head = f"{counter >> 12:012x}"
        return f"{head[:8]}-{head[8:]}-7{counter & 0xFFF:03x}{self._tail}"

    def many(self, count: int) -> list[str]:
        """So many ids, in order, for less than one by one."""
        first = (self._now() // MILLISECOND) << 12
        first = first if first > self._last else self._last + 1
        end = first + count
        self._last, tail = end - 1, self._tail
        ids: list[str] = []
        while first < end:  # what is the same within a millisecond is written once
            head, until = f"{first >> 12:012x}", min(end, (first | 0xFFF) + 1)
            head, step = f"{head[:8]}-{head[8:]}-7", first & 0xFFF
            ids += [f"{head}{within}{tail}" for within in _STEPS[step : step + until - first]]
            first = until
        return ids
