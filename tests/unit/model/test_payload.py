"""What may be stored as arguments and labels, and what is refused at the call with the place where it stands."""

from __future__ import annotations

from typing import Any

import pytest

from clepsydra.model.errors import InvalidArgument
from clepsydra.model.payload import CORRELATION, GROUP, encode, to_labels


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"to": ["a", "\ud800"]}, r"args\.to\[1\].*lone surrogate"),
        ({"to": {"\udfff": 1}}, r"args\.to: key.*lone surrogate"),
        ({"to": {1: 1}}, r"args\.to.*key that is not a string"),
        ({"to": {1, 2}}, r"args\.to.*is a set"),
        ({"to": float("nan")}, r"args\.to.*not a finite number"),
    ],
)
def test_what_json_cannot_carry_is_refused_with_its_place(value: Any, place: str) -> None:
    with pytest.raises(InvalidArgument, match=place):
        encode(value, "args")


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        ({"a\0b": "c"}, "NUL"),
        ({"a": "b\0c"}, "NUL"),
        ({"a": "\ud800"}, "lone surrogate"),
        ({"\ud800": "a"}, "lone surrogate"),
        ({"": "a"}, "keys not empty"),
        ({"a": 1}, "must be strings"),
        ("a=b", "must be a mapping"),
        ({"clepsydra.group": "orders"}, "reserved.*`group`"),
    ],
)
def test_labels_that_not_every_store_could_keep_are_refused(labels: Any, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        to_labels(labels)


def test_line_breaks_and_any_script_are_fine_in_labels() -> None:
    assert to_labels({"я": "a\nb", "a": "\U0001f570"}) == (("a", "\U0001f570"), ("я", "a\nb"))


def test_a_correlation_is_kept_as_reserved_labels() -> None:
    assert to_labels({"a": "b"}, group="orders", correlation="7") == (("a", "b"), (CORRELATION, "7"), (GROUP, "orders"))
    for value in ("", "a\0", 7):
        with pytest.raises(InvalidArgument, match="correlation"):
            to_labels(None, correlation=value)  # type: ignore[arg-type]
