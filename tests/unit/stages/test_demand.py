"""The board between executor and execution broadcaster: what is promised is looked for until it has ended."""

from __future__ import annotations

from clepsydra.stages.demand import Demand


def test_a_promise_made_while_an_earlier_one_of_the_same_mark_ends_is_kept() -> None:
    demand = Demand()
    demand.promise("writer")
    demand.promise("7")
    asked = dict(demand.promised)
    demand.promise("writer")  # the next transaction, while the store says that the one before has ended

    demand.drop_promises(asked)

    assert list(demand.promised) == ["writer"]
    demand.drop_promises(dict(demand.promised))
    assert demand.promised == {}


def test_the_executor_asks_by_itself_only_where_no_job_is_due() -> None:
    demand = Demand()
    demand.drawn = {"mail", "bulk"}

    demand.note_overdue(["mail"])

    assert (demand.drawn, demand.overdue) == ({"bulk"}, {"mail"})
    demand.restarted()
    assert demand.drawn == set()
