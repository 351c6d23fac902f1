"""Verbatim: a result keeps the text in which it was sent; the rest of a body has one unambiguous value."""

import pytest

from handlers.middleware import verbatim
from handlers.problems import Problem

RESULTS = [
    b"1.0000000000000000001",
    b"-0",
    b"1.10",
    b"12345678901234567890123",
    b"1E-400",
    b"1e+10",
    b"1" * 300,
    b"0." + b"1" * 5000,
    b'{"a": 1, "b": 2, "a" : [3]}',
    b'"\\u00e9\\/ \\ud83d\\ude00"',
    b"[" * 498 + b"]" * 498,
    b"null",
    b'""',
    b'{"result": {"result": 1, "result": 2}}',
]
# 1E400 overflows a float; a lone surrogate is no character.
NO_RESULTS = [b"1E400", b"1" * 400, b"-1e999", b'"\\ud800"', b'{"\\udfff": 1}', b"NaN", b"01", b"+1", b".5", b"[1,]"]


@pytest.mark.parametrize("text", RESULTS, ids=lambda text: text[:20])
@pytest.mark.parametrize("members", [b'{"status":"DONE", "result" :\n%s\t}', b'{"result":%s,"status":"DONE"}'])
def test_a_single_result_keeps_its_text(members: bytes, text: bytes) -> None:
    document, put_back = verbatim.own_result(members % text)

    assert document == {"status": "DONE", "result": None}
    put_back()
    assert (document["status"], bytes(document["result"])) == ("DONE", text)


@pytest.mark.parametrize("text", NO_RESULTS, ids=lambda text: text[:20])
@pytest.mark.parametrize("read", [verbatim.own_result, verbatim.results_of_jobs])
def test_a_result_that_is_not_strict_json_is_refused(read: verbatim.Reader, text: bytes) -> None:
    with pytest.raises(ValueError, match="not JSON"):
        read(b'{"jobs": [{"result": %s}], "result": %s}' % (text, text))


def test_a_body_without_a_result_gains_none() -> None:
    for body, value in ((b'{"status": "DONE"}', {"status": "DONE"}), (b"[1]", [1]), (b"null", None)):
        document, put_back = verbatim.own_result(body)
        put_back()

        assert document == value


@pytest.mark.parametrize(
    "body", [b'{"result": 1, "result": 2}', b'{"a": 1, "result": [], "a": 1}', b'{"a":1,"\\u0061":2}']
)
def test_duplicate_names_around_a_result_are_refused(body: bytes) -> None:
    with pytest.raises(Problem, match="two members named"):
        verbatim.own_result(body)


def test_duplicate_names_at_any_depth_are_refused() -> None:
    with pytest.raises(Problem, match="two members named 'b'"):
        verbatim.whole(b'{"a": [{"b": 1, "b": 1}]}')
