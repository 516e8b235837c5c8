"""Claims ahead of the slots grow with what short runs use up, and vanish where they wait."""

from __future__ import annotations

from random import Random

import pytest

from clepsydra.stages.ahead import LONGEST_WAIT, QUIET, Ahead

SHORT, LONG = 0.001, 1.0


def used_up(ahead: Ahead, queue: str = "q", *, slots: int = 64, now: float = 0.0, took: float | None = SHORT) -> int:
    """The store has more, and all that was claimed is gone."""
    ahead.learn(queue, slots, now, waiting=0, waited=0.0, took=took)
    return ahead.of(queue)


def test_it_doubles_each_time_that_all_is_used_up_until_one_write_is_full() -> None:
    ahead = Ahead(1024)

    assert ahead.of("q") == 0
    assert [used_up(ahead) for _ in range(9)] == [8, 16, 32, 64, 128, 256, 512, 1024, 1024]


def test_a_queue_of_one_slot_begins_with_one() -> None:
    assert used_up(Ahead(1024), slots=1) == 1


@pytest.mark.parametrize("took", [LONG, None], ids=["long runs", "none has ended"])
def test_it_does_not_begin_where_runs_are_not_known_to_be_short(took: float | None) -> None:
    assert used_up(Ahead(1024), took=took) == 0


@pytest.mark.parametrize(
    ("waiting", "waited", "expected"),
    [(0, LONGEST_WAIT, 32), (5, LONGEST_WAIT, 32), (5, 0.0, 64), (0, LONGEST_WAIT / 2, 64), (0, 0.0, 128)],
    ids=["halved after long waits", "halved while some wait", "kept while some wait", "kept", "doubled"],
)
def test_waiting_makes_it_less(waiting: int, waited: float, expected: int) -> None:
    ahead = Ahead(1024)
    while used_up(ahead) < 64:
        pass

    ahead.learn("q", 64, 0.0, waiting=waiting, waited=waited, took=SHORT)

    assert ahead.of("q") == expected


def test_what_was_given_back_leaves_its_queue_quiet_for_a_while() -> None:
    ahead = Ahead(1024)
    used_up(ahead)

    ahead.gave_back("q", 10.0)

    assert ahead.of("q") == 0
    assert used_up(ahead, now=10.0 + QUIET / 2) == 0
    assert used_up(ahead, "other", now=10.0) == 8
    assert used_up(ahead, now=10.0 + QUIET) == 8


def test_a_queue_that_is_not_asked_any_more_leaves_its_part_to_the_others() -> None:
    ahead = Ahead(10)
    assert [used_up(ahead, "a"), used_up(ahead, "b")] == [8, 2]

    ahead.rest_all_but({"b"})

    assert (ahead.of("a"), used_up(ahead, "b")) == (0, 4)


def test_all_queues_together_never_have_more_than_one_write_carries() -> None:
    random, ahead, queues = Random(4), Ahead(1024), ["a", "b", "c", "d"]
    for _ in range(2000):
        queue = random.choice(queues)
        match random.randrange(8):
            case 0:
                ahead.rest(queue)
            case 1:
                ahead.learn(queue, 64, 0.0, waiting=1, waited=random.random(), took=SHORT)
            case _:
                used_up(ahead, queue, slots=random.choice([1, 64, 1000]))
        assert 0 <= sum(ahead.of(queue) for queue in queues) <= 1024
