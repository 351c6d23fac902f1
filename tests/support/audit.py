"""Looks all pinned packages up in the databases of known vulnerabilities, and tells what was found from what was not.

pip-audit by itself calls a package clean that the database does not know, and fails alike when it finds something and
when nobody answers. Exits with 1 when a package has a vulnerability, and with 2 when some could not be looked up.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
_SECONDS = 120.0

Run = Callable[[Sequence[str], Path], str]


@dataclass
class Findings:
    """What was found in one lock file: vulnerable packages, and why others were not looked up."""

    vulnerable: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def python_packages(lock: Path, run: Run) -> Findings:
    """What pip-audit finds in a requirements file with hashes."""
    options = ("--require-hashes", "--disable-pip", "--format", "json", "--progress-spinner", "off")
    document = _json(run(("pip-audit", "--requirement", str(lock), *options), lock.parent))
    found = Findings()
    if not isinstance(document.get("dependencies"), list):
        found.unknown.append("pip-audit gave no report")
        return found
    for package in document["dependencies"]:
        if "skip_reason" in package:
            found.unknown.append(package["skip_reason"])
        elif package["vulns"]:
            ids = ", ".join(vulnerability["id"] for vulnerability in package["vulns"])
            found.vulnerable.append(f"{package['name']} {package['version']}: {ids}")
    return found


def node_packages(lock: Path, run: Run) -> Findings:
    """What npm finds in a package-lock.json."""
    document = _json(run(("npm", "audit", "--package-lock-only", "--json"), lock.parent))
    if not isinstance(document.get("vulnerabilities"), dict):
        return Findings(unknown=[str(document.get("message", "npm audit gave no report"))])
    packages = document["vulnerabilities"].items()
    return Findings([f"{name} {package['range']}: {package['severity']}" for name, package in packages])


def main(run: Run, locks: Sequence[Path]) -> int:
    """Look the packages of the lock files up, print what was found, and return the exit code."""
    vulnerable = unknown = False
    for lock in locks:
        found = (python_packages if lock.suffix == ".lock" else node_packages)(lock, run)
        vulnerable, unknown = vulnerable or bool(found.vulnerable), unknown or bool(found.unknown)
        name = lock.relative_to(_ROOT) if lock.is_relative_to(_ROOT) else lock
        for line in found.vulnerable:
            print(f"{name}: VULNERABLE: {line}")
        if found.unknown:
            print(f"{name}: {len(found.unknown)} could not be looked up; the first: {found.unknown[0]}")
        if not found.vulnerable and not found.unknown:
            print(f"{name}: nothing is known against it")
    if vulnerable:
        return 1
    return 2 if unknown else 0


def lock_files() -> list[Path]:
    """The lock files of the repository; those of npm only where there is npm."""
    listed = subprocess.run(["git", "ls-files", "*.lock", "*package-lock.json"], cwd=_ROOT, capture_output=True)
    locks = [_ROOT / name for name in listed.stdout.decode().split()]
    return [lock for lock in locks if lock.suffix == ".lock" or shutil.which("npm")]


def _json(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _run(command: Sequence[str], directory: Path) -> str:
    """What a program prints; nothing when it is missing or does not end."""
    program = _ROOT / ".audit" / "bin" / command[0]
    found = str(program) if program.is_file() else command[0]
    try:
        done = subprocess.run([found, *command[1:]], cwd=directory, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(_run, lock_files()))
