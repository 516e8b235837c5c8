"""How SQLite writes what SQL leaves open. Lists of ids and names go down as one JSON array each: they may be long."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from .sql import Dialect
from .sqlite_schema import CORRELATION_OF_LABELS

IN_LIST = "IN (SELECT value FROM json_each(?))"
"""Membership in a list that is one parameter."""


def listed(values: Iterable[str | int]) -> str:
    """A list as one parameter, for `IN_LIST`."""
    return json.dumps(list(values))


_LABELS = "json_each(CASE WHEN json_valid(labels) THEN labels ELSE '{}' END) AS label"

SQLITE: Final = Dialect(
    mark="?",
    among=f"{{column}} {IN_LIST}",
    not_among=f"{{column}} NOT {IN_LIST}",
    pack=listed,
    labelled=f"EXISTS (SELECT 1 FROM {_LABELS} WHERE label.key = ? AND label.value = ?)",
    has_label=f"EXISTS (SELECT 1 FROM {_LABELS} WHERE label.key = ?)",
    greatest="max",
    unlimited=-1,
    correlated=f"labels <> '{{}}' AND {CORRELATION_OF_LABELS} = ?",
    index=" INDEXED BY {index}",
)
