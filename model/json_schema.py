"""JSON schemas (2020-12) of what a task takes and gives, derived from its type hints.

They tell other processes, pages and people what a task expects; nothing is checked against them here. Only types that
JSON can carry are described: any other type, and a hint that cannot be read, has the empty schema, which allows
everything. Classes with fields (typed dictionaries, dataclasses, attrs) stand under `$defs`, so that they may refer to
themselves. Pure; never raises on account of a hint.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from enum import Enum
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NewType,
    NotRequired,
    Required,
    TypeAlias,
    Union,
    Unpack,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import attrs

from .errors import InvalidArgument
from .payload import JsonText, encode
from .signals import Cancel, Snooze

Schema: TypeAlias = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_SCALARS: Final[tuple[tuple[type, str], ...]] = (
    (bool, "boolean"),  # before int, of which it is a subclass
    (int, "integer"),
    (float, "number"),
    (str, "string"),
    (types.NoneType, "null"),
)
_SIGNALS: Final = (Snooze, Cancel)
_WRAPPERS: Final[tuple[Any, ...]] = (Annotated, Required, NotRequired, Final)
_UNIONS: Final[tuple[Any, ...]] = (Union, types.UnionType)
_JSON_SCALARS: Final = (str, bool, int, float, types.NoneType)


def arguments_schema(function: Callable[..., Any], signature: inspect.Signature) -> JsonText:
    """The schema of a task's arguments by name, as they are stored."""
    describer = _Describer()
    return describer.text(describer.arguments(signature, hints_of(function)))


def result_schema(function: Callable[..., Any]) -> JsonText:
    """The schema of what a task gives back. `Snooze` and `Cancel` are no results."""
    describer = _Describer()
    hint = hints_of(function).get("return", Any)
    if get_origin(hint) in (Awaitable, Coroutine):  # a plain function that makes a coroutine
        hint = get_args(hint)[-1]
    return describer.text(describer.schema(hint))


def hints_of(holder: Any) -> Mapping[str, Any]:
    """The type hints of a function or a class, but for those that cannot be read: local names, say."""
    try:
        return get_type_hints(holder, include_extras=True)
    except Exception:  # whatever the text of a hint does when it is evaluated
        return _readable_hints(holder)


def _readable_hints(holder: Any) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for part in reversed(holder.__mro__) if isinstance(holder, type) else [holder]:
        # A wrapper has the hints of what it wraps, and they mean what they mean there.
        origin = inspect.unwrap(part) if callable(part) else part
        module = sys.modules.get(getattr(origin, "__module__", None) or "")
        names = getattr(origin, "__globals__", None) or vars(module or types)
        for name, hint in dict(getattr(part, "__annotations__", None) or {}).items():
            alone = types.SimpleNamespace(__annotations__={name: hint})
            try:
                found.update(get_type_hints(alone, globalns=names, include_extras=True))
            except Exception:  # this one, then
                found.pop(name, None)
    return found


class _Describer:
    """Makes one schema, and collects the classes that it names."""

    def __init__(self) -> None:
        self._names: dict[type, str] = {}
        self._definitions: dict[str, Schema] = {}

    def text(self, schema: Schema) -> JsonText:
        """The whole schema as JSON."""
        whole = {"$schema": DIALECT, **schema}
        if self._definitions:
            whole["$defs"] = self._definitions
        return encode(whole, "schema")

    def arguments(self, signature: inspect.Signature, hints: Mapping[str, Any]) -> Schema:
        """An object with a property for each parameter."""
        properties: dict[str, Schema] = {}
        required: list[str] = []
        others: Schema | bool = False
        for parameter in signature.parameters.values():
            hint = hints.get(parameter.name, Any)
            if parameter.kind is parameter.VAR_KEYWORD:
                others = self._keywords(hint, properties, required)
            elif parameter.kind is parameter.VAR_POSITIONAL:
                properties[parameter.name] = self._array(hint)
            else:
                properties[parameter.name] = self.schema(hint) | _default(parameter.default)
                if parameter.default is parameter.empty:
                    required.append(parameter.name)
        return _object(properties, required) | ({} if others == {} else {"additionalProperties": others})

    def _keywords(self, hint: Any, properties: dict[str, Schema], required: list[str]) -> Schema | bool:
        """What `**options` allow: values of one type, or the keys of an unpacked typed dictionary."""
        if get_origin(hint) is not Unpack:
            return self.schema(hint)
        (keys,) = get_args(hint)
        if not is_typeddict(keys):
            return {}
        fields = self._typed_dict(keys)
        properties.update(fields["properties"])
        required.extend(fields.get("required", ()))
        return False

    def schema(self, hint: Any) -> Schema:
        """The schema of one type."""
        hint = _unwrapped(hint)
        origin, args = get_origin(hint), get_args(hint)
        if hint is None:
            return {"type": "null"}
        if origin in _UNIONS:
            return self._union(args)
        if origin is Literal:
            return _values(args)
        kind = origin if origin is not None else hint
        return self._of_class(cast(type[Any], kind), args) if isinstance(kind, type) else {}

    def _union(self, members: Sequence[Any]) -> Schema:
        schemas: list[Schema] = []
        for member in members:
            schema = self.schema(member)
            if member not in _SIGNALS and schema not in schemas:
                schemas.append(schema)
        if {} in schemas or not schemas:
            return {}
        return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}

    def _of_class(self, kind: type[Any], args: tuple[Any, ...]) -> Schema:
        if issubclass(kind, Enum):
            return _values(list(kind))
        if is_typeddict(kind) or dataclasses.is_dataclass(kind) or attrs.has(kind):
            return self._named(kind)
        for scalar, name in _SCALARS:
            if issubclass(kind, scalar):
                return {"type": name}
        if issubclass(kind, tuple):
            return self._tuple(args) if kind is tuple and args else {"type": "array"}  # a named tuple is one as well
        if issubclass(kind, Mapping):
            return self._mapping(args)
        if issubclass(kind, Sequence) or kind in (Collection, Iterable):
            return {} if issubclass(kind, bytes | bytearray | memoryview) else self._array(*args[:1])
        return {}

    def _array(self, item: Any = Any) -> Schema:
        schema = self.schema(item)
        return {"type": "array", "items": schema} if schema else {"type": "array"}

    def _mapping(self, args: tuple[Any, ...]) -> Schema:
        schema = self.schema(args[1]) if len(args) == 2 else {}
        return {"type": "object", "additionalProperties": schema} if schema else {"type": "object"}

    def _tuple(self, args: tuple[Any, ...]) -> Schema:
        if len(args) == 2 and args[1] is ...:
            return self._array(args[0])
        members = [self.schema(arg) for arg in args]
        return {"type": "array", "prefixItems": members, "minItems": len(members), "maxItems": len(members)}

    # ---- classes with fields

    def _named(self, kind: type[Any]) -> Schema:
        name = self._names.get(kind)
        if name is None:
            name = kind.__name__ if kind.__name__ not in self._definitions else f"{kind.__module__}.{kind.__qualname__}"
            self._names[kind] = name
            self._definitions[name] = {}  # taken, before a field refers to it
            self._definitions[name] = self._fields(kind)
        return {"$ref": f"#/$defs/{name}"}

    def _fields(self, kind: type[Any]) -> Schema:
        if is_typeddict(kind):
            return self._typed_dict(kind)
        hints = hints_of(kind)
        fields = _attrs_fields(kind) if attrs.has(kind) else _dataclass_fields(kind)
        return _object(
            {shown: self.schema(hints.get(name, Any)) for name, shown, _ in fields},
            [shown for _, shown, needed in fields if needed],
        )

    def _typed_dict(self, kind: Any) -> Schema:
        hints = hints_of(kind)
        needed: frozenset[str] = kind.__required_keys__
        return _object(
            {name: self.schema(hint) for name, hint in hints.items()},
            [name for name, hint in hints.items() if _is_required(hint, name in needed)],
        )


def _is_required(hint: Any, otherwise: bool) -> bool:
    """Read from the hint: where hints are text, the class itself has not seen these words."""
    origin = get_origin(hint)
    return origin is Required or (origin is not NotRequired and otherwise)


def _attrs_fields(kind: Any) -> list[tuple[str, str, bool]]:
    """Name, name as an argument, and whether it must be given."""
    return [
        (field.name, field.alias or field.name, field.default is attrs.NOTHING)
        for field in attrs.fields(kind)
        if field.init
    ]


def _dataclass_fields(kind: Any) -> list[tuple[str, str, bool]]:
    missing = dataclasses.MISSING
    return [
        (field.name, field.name, field.default is missing and field.default_factory is missing)
        for field in dataclasses.fields(kind)
        if field.init
    ]


def _object(properties: Mapping[str, Schema], required: Sequence[str]) -> Schema:
    schema: Schema = {"type": "object", "properties": dict(properties)}
    return schema | {"required": list(required)} if required else schema


def _values(members: Iterable[Any]) -> Schema:
    """One of these values, if JSON can carry them."""
    values = [member.value if isinstance(member, Enum) else member for member in members]
    if not values or not all(isinstance(value, _JSON_SCALARS) for value in values):
        return {}
    return {"const": values[0]} if len(values) == 1 else {"enum": values}


def _default(default: Any) -> Schema:
    if default is inspect.Parameter.empty:
        return {}
    if isinstance(default, Enum):
        default = default.value
    try:
        encode(default, "default")
    except InvalidArgument:
        return {}
    return {"default": default}


def _unwrapped(hint: Any) -> Any:
    """The type itself, without what is said about it and without the names that were given to it."""
    while True:
        if get_origin(hint) in _WRAPPERS:
            hint = get_args(hint)[0]
        elif isinstance(hint, NewType):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":  # `type Name = ...`, of Python 3.12
            hint = hint.__value__
        else:
            return hint
