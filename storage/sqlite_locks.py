"""A lock file for each node beside the database: whoever holds it is alive.

The kernel lets go of a lock when its process ends, however it ends, so a killed node is seen as dead at once and no
clock is asked. A lock belongs to the open file, not to the process: a child made by `fork` without `exec` would keep
its parent's lock held, and `after_fork` closes it there; what is started with `exec` never gets it. Processes on the
same kernel see each other's locks, containers that share a local volume included; over a network file system they do
not. Where there is no `flock` (Windows) nobody is known to be alive or dead, and heartbeats decide.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from io import FileIO
from typing import Final
from urllib.parse import quote, unquote

from ..model.errors import StoreError, StoreUnavailable

_HAS_LOCKS: Final = sys.platform != "win32"

_SUFFIX: Final = ".lock"
_TRIES: Final = 100
_PAUSE: Final = 0.01


class NodeLocks:
    """The lock files of one store, and the one that is ours."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._node_id: str | None = None
        self._file: FileIO | None = None
        self._keeping = threading.Lock()

    def hold(self, node_id: str) -> None:
        """Take the lock of this node, and let go of any other."""
        self.release()
        if not _HAS_LOCKS:
            self._node_id = node_id
            return
        try:
            os.makedirs(self.directory, exist_ok=True)
            self._file = self._locked(self._path(node_id))
        except OSError as error:
            raise StoreError(
                f"no lock file can be made in {self.directory} ({error.strerror}): this process needs the right to "
                "write there, beside the database"
            ) from error
        self._node_id = node_id

    def keep(self) -> None:
        """Take the lock anew if somebody has removed its file: without one we are taken for dead."""
        with self._keeping:
            file, node_id = self._file, self._node_id
            if file is not None and node_id is not None and not _is_named(file, self._path(node_id)):
                self.hold(node_id)

    def release(self) -> None:
        """Let go of the lock, and remove its file. Idempotent."""
        file, node_id = self._file, self._node_id
        self._file = self._node_id = None
        if file is not None and node_id is not None:
            with suppress(OSError):
                os.unlink(self._path(node_id))
            file.close()

    def is_alive(self, node_id: str) -> bool | None:
        """True: held. False: free, or there is none. None: it cannot be told."""
        if node_id == self._node_id:
            return True
        if not _HAS_LOCKS:
            return None
        try:
            with _opened(self._path(node_id)) as file:
                # Shared, so that two who look at the same time do not take each other for the node.
                return not _take(file, shared=True)
        except FileNotFoundError:
            return False
        except OSError:
            return None

    def sweep(self, known: Collection[str]) -> None:
        """Remove the lock files of nodes that are neither known nor alive."""
        if not _HAS_LOCKS:
            return
        with suppress(OSError):
            for name in os.listdir(self.directory):
                node_id = unquote(name.removesuffix(_SUFFIX))
                if name.endswith(_SUFFIX) and node_id not in known and node_id != self._node_id:
                    self._remove_free(self._path(node_id))

    def after_fork(self) -> None:
        """In a child: close the parent's lock. It stays the parent's; to unlock it here would take it from there."""
        if self._file is not None:
            self._file.close()
        self._file = self._node_id = None
        self._keeping = threading.Lock()

    def _path(self, node_id: str) -> str:
        return os.path.join(self.directory, quote(node_id, safe="") + _SUFFIX)

    def _locked(self, path: str) -> FileIO:
        """An open file that holds the lock of `path`, and is still what `path` names."""
        for _ in range(_TRIES):
            file = _opened(path, os.O_CREAT)
            # Another process may look at it just now, or have swept it away between the line above and the one below.
            if _take(file) and _is_named(file, path):
                return file
            file.close()
            time.sleep(_PAUSE)
        raise StoreUnavailable(f"the lock file {path} is held by another process; a node's id must be its own")

    def _remove_free(self, path: str) -> None:
        with _opened(path) as file:
            if _take(file):
                os.unlink(path)


def _opened(path: str, flags: int = 0) -> FileIO:
    """A file object, so that a store which nobody closes lets go of its lock when it is collected. Not for `exec`."""
    return FileIO(path, "r+", opener=lambda name, _: os.open(name, os.O_RDWR | os.O_CLOEXEC | flags, 0o666))


if sys.platform == "win32":

    def _take(file: FileIO, *, shared: bool = False) -> bool:
        raise NotImplementedError

else:
    import fcntl

    def _take(file: FileIO, *, shared: bool = False) -> bool:
        """Lock an open file; False if another one has it."""
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            raise
        return True


def _is_named(file: FileIO, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False
