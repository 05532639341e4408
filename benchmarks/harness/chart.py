"""The lines that something was wanted of, as bars in an SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from benchmarks.harness.line import Line, shown

_WIDTH, _ROW, _NAME, _BARS = 880, 26, 430, 330
_COLOURS = {"aim": "#2a9d5c", "must": "#3b7dd8", "missed": "#d1495b"}


def chart(lines: Sequence[Line]) -> str:
    """Draw one bar per line: how many times better than the must it is; the must is the mark."""
    wanted = [each for each in lines if each.must is not None]
    height = _ROW * len(wanted) + 70
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        '<text x="10" y="22" font-size="15">asyncpipe: measured against what it must reach</text>',
        '<text x="10" y="40" fill="#555555">A bar beyond the line is better than the must;'
        " green: the aim as well.</text>",
    ]
    for n, each in enumerate(wanted):
        parts += _bar(each, 54 + n * _ROW)
    mark = _NAME + _BARS / 3
    parts.append(
        f'<line x1="{mark}" y1="48" x2="{mark}" y2="{height - 12}" stroke="#222222"'
        ' stroke-dasharray="4 3"/>'
    )
    return "\n".join([*parts, "</svg>\n"])


def _bar(each: Line, y: int) -> list[str]:
    assert each.must is not None, "only what was wanted is drawn"
    better = each.value / each.must
    if each.less:  # what is not more than nothing is as good as can be shown
        better = each.must / each.value if each.value > 0 else 3.0
    length = min(max(better, 0.02), 3.0) * _BARS / 3
    end = max(length, _BARS / 3)  # beyond the mark, which would cross the figure
    text = f"{shown(each.value)} {each.unit}"
    return [
        f'<text x="{_NAME - 8}" y="{y + 14}" text-anchor="end">{escape(each.what)}</text>',
        f'<rect x="{_NAME}" y="{y + 3}" width="{length:.0f}" height="{_ROW - 9}"'
        f' fill="{_COLOURS[each.verdict]}"/>',
        f'<text x="{_NAME + end + 6:.0f}" y="{y + 14}">{escape(text)}</text>',
    ]
