"""Retired terms name no module and no class, and test names are short and plain."""

import ast
import re
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_FOLDERS = ("datahog", "handlers", "workers", "providers", "outbound", "persistence", "specs", "simulator")
# `outbound` stays as the name of a package; it is retired as the name of the egress policy.
_RETIRED_MODULES = frozenset(
    ("place", "places", "answer", "answers", "reply", "replies", "ending", "endings", "joint", "share", "shares")
    + ("room", "rooms", "turn", "turns", "outage", "outages", "count", "look", "looks", "put_off", "later", "relayed")
    + ("not_allowed", "shown_url", "without_secrets", "within", "excess", "lay")
    # Names that did not tell the content of the module.
    + ("batches", "bodies", "bounded", "calls", "checks", "connecting", "crew", "gate", "handover", "known_keys")
    + ("reconcile", "runner", "running", "signing", "times", "values", "waiting")
)
_RETIRED_CLASSES = frozenset(
    ("Place", "Answer", "Reply", "Ending", "Endings", "Joint", "Share", "Shares", "Room", "Rooms", "Turns", "Outage")
    + ("Look", "Later", "Relayed", "Outbound", "NotAllowed", "Excess")
)
_MODULES = sorted(
    path for folder in _FOLDERS for path in (_ROOT / folder).rglob("*.py") if "node_modules" not in path.parts
)
# The glossary lists the retired terms.
_PAGES = sorted({*_ROOT.glob("*.md"), *_ROOT.glob("docs/*.md")} - {_ROOT / "docs" / "glossary.md"})
# The longest name of a test, in characters, with `test_`.
_LONGEST_NAME = 60
_RIDDLE = re.compile(r"test_(who|what|whoever|whatever|nobody|of|that)_")


def test_no_module_or_package_has_a_retired_name() -> None:
    offenders = [
        str(path.relative_to(_ROOT))
        for path in _MODULES
        if {path.stem, *path.relative_to(_ROOT).parts[:-1]} & _RETIRED_MODULES
    ]

    assert not offenders, "\n".join(offenders)


def test_no_class_has_a_retired_name() -> None:
    offenders = [
        f"{path.relative_to(_ROOT)}: {node.name}"
        for path in _MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name in _RETIRED_CLASSES
    ]

    assert not offenders, "\n".join(offenders)


def test_no_page_names_a_retired_class() -> None:
    offenders = [
        f"{page.relative_to(_ROOT)}: {name}"
        for page in _PAGES
        for name in re.findall(r"`([A-Z]\w+)[\w.()]*`", page.read_text(encoding="utf-8"))
        if name in _RETIRED_CLASSES
    ]

    assert not offenders, "\n".join(offenders)


def test_no_test_name_is_too_long() -> None:
    offenders = [name for name in _test_names() if len(name.split("::")[1]) > _LONGEST_NAME]

    assert not offenders, "\n".join(offenders)


def test_no_test_name_begins_as_a_riddle() -> None:
    offenders = [name for name in _test_names() if _RIDDLE.match(name.split("::")[1])]

    assert not offenders, "\n".join(offenders)


@cache
def _test_names() -> list[str]:
    """Each test as `path::name`."""
    names = [
        f"{path.relative_to(_ROOT)}::{node.name}"
        for path in sorted((_ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]
    assert len(names) > 500
    return names
