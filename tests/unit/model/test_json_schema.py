"""What a task takes and gives is described by JSON schemas made of its type hints."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum, IntEnum
from functools import partial, wraps
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType, NotRequired, Optional, TypedDict, Unpack

import attrs
import pytest

from clepsydra import Cancel, Snooze, Task
from clepsydra.model.json_schema import DIALECT, arguments_schema, result_schema

if TYPE_CHECKING:
    from types import SimpleNamespace as Unknown  # at run time there is no such name here


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1


class Address(TypedDict):
    street: str
    floor: NotRequired[int]


class Tree(TypedDict, total=False):
    value: int
    children: list[Tree]


@dataclasses.dataclass
class Person:
    name: str
    friends: list[Person] = dataclasses.field(default_factory=list["Person"])
    age: int = dataclasses.field(default=0, init=False)


@attrs.frozen
class Order:
    number: int
    _note: str = ""


UserId = NewType("UserId", int)


def schema_of(hint: Any) -> dict[str, Any]:
    """The schema of one type, seen through a result."""

    def function() -> None: ...

    function.__annotations__["return"] = hint
    schema = json.loads(result_schema(function))
    assert schema.pop("$schema") == DIALECT
    return dict(schema)


def object_of(required: Sequence[str], **properties: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return schema | {"required": list(required)} if required else schema


NOT_JSON = object()
INTEGER, STRING = {"type": "integer"}, {"type": "string"}


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (int, INTEGER),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (None, {"type": "null"}),
        (UserId, INTEGER),
        (Annotated[str, "a name"], STRING),
        (Any, {}),
        (object, {}),
        (bytes, {}),
        (set[int], {}),
        (Callable[[], int], {}),
        (list, {"type": "array"}),
        (list[int], {"type": "array", "items": INTEGER}),
        (Sequence[str], {"type": "array", "items": STRING}),
        (tuple[int, ...], {"type": "array", "items": INTEGER}),
        (tuple[int, str], {"type": "array", "prefixItems": [INTEGER, STRING], "minItems": 2, "maxItems": 2}),
        (tuple, {"type": "array"}),
        (dict[str, Any], {"type": "object"}),
        (Mapping[str, int], {"type": "object", "additionalProperties": INTEGER}),
        (Optional[int], {"anyOf": [INTEGER, {"type": "null"}]}),  # noqa: UP045 - as it is written in older code
        (int | str, {"anyOf": [INTEGER, STRING]}),
        (int | Any, {}),
        (str | Snooze | Cancel, STRING),
        (Awaitable[int], INTEGER),
        (Literal["a", 1], {"enum": ["a", 1]}),
        (Literal["a"], {"const": "a"}),
        (Literal[b"a"], {}),
        (Colour, {"enum": ["red", "blue"]}),
        (Level, {"const": 1}),
    ],
)
def test_a_type_that_json_can_carry_has_its_schema_and_any_other_the_empty_one(
    hint: Any, schema: dict[str, Any]
) -> None:
    assert schema_of(hint) == schema


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Address, object_of(["street"], street=STRING, floor=INTEGER)),
        (Tree, object_of([], value=INTEGER, children={"type": "array", "items": {"$ref": "#/$defs/Tree"}})),
        (Person, object_of(["name"], name=STRING, friends={"type": "array", "items": {"$ref": "#/$defs/Person"}})),
        (Order, object_of(["number"], number=INTEGER, note=STRING)),
    ],
)
def test_a_class_with_fields_is_defined_by_name_and_may_refer_to_itself(kind: type, fields: dict[str, Any]) -> None:
    assert schema_of(kind) == {"$ref": f"#/$defs/{kind.__name__}", "$defs": {kind.__name__: fields}}


def test_the_arguments_are_an_object_with_a_property_for_each_parameter() -> None:
    def welcome(
        user_id: int, /, *names: str, urgent: bool = False, unsaid: Any = None, odd: Any = NOT_JSON
    ) -> None: ...

    properties = {
        "user_id": INTEGER,
        "names": {"type": "array", "items": STRING},
        "urgent": {"type": "boolean", "default": False},
        "unsaid": {"default": None},
        "odd": {},
    }

    assert json.loads(Task(welcome, "welcome").input_schema) == {
        "$schema": DIALECT,
        "additionalProperties": False,
        **object_of(["user_id"], **properties),
    }


def test_keywords_without_end_are_of_one_type_or_those_of_a_typed_dictionary() -> None:
    def counts(**numbers: int) -> None: ...

    def anything(**whatever: Any) -> None: ...

    def lives(**address: Unpack[Address]) -> None: ...

    assert json.loads(Task(counts, "counts").input_schema)["additionalProperties"] == INTEGER
    assert "additionalProperties" not in json.loads(Task(anything, "anything").input_schema)
    assert json.loads(Task(lives, "lives").input_schema) == {
        "$schema": DIALECT,
        "additionalProperties": False,
        **object_of(["street"], street=STRING, floor=INTEGER),
    }


def test_a_hint_that_cannot_be_read_costs_only_its_own_schema() -> None:
    class Local: ...

    def odd(unknown: Unknown, local: Local, number: int) -> Unknown:
        return unknown

    task = Task(odd, "odd")

    properties = {"unknown": {}, "local": {}, "number": INTEGER}
    assert json.loads(task.input_schema)["properties"] == properties
    assert json.loads(task.output_schema) == {"$schema": DIALECT}


def test_partials_and_wrappers_have_the_hints_of_what_they_call() -> None:
    def add(a: int, b: int) -> str:
        return str(a + b)

    @wraps(add)
    def wrapper(*args: Any, **kwargs: Any) -> Any: ...

    class Adder:
        def __call__(self, c: int) -> str:
            return str(c)

    cases: list[tuple[Any, list[str]]] = [(partial(add, 1), ["b"]), (wrapper, ["a", "b"]), (Adder(), ["c"])]
    for function, names in cases:
        task: Task[..., Any] = Task(function, "add")
        assert list(json.loads(task.input_schema)["properties"]) == names
        assert json.loads(task.output_schema) == {"$schema": DIALECT, **STRING}


def test_two_classes_of_one_name_are_told_apart() -> None:
    def make() -> type:
        class Order(TypedDict):
            number: str

        return Order

    def f(a: int, b: int) -> None: ...

    f.__annotations__.update(a=Order, b=make())
    schema = json.loads(arguments_schema(f, Task(f, "f").signature))

    assert len({each["$ref"] for each in schema["properties"].values()}) == len(schema["$defs"]) == 2
