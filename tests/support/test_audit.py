"""The audit: known vulnerabilities are told, and what nobody could look up is never called clean."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support import audit

_CLEAN: Any = {"dependencies": [{"name": "a", "version": "1", "vulns": []}], "fixes": []}
_FOUND: Any = {"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1"}, {"id": "PYSEC-2"}]}]}
_SKIPPED: Any = {"dependencies": [{"name": "a", "skip_reason": "a was not found"}, *_CLEAN["dependencies"]]}
_NODE_CLEAN: Any = {"vulnerabilities": {}}
_NODE_FOUND: Any = {"vulnerabilities": {"b": {"range": "<2", "severity": "high"}}}
_NODE_AWAY: Any = {"message": "405 Method Not Allowed", "error": {"summary": ""}}


@pytest.mark.parametrize(
    ("python", "node", "code", "told"),
    [
        (_CLEAN, _NODE_CLEAN, 0, "nothing is known"),
        (_FOUND, _NODE_CLEAN, 1, "VULNERABLE: a 1: PYSEC-1, PYSEC-2"),
        (_CLEAN, _NODE_FOUND, 1, "VULNERABLE: b <2: high"),
        (_SKIPPED, _NODE_CLEAN, 2, "1 could not be looked up; the first: a was not found"),
        (_CLEAN, _NODE_AWAY, 2, "405 Method Not Allowed"),
        (None, None, 2, "pip-audit gave no report"),
        (_SKIPPED, _NODE_FOUND, 1, "VULNERABLE: b"),
        ([], "text", 2, "npm audit gave no report"),
    ],
    ids=["clean", "found", "found by npm", "skipped", "npm away", "no report", "both", "another document"],
)
def test_found_and_missing_packages_are_told_apart(
    python: Any, node: Any, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: Sequence[str], directory: Path) -> str:
        document = python if command[0] == "pip-audit" else node
        return "" if document is None else json.dumps(document)

    locks = [Path("requirements.lock"), Path("package-lock.json")]

    assert audit.main(run, locks) == code
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    "lock", audit.lock_files(), ids=lambda lock: str(lock.relative_to(Path(audit.__file__).parents[2]))
)
def test_every_pinned_package_has_a_hash(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    if lock.suffix == ".lock":
        # One paragraph for each package: its name, then its hashes, then where it is from.
        pinned = [entry for entry in text.replace("\\\n", " ").splitlines() if entry[:1].isalnum()]
        assert pinned
        assert [entry for entry in pinned if " --hash=sha256:" not in entry or "==" not in entry] == []
    else:
        packages = {name: package for name, package in json.loads(text)["packages"].items() if name}
        assert packages
        assert [name for name, package in packages.items() if "sha512-" not in package.get("integrity", "")] == []
