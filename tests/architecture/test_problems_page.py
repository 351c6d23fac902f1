"""docs/problems.md explains exactly the problem types of the code and of the documents."""

import re
from pathlib import Path

import specs
from handlers import problems

_ROOT = Path(__file__).parents[2]
_ROWS = {
    (name, int(status))
    for name, status in re.findall(
        r"^\| `urn:datahog:problem:([a-z-]+)` \| (\d+) \| [^|]+\. \| [^|]+\. \|$",
        (_ROOT / "docs" / "problems.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
}
_NAMED = {
    name: set(re.findall(r"type: urn:datahog:problem:([a-z-]+)", specs.path(name).read_text(encoding="utf-8")))
    for name in (specs.CLIENT, specs.AGGREGATOR)
}


def test_the_page_explains_each_type_of_the_code() -> None:
    assert {(problem.type, problem.status) for problem in problems.every_problem()} == {
        (f"urn:datahog:problem:{name}", status) for name, status in _ROWS
    }


def test_the_page_explains_each_type_of_the_documents() -> None:
    explained = {name for name, _ in _ROWS}

    assert _NAMED[specs.CLIENT] | _NAMED[specs.AGGREGATOR] == explained
    assert all(names <= explained for names in _NAMED.values())
