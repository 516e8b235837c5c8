"""Every promise of the storage protocol, checked on every adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from clepsydra.storage.conformance import CONTRACT, Check, StorageMaker
from clepsydra.storage.memory import MemoryStorage
from clepsydra.storage.protocol import Storage
from clepsydra.storage.sqlite import SQLiteStorage

from ..postgres import PostgresMaker, Schemas


class MemoryMaker:
    """Stores that live in their object."""

    def __init__(self, folder: Path) -> None:
        pass

    def __call__(self) -> Storage:
        return MemoryStorage()

    def again(self, storage: Storage) -> Storage:
        return storage


class SQLiteMaker:
    """Stores in files of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()
        self._paths: dict[int, Path] = {}

    def __call__(self) -> Storage:
        return self._on(self._folder / f"{next(self._numbers)}.db")

    def again(self, storage: Storage) -> Storage:
        return self._on(self._paths[id(storage)])

    def _on(self, path: Path) -> Storage:
        storage = SQLiteStorage(path, synchronous="NORMAL")
        self._paths[id(storage)] = path
        return storage


HERE: dict[str, Callable[[Path], StorageMaker]] = {"memory": MemoryMaker, "sqlite": SQLiteMaker}


@pytest.fixture
def on_server(postgres: Schemas) -> Iterator[PostgresMaker]:
    maker = PostgresMaker(postgres)
    yield maker
    maker.close()


@pytest.mark.parametrize("check", CONTRACT, ids=str)
@pytest.mark.parametrize("adapter", HERE)
def test_promise(adapter: str, check: Check, tmp_path: Path) -> None:
    check(HERE[adapter](tmp_path))


@pytest.mark.parametrize("check", CONTRACT, ids=str)
def test_promise_on_postgres(on_server: PostgresMaker, check: Check) -> None:
    check(on_server)


def test_each_promise_is_a_sentence_told_once() -> None:
    names = [check.name for check in CONTRACT]

    assert len(set(names)) == len(names)
    assert [check.name for check in CONTRACT if not check.promise.endswith(".")] == []
