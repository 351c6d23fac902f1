"""JSON text: what is read, and what is refused before it costs too much."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.json_text import DEEPEST, MOST, parse

_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
# So many brackets that the depth has to be looked at.
_MANY = b"[" + b"[]," * DEEPEST + b"%s]"


@given(_values)
def test_a_text_says_its_value_whether_or_not_it_may_be_deep(value: Any) -> None:
    try:
        text = orjson.dumps(value)
    except TypeError:  # a lone surrogate
        return

    assert parse(text) == value
    assert parse(_MANY % text)[-1] == value


@pytest.mark.parametrize("text", [b"[" * DEEPEST + b"]" * DEEPEST, b'{"a":' * DEEPEST + b"1" + b"}" * DEEPEST])
def test_as_many_levels_as_are_allowed_are_read_and_no_more(text: bytes) -> None:
    parse(text)

    with pytest.raises(ValueError, match="nested more than 500 levels deep"):
        parse(b"[" + text + b"]")


@pytest.mark.parametrize(
    "text",
    [b"1],[2", b"],[", b"1]],[[2", b"[],[]", b"1,2", b"]", b"[", b"{}{}", b"[1],", b"NaN", b"1e999", b'"\xff"', b""],
)
@pytest.mark.parametrize("padding", [b"", b"[]," * DEEPEST])
def test_what_is_no_one_value_is_not_json(text: bytes, padding: bytes) -> None:
    with pytest.raises(ValueError, match="not JSON"):
        parse(padding + text)


@pytest.mark.parametrize("part", [b"[]", b"{}", b'{"a":1}', b'{"[":"]"}'])
def test_as_many_arrays_and_objects_as_are_allowed_are_read_and_no_more(part: bytes) -> None:
    text = b"[" + b",".join([part] * (MOST - 1)) + b"]"
    assert len(parse(text)) == MOST - 1

    with pytest.raises(ValueError, match="of more than 500000 arrays and objects"):
        parse(b"[" + text + b"]")


def test_brackets_in_texts_are_none() -> None:
    text = b'["' + b'[{\\"' * MOST + b'", ""]'

    assert parse(text) == ['[{"' * MOST, ""]


@pytest.mark.parametrize("part", [b"[],", b'"', b'\\"', b'"\\', b'["', b'{"a":1},'])
def test_what_has_too_much_or_no_end_is_refused(part: bytes) -> None:
    with pytest.raises(ValueError, match="not JSON|more than"):
        parse(b"[" + part * (5_242_880 // len(part)))
