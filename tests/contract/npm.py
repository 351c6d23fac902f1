"""Installs the npm packages of a lock file once; without npm the test is skipped, or fails where `CI` is set."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest


def installed(directory: Path) -> Path:
    """The directory `node_modules` beside the lock file in `directory`; installs it when the lock file has changed."""
    npm = shutil.which("npm")
    if npm is None:
        missing = "npm is missing: install Node.js 20 or newer, which brings it."
        # A skipped test would go unnoticed in CI.
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    packages = directory / "node_modules"
    stamp = packages / ".stamp"
    digest = hashlib.sha256((directory / "package-lock.json").read_bytes()).hexdigest()
    if not stamp.is_file() or stamp.read_text() != digest:
        options = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        done = subprocess.run([npm, "ci", *options], cwd=directory, capture_output=True, text=True)
        assert done.returncode == 0, f"npm ci failed in {directory}:\n{done.stdout}{done.stderr}"
        stamp.write_text(digest)
    return packages
