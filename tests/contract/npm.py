"""The npm packages of a lock file, installed once; without npm their tests are skipped, and fail where CI is set."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest


def installed(directory: Path) -> Path:
    """The directory `node_modules` of the lock file in `directory`, installed anew when that has changed."""
    npm = shutil.which("npm")
    if npm is None:
        missing = "npm is missing: install Node.js 20 or newer, which brings it."
        # Elsewhere the rest of the tests is worth running; where all must be tested, this must be too.
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
