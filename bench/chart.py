"""Draws the chart: the first column of each table as bars, in plain SVG."""

from collections.abc import Iterator, Sequence
from html import escape

from bench.rounds import Table

# Pixels.
_WIDTH, _LEFT, _BAR, _GAP, _HEAD = 760, 190, 16, 6, 44
_OURS, _THEIRS, _SPREAD = "#d97706", "#64748b", "#1e293b"
_STYLE = "text{font:12px system-ui,sans-serif;fill:#1e293b}.title{font-weight:600;font-size:13px}"


def draw(tables: Sequence[Table]) -> str:
    """Draw an SVG document: a bar for each median, and a line from the lowest to the highest."""
    top, parts = 10, []
    for table in tables:
        panel = list(_panel(table, top))
        parts += panel
        top += _HEAD + len(table.samples) * (_BAR + _GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}">\n'
        f'<style>{_STYLE}</style>\n<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _panel(table: Table, top: int) -> Iterator[str]:
    column, form = next(iter(table.columns.items()))
    yield _text(10, top + 16, f"{table.title}: {column}", "title")
    most = max(max(measured[column]) for measured in table.samples.values())
    scale = (_WIDTH - _LEFT - 90) / most
    for row, (system, measured) in enumerate(table.samples.items()):
        y = top + 26 + row * (_BAR + _GAP)
        middle = y + _BAR // 2
        length = table.median(system, column) * scale
        colour = _OURS if system == "Datahog" or "Datahog" not in table.samples else _THEIRS
        yield _text(10, middle + 4, system)
        yield f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR}" fill="{colour}"/>'
        yield from _spread(measured[column], scale, middle)
        end = _LEFT + max(measured[column]) * scale + 8
        yield _text(round(end), middle + 4, format(table.median(system, column), form))


def _spread(values: Sequence[float], scale: float, y: int) -> Iterator[str]:
    low, high = min(values), max(values)
    if high > low:
        yield (
            f'<line x1="{_LEFT + low * scale:.1f}" y1="{y}" x2="{_LEFT + high * scale:.1f}" y2="{y}" '
            f'stroke="{_SPREAD}" stroke-width="2"/>'
        )


def _text(x: int, y: int, text: str, style: str = "") -> str:
    return f'<text x="{x}" y="{y}" class="{style}">{escape(text)}</text>'
