"""The PostgreSQL store behind PgBouncer, which hands each transaction to any of two connections.

It needs the program `pgbouncer`, which no wheel brings; where there is none this is skipped.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import anyio
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from clepsydra import Every, Job, Scheduler, Task
from clepsydra.storage.conformance import CONTRACT, Check
from clepsydra.storage.postgres import PostgresStorage

from ..postgres import PostgresMaker, Schemas, say

PROGRAM = shutil.which("pgbouncer")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no program `pgbouncer` on the PATH: apt install pgbouncer")

CONNECTIONS = 2
PATIENCE = 60
KILL = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND application_name = 'clepsydra'"""
_SETTINGS = """
[databases]
* = {server}
[pgbouncer]
listen_addr =
unix_socket_dir = {folder}
auth_type = any
pool_mode = transaction
default_pool_size = {size}
query_wait_timeout = 20
log_connections = 0
log_disconnections = 0
log_pooler_errors = 0
log_stats = 0
"""


@contextmanager
def bouncer(dsn: str) -> Generator[str]:
    """A proxy before the server; how to connect to it."""
    known = conninfo_to_dict(dsn)
    wanted = {key: str(known[key]).replace("'", "''") for key in ("host", "port", "user", "password") if known.get(key)}
    server = " ".join(f"{key}='{value}'" for key, value in wanted.items())
    folder = Path(mkdtemp(prefix="clepsydra-bouncer-"))
    (folder / "settings").write_text(_SETTINGS.format(server=server, folder=folder, size=CONNECTIONS))
    user = _user(str(known.get("host", "")))
    for path in (folder, folder / "settings"):
        shutil.chown(path, user)
    process = subprocess.Popen([str(PROGRAM), str(folder / "settings")], stderr=subprocess.PIPE, user=user)
    try:
        assert process.stderr is not None
        said = iter(process.stderr.readline, b"")
        assert any(b"process up" in line for line in said), "pgbouncer did not start"
        yield make_conninfo(dsn, host=str(folder), port="6432")
    finally:
        process.terminate()
        process.communicate()
        shutil.rmtree(folder)


def _user(host: str) -> str:
    """It refuses to be root; then it is whoever may enter the folder of the server's socket."""
    if os.getuid():
        return pwd.getpwuid(os.getuid()).pw_name
    return Path(host).owner() if host.startswith("/") else "nobody"


@pytest.fixture(scope="module")
def proxy(postgres: Schemas) -> Iterator[str]:
    with bouncer(postgres.dsn) as dsn:
        yield dsn


@pytest.fixture
def maker(postgres: Schemas, proxy: str) -> Iterator[PostgresMaker]:
    made = PostgresMaker(postgres, proxy, pooled=True)
    yield made
    made.close()


@pytest.fixture
def schema(postgres: Schemas) -> Iterator[str]:
    taken = postgres.take()
    yield taken
    postgres.give_back(taken)


@pytest.mark.parametrize("check", CONTRACT, ids=str)
def test_promise_behind_a_proxy(maker: PostgresMaker, check: Check) -> None:
    check(maker)


@pytest.mark.anyio
async def test_two_schedulers_share_two_connections_and_outlive_the_loss_of_them(
    postgres: Schemas, proxy: str, schema: str
) -> None:
    """Each of them would have three of its own."""
    ran: Counter[int] = Counter()
    more = anyio.Event()

    async def mail(number: int) -> None:
        nonlocal more
        ran[number] += 1
        more.set()

    task = Task(mail, "mail")
    job = Job("beat", task, Every(seconds=0.05), args={"number": -1})

    def scheduler() -> Scheduler:
        return Scheduler(PostgresStorage(proxy, schema=schema, pooled=True), tasks=[task], jobs=[job])

    with anyio.fail_after(PATIENCE):
        async with scheduler() as one, scheduler() as other:
            for number in range(0, 40, 2):
                await one.enqueue(task.call(number))
                await other.enqueue(task.call(number + 1))
                if number == 20:
                    assert await anyio.to_thread.run_sync(say, postgres.dsn, KILL)
            beats = ran[-1]
            while len(ran) <= 40 or ran[-1] < beats + 3:
                more = anyio.Event()
                await more.wait()
            report = await one.verify()

    assert {ran[number] for number in range(40)} == {1}
    assert report.ok, str(report)
