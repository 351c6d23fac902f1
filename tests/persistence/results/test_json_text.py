"""JSON text: valid text is parsed, and text over the limits is refused before it costs too much."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.results.json_text import DEEPEST, MOST, parse, same

_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
# A text with so many brackets that the parser has to measure their depth.
_MANY = b"[" + b"[]," * DEEPEST + b"%s]"


@given(_values)
def test_a_text_parses_to_its_value_with_few_or_many_brackets(value: Any) -> None:
    try:
        text = orjson.dumps(value)
    except TypeError:  # a lone surrogate
        return

    assert parse(text) == value
    assert parse(_MANY % text)[-1] == value


@pytest.mark.parametrize("text", [b"[" * DEEPEST + b"]" * DEEPEST, b'{"a":' * DEEPEST + b"1" + b"}" * DEEPEST])
def test_nesting_beyond_the_limit_is_refused(text: bytes) -> None:
    parse(text)

    with pytest.raises(ValueError, match="nested more than 500 levels deep"):
        parse(b"[" + text + b"]")


@pytest.mark.parametrize(
    "text",
    [b"1],[2", b"],[", b"1]],[[2", b"[],[]", b"1,2", b"]", b"[", b"{}{}", b"[1],", b"NaN", b"1e999", b'"\xff"', b""],
)
@pytest.mark.parametrize("padding", [b"", b"[]," * DEEPEST])
def test_a_text_without_exactly_one_value_is_not_json(text: bytes, padding: bytes) -> None:
    with pytest.raises(ValueError, match="not JSON"):
        parse(padding + text)


@pytest.mark.parametrize("part", [b"[]", b"{}", b'{"a":1}', b'{"[":"]"}'])
def test_arrays_and_objects_beyond_the_limit_are_refused(part: bytes) -> None:
    text = b"[" + b",".join([part] * (MOST - 1)) + b"]"
    assert len(parse(text)) == MOST - 1

    with pytest.raises(ValueError, match="of more than 500000 arrays and objects"):
        parse(b"[" + text + b"]")


def test_brackets_inside_strings_do_not_count() -> None:
    text = b'["' + b'[{\\"' * MOST + b'", ""]'

    assert parse(text) == ['[{"' * MOST, ""]


@pytest.mark.parametrize("part", [b"[],", b'"', b'\\"', b'"\\', b'["', b'{"a":1},'])
def test_a_huge_or_unfinished_text_is_refused(part: bytes) -> None:
    with pytest.raises(ValueError, match="not JSON|more than"):
        parse(b"[" + part * (5_242_880 // len(part)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"1.10", b"1.1"),
        (b"1", b"1.0"),
        (b"1", b"10e-1"),
        (b"100", b"1E+2"),
        (b"0.001", b"1e-3"),
        (b"-0", b"0"),
        (b"0e5", b"0.00"),
        (b"-1.50e2", b"-150"),
        (b"1" * 6000, b"1" * 6000 + b".0"),
        (b'{"a":1,"b":[2]}', b' { "b" : [2.0] , "a":1e0 } '),
        (b'"\\u00e9"', '"é"'.encode()),
        (b'{"a":1,"a":2}', b'{"a":1.0,"a":2.0}'),
        (b"[" * DEEPEST + b"1" + b"]" * DEEPEST, b"[" * DEEPEST + b"1.0" + b"]" * DEEPEST),
        (b'{"a":' * DEEPEST + b"1" + b"}" * DEEPEST, b'{"a":' * DEEPEST + b"1.0" + b"}" * DEEPEST),
    ],
    ids=lambda text: str(text[:15]),
)
def test_texts_of_one_value_are_the_same(one: bytes, other: bytes) -> None:
    assert same(one, other)
    assert same(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"1.0000000000000000001", b"1.0"),
        (b"12345678901234567890123", b"12345678901234567890124"),
        (b"1e-400", b"0"),
        (b"1e-400", b"1e-401"),
        (b"1", b"-1"),
        (b"1", b"true"),
        (b"0", b"false"),
        (b"0", b"null"),
        (b"1", b'"1"'),
        (b"10", b"1"),
        (b"0.1", b"0.01"),
        (b'{"a":1,"a":2}', b'{"a":2}'),
        (b'{"a":1,"a":2}', b'{"a":2,"a":1}'),
        (b'{"a":1,"a":2}', b'{"a":[1,2]}'),
        (b'{"a":1,"a":2,"a":3}', b'{"a":1,"a":2}'),
        (b"[1,2]", b"[2,1]"),
        (b"1e-" + b"9" * 5000, b"2e-" + b"9" * 5000),
    ],
    ids=lambda text: str(text[:15]),
)
def test_texts_of_different_values_are_not_the_same(one: bytes, other: bytes) -> None:
    assert not same(one, other)
    assert not same(other, one)


@given(_values, _values)
def test_texts_are_the_same_when_their_values_are(one: Any, other: Any) -> None:
    texts = [json.dumps(value).encode() for value in (one, other)]

    assert same(texts[0], json.dumps(one, indent=1, ensure_ascii=True).encode())
    if same(*texts):
        assert one == other
