"""`call` prints a response with each digit and member unchanged, and without control characters."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datahog.commands.call import _indented

_texts = st.text(st.characters(exclude_categories=["Cs"]))
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | _texts,
    lambda inner: st.lists(inner) | st.dictionaries(_texts, inner),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("12345678901234567890123", "12345678901234567890123"),
        ('{"a":1.10,"a":-0}', '{\n  "a": 1.10,\n  "a": -0\n}'),
        ("[ 1E-400 , {} , [\n] ]", "[\n  1E-400,\n  {},\n  []\n]"),
        ('"{[,:]}\\""', '"{[,:]}\\""'),
        ('"é"', '"é"'),
        ('"\x9b2J\u202e\x7f"', '"\\u009b2J\\u202e\\u007f"'),
    ],
)
def test_printed_json_keeps_the_spelling_of_each_part(text: str, shown: str) -> None:
    assert _indented(text, "utf-8") == shown


@given(_values)
def test_ascii_output_has_the_same_json_value(value: Any) -> None:
    shown = _indented(json.dumps(value, ensure_ascii=False), "ascii")

    assert shown.isascii()
    assert json.loads(shown) == value
