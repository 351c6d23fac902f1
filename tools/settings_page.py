"""Writes the table of all settings into docs/configuration.md: `python -m tools.settings_page`."""

import sys
from pathlib import Path

from datahog.settings import PREFIX, Settings

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
_BEGIN, _END = "<!-- settings: begin -->", "<!-- settings: end -->"


def shown_default(name: str) -> str:
    """Returns a setting's default as the environment would have it; `unset` if there is none."""
    default = Settings.model_fields[name].default
    if isinstance(default, tuple):
        default = ",".join(f"{item:g}" for item in default)
    return "unset" if default in (None, "") else str(default)


def table() -> str:
    """Returns the table of all settings in Markdown."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = shown_default(name)
        shown = default if default == "unset" else f"`{default}`"
        lines.append(f"| `{PREFIX}{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(lines)


def with_table(page: str) -> str:
    """Returns the page with a new table between its marks. Raises ValueError if a mark is missing."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines {_BEGIN} and {_END}")
    return f"{before}{_BEGIN}\n{table()}\n{_END}{after}"


def main() -> int:
    """Rewrites the page; returns the exit code."""
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
