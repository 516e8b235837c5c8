"""Stores by URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from clepsydra import InvalidArgument, MemoryStorage, PostgresStorage, SQLiteStorage, storage_at


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///jobs.db", "jobs.db"),
        ("sqlite:////var/lib/app/jobs.db", "/var/lib/app/jobs.db"),
        ("sqlite:///a%20b%25.db", "a b%.db"),
    ],
)
def test_a_file_is_named_from_here_or_from_the_root(url: str, path: str) -> None:
    storage = storage_at(url)

    assert isinstance(storage, SQLiteStorage)
    assert storage.path == str(Path.cwd() / path)


@pytest.mark.parametrize("url", ["memory:", "memory://", "memory:///"])
def test_memory_has_no_place(url: str) -> None:
    assert isinstance(storage_at(url), MemoryStorage)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_a_server_is_named_as_libpq_does(scheme: str) -> None:
    storage = storage_at(f"{scheme}://app:secret@db.example/jobs", schema="other")

    assert isinstance(storage, PostgresStorage)
    assert storage.settings.schema == "other"
    assert "secret" not in repr(storage)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "jobs.db",
        "sqlite:jobs.db",
        "sqlite://",
        "sqlite:///",
        "memory:x",
        "mysql://host/db",
        "postgresql:host",
        None,
        7,
    ],
)
def test_what_names_no_store_is_refused_with_what_would(url: object) -> None:
    with pytest.raises(InvalidArgument, match=r"'sqlite:///jobs\.db'"):
        storage_at(url)  # type: ignore[arg-type]


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(InvalidArgument) as refused:
        storage_at("postgresq://app:secret@host/jobs")

    assert "secret" not in str(refused.value)


def test_options_are_those_of_the_class() -> None:
    with pytest.raises(InvalidArgument, match="is no option of SQLiteStorage; known: synchronous, busy_timeout"):
        storage_at("sqlite:///jobs.db", synchron="FULL")
    with pytest.raises(InvalidArgument, match="'FULL' or 'NORMAL'"):
        storage_at("sqlite:///jobs.db", synchronous="OFF")
