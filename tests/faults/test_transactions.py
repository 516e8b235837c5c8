"""kill -9 at any instant: what was enqueued with an order is there with it, and what paid for it paid once."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import pytest

from ..postgres import Schemas, say
from .processes import Nursery

Ask: TypeAlias = Callable[[str], list[tuple[Any, ...]]]
"""Gives the rows of a query, in which `{orders}` and `{executions}` stand for the tables."""


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[list[str], Ask]]:
    """Where the shop is, as its program takes it; and a way to look into it."""
    if request.param == "sqlite":
        path = tmp_path / "shop.db"

        def ask_file(sql: str) -> list[tuple[Any, ...]]:
            with closing(sqlite3.connect(path, timeout=20)) as connection:
                return connection.execute(sql.format(orders="orders", executions="executions")).fetchall()

        yield [str(path)], ask_file
        return
    schemas: Schemas = request.getfixturevalue("postgres")
    schema = schemas.take()

    def ask_server(sql: str) -> list[tuple[Any, ...]]:
        return say(schemas.dsn, sql.format(orders=f"{schema}_orders", executions=f"{schema}.executions"))

    yield [schemas.dsn, "--schema", schema], ask_server
    say(schemas.dsn, f"DROP TABLE {schema}_orders")
    schemas.give_back(schema)


def test_killed_at_any_instant_each_order_has_one_payment_and_is_paid_once(
    processes: Nursery, place: tuple[list[str], Ask], random: Random, long_run: bool
) -> None:
    arguments, ask = place
    for _ in range(150 if long_run else 6):
        shop = processes.start("shop_program", *arguments)
        processes.wait_for(lambda shop=shop: "open" in shop.said(), "an open shop")  # type: ignore[misc]
        time.sleep(random.uniform(0, 0.6))  # not a wait: this is the instant
        shop.kill()
    last = processes.start("shop_program", *arguments, "--closing")
    processes.wait_for(lambda: "open" in last.said(), "an open shop")
    processes.wait_for(
        lambda: ask("SELECT count(*) FROM {executions} WHERE state IN ('pending', 'running')") == [(0,)],
        "the last payment",
    )
    processes.stop(last)

    orders = ask("SELECT id, paid FROM {orders} ORDER BY id")
    payments = ask("SELECT key, state FROM {executions} ORDER BY key")
    assert len(orders) > 20
    assert payments == [(order, "succeeded") for order, _ in orders]
    assert {paid for _, paid in orders} == {1}
