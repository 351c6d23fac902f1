"""Attribute values: the wire format is that of boto3, values round-trip, and unsupported ones are refused."""

import base64
from typing import Any

import pytest
from boto3.dynamodb.types import TypeSerializer
from hypothesis import given
from hypothesis import strategies as st

from persistence.dynamodb.attribute_values import decode, encode

_numbers = st.integers(-(10**37), 10**37)
_values = st.recursive(
    st.none() | st.booleans() | _numbers | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def without_bytes(typed: Any) -> Any:
    """Returns the wire form that boto3 makes of a serialized value, with bytes as base64 text."""
    if isinstance(typed, bytes):
        return base64.b64encode(typed).decode()
    if isinstance(typed, dict):
        return {name: without_bytes(value) for name, value in typed.items()}
    return [without_bytes(value) for value in typed] if isinstance(typed, list) else typed


@given(_values)
def test_values_round_trip_and_match_the_wire_format_of_boto3(value: Any) -> None:
    typed = encode(value)

    assert decode(typed) == value
    assert typed == without_bytes(TypeSerializer().serialize(value))


@pytest.mark.parametrize("value", [1.5, {"a"}, object()])
def test_unsupported_values_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="no record holds"):
        encode([value])


def test_unsupported_types_are_refused() -> None:
    with pytest.raises(TypeError, match="SS"):
        decode({"SS": ["a"]})
