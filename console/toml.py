"""Writing TOML: what Python reads, and does not write. Tables of plain values only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


class NoWord(ValueError):
    """TOML cannot say this."""


def tables(name: str, values: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The lines of `[name.key]` tables, with an empty line between them."""
    for number, (key_of, table) in enumerate(values.items()):
        if number:
            yield ""
        yield f"[{name}.{key(key_of)}]"
        for one, said in table.items():
            yield f"{key(one)} = {value(said)}"


def key(text: str) -> str:
    """A key, in quotes where it needs them."""
    return text if _BARE.fullmatch(text) else _text(text)


def value(said: object) -> str:
    """A value on one line. Raises `NoWord` for null."""
    match said:
        case None:
            raise NoWord("TOML has no word for null")
        case bool():
            return "true" if said else "false"
        case str():
            return _text(said)
        case datetime():
            return said.isoformat()
        case int() | float():
            return repr(said)
        case Mapping():
            inside = ", ".join(f"{key(str(name))} = {value(part)}" for name, part in said.items())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            return f"{{ {inside} }}" if inside else "{}"
        case list():
            return f"[{', '.join(value(part) for part in said)}]"  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case _:
            raise NoWord(f"TOML has no word for {said!r}")


def _text(text: str) -> str:
    # The escapes of JSON are TOML's, but for one character that TOML wants escaped, too.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
