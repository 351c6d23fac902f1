"""Runs the commands in docs/clients.md that generate clients, for either document."""

import os
import re
import shlex
import subprocess
import sysconfig
from pathlib import Path

_ROOT = Path(__file__).parents[3]
# This environment's programs come first, whether or not it is activated.
_PATH = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])


def generate(generator: str, name: str, directory: Path, *options: str) -> None:
    """Generate a client of the document `name` in `directory`; fails when the generator does."""
    specs = directory / "specs"
    if not specs.exists():
        specs.symlink_to(_ROOT / "specs")
    run(*shlex.split(_line(generator, name)), *options, directory=directory)


def run(*command: str, directory: Path) -> str:
    """Run a program in `directory`, and return what it prints; fails unless it exits with 0."""
    # Online, npx would download the newest version of a missing package.
    environment = {**os.environ, "PATH": _PATH, "npm_config_offline": "true", "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(command)} failed:\n{done.stdout}{done.stderr}"
    return done.stdout


def _line(generator: str, name: str) -> str:
    page = (_ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    # The page shows the command for the client's document; replace the document and the names derived from it.
    [line] = re.findall(rf"^\$ (.*\b{generator} .*)$", page, re.MULTILINE)
    return re.sub(r"\b(specs/|datahog[_-])client\b", rf"\g<1>{name}", line)
