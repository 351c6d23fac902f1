"""Runs the commands that docs/clients.md gives for generating clients: those very lines, for either document."""

import os
import re
import shlex
import subprocess
import sysconfig
from pathlib import Path

_ROOT = Path(__file__).parents[3]
# Of the packages' programs those of this environment are meant, whether it is activated or not.
_PATH = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])


def generate(generator: str, name: str, directory: Path, *options: str) -> None:
    """Have a generator make in `directory` a client of the document `name`; fails when it complains of anything."""
    specs = directory / "specs"
    if not specs.exists():
        specs.symlink_to(_ROOT / "specs")
    run(*shlex.split(_line(generator, name)), *options, directory=directory)


def run(*command: str, directory: Path) -> str:
    """What a program prints that is run in `directory`; fails unless it exits with 0."""
    # What npx does not find here it would fetch, in whatever version is the newest.
    environment = {**os.environ, "PATH": _PATH, "npm_config_offline": "true", "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(command)} failed:\n{done.stdout}{done.stderr}"
    return done.stdout


def _line(generator: str, name: str) -> str:
    page = (_ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    # It shows the client's; `datahog_client` and `datahog-client` are what is made of it.
    [line] = re.findall(rf"^\$ (.*\b{generator} .*)$", page, re.MULTILINE)
    return re.sub(r"\b(specs/|datahog[_-])client\b", rf"\g<1>{name}", line)
