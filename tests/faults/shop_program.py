"""A shop that keeps its orders beside the scheduler's work, to be killed: `shop_program.py PLACE [--closing]`.

PLACE is a SQLite file, or with `--schema` a connection string of PostgreSQL. A clerk takes orders, and enqueues the
payment of each in the order's transaction, of which every third is rolled back; a payment adds one to its order and
finishes in the same transaction. However often it is killed: every order has one payment, and is paid once.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sqlite3
import sys
import threading
import uuid
from collections.abc import Generator
from contextlib import closing, contextmanager
from itertools import count
from typing import Any

import anyio
import anyio.to_thread
import psycopg

from clepsydra import ExecutorSettings, Retry, Scheduler, SQLiteStorage, Stages, Task, current_execution
from clepsydra.pipeline.settings import BroadcasterSettings
from clepsydra.storage.postgres import PostgresStorage

SETTINGS = Stages(
    execution_broadcaster=BroadcasterSettings(poll=0.1),
    executor=ExecutorSettings(concurrency=8),
    lease=1.5,
    heartbeat=0.5,
    grace=5,
)


class Shop:
    """The app."""

    def __init__(self, place: str, schema: str | None) -> None:
        self.place, self.schema = place, schema
        in_file = schema is None
        storage = SQLiteStorage(place, with_app_tables=True) if in_file else PostgresStorage(place, schema=schema or "")
        self.pay = Task(self._pay, "pay")
        self.scheduler = Scheduler(storage, stages=SETTINGS, tasks=[self.pay])
        self.closed = threading.Event()

    @contextmanager
    def connection(self) -> Generator[Any]:
        """The shop's own."""
        given: Any
        given = sqlite3.connect(self.place, timeout=20) if self.schema is None else psycopg.connect(self.place)
        with closing(given) as connection:
            yield connection

    def say(self, connection: Any, sql: str, *parameters: object) -> None:
        """In either dialect."""
        table = "orders" if self.schema is None else f"{self.schema}_orders"
        mark = "?" if self.schema is None else "%s"
        connection.execute(sql.format(orders=table, mark=mark), parameters)

    def _pay(self, order: str) -> None:
        with self.connection() as connection, current_execution().transaction(connection):
            self.say(connection, "UPDATE {orders} SET paid = paid + 1 WHERE id = {mark}", order)

    def take_orders(self) -> None:
        """In a thread."""
        with self.connection() as connection:
            for number in count():
                if self.closed.wait(0.002):
                    return
                order = str(uuid.uuid4())
                self.say(connection, "INSERT INTO {orders} VALUES ({mark}, 0)", order)
                self.scheduler.enqueue_in(
                    connection,
                    self.pay.call(order),
                    key=order,
                    recovery="requeue",
                    retry=Retry(attempts=1000, backoff=0.01, factor=1),
                )
                if number % 3 == 2:
                    connection.rollback()
                else:
                    connection.commit()

    async def live(self, *, taking_orders: bool) -> None:
        """Until SIGTERM."""
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            async with self.scheduler, anyio.create_task_group() as group:
                with self.connection() as connection:
                    self.say(connection, "CREATE TABLE IF NOT EXISTS {orders} (id text PRIMARY KEY, paid int)")
                    connection.commit()
                if taking_orders:
                    group.start_soon(anyio.to_thread.run_sync, self.take_orders)
                sys.stdout.write("open\n")
                sys.stdout.flush()
                async for _ in signals:
                    break
                self.closed.set()


def main() -> None:
    """Read the command line and live."""
    parser = argparse.ArgumentParser()
    parser.add_argument("place")
    parser.add_argument("--schema")
    parser.add_argument("--closing", action="store_true", help="take no more orders")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    anyio.run(lambda: Shop(options.place, options.schema).live(taking_orders=not options.closing))


if __name__ == "__main__":
    main()
