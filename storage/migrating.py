"""Migrating: the tables of a store made, or brought up to date, without a scheduler on it.

A scheduler does it when it is entered. Whoever deploys may want it done before, by a role that may create tables, and
to know beforehand whether there is anything to do. Not every store has a schema; one in memory has none.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from attrs import frozen

from ..model.errors import StoreError
from .protocol import Storage


@runtime_checkable
class HasSchema(Protocol):
    """A store whose tables have a version."""

    def schema_versions(self) -> tuple[int, int]:
        """What it has, 0 where there is nothing yet, and what this code works with. Raises `StoreTooNew`."""
        ...

    def migrate(self) -> None:
        """Take the missing steps, all or none. Repeating it changes nothing."""
        ...


@frozen
class Migration:
    """What a migration did, or would do."""

    found: int
    """The version of the schema that was there; 0: none."""
    version: int
    """The one that is there now, or would be."""

    @property
    def needed(self) -> bool:
        """Whether there was something to do."""
        return self.found < self.version


def migrate_store(storage: Storage, *, dry_run: bool = False) -> Migration:
    """Make a store's tables, or bring them up to date; with `dry_run` only say what that would come to.

    Schedulers at work on the store go on with the tables as they are then, if their version of the library knows them.
    """
    if not isinstance(storage, HasSchema):
        raise StoreError(f"{type(storage).__name__} has no schema that could be migrated")
    migration = Migration(*storage.schema_versions())
    if migration.needed and not dry_run:
        storage.migrate()
    return migration
