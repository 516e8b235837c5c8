"""Who is dead: silence counts only for those who have listened all the time."""

from __future__ import annotations

from clepsydra import Node
from clepsydra.stages.lease import Lease, Lookout

LEASE = 15.0
BEAT = LEASE / 3
LATE = 0.02
"""What a look takes: no look comes exactly a beat after the last."""


def node(beat: int, *, alive: bool | None = True) -> Node:
    return Node("other", "other", 0, beat, alive)


def test_a_node_that_is_silent_for_a_lease_is_dead_though_its_lock_is_held() -> None:
    lookout = Lookout("mine", LEASE)

    seen = [lookout.observe([node(7)], look * (BEAT + LATE)) for look in range(4)]

    assert seen == [[], [], [], ["other"]]


def test_a_free_lock_needs_no_waiting() -> None:
    assert Lookout("mine", LEASE).observe([node(7, alive=False)], 0) == ["other"]


def test_a_node_that_beats_lives() -> None:
    lookout = Lookout("mine", LEASE)

    assert not any(lookout.observe([node(look)], look * (BEAT + LATE)) for look in range(20))


def test_silence_while_the_observer_was_away_does_not_count() -> None:
    lookout = Lookout("mine", LEASE)
    lookout.observe([node(7)], 0)
    lookout.observe([node(7)], BEAT)

    assert lookout.observe([node(7)], BEAT + 2 * LEASE) == [], "both may have been suspended"
    assert lookout.observe([node(8)], 2 * BEAT + 2 * LEASE) == []


def test_silence_over_a_failed_look_does_not_count() -> None:
    lookout = Lookout("mine", LEASE)
    for look in range(3):
        lookout.observe([node(7)], look * BEAT)
    lookout.failed()

    assert lookout.observe([node(7)], 3 * BEAT) == []


def test_a_lease_is_held_for_its_length_from_when_its_renewal_was_sent() -> None:
    lease = Lease(LEASE, 0)

    assert lease.held(LEASE - 0.001)
    assert not lease.held(LEASE)
    lease.renew(LEASE)
    assert lease.held(LEASE + 1)
