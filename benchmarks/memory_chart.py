"""Bars of megabytes as an SVG that reads well on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, LABEL, VALUE = 720, 230, 90
ROW, BAR, TOP = 34, 18, 44
OLD, NEW, TEXT = "#c2410c", "#15803d", "#6b7280"


def draw(rows: Sequence[tuple[str, float]]) -> str:
    """`rows`: a name and its megabytes; names that begin with TasteMatch stand out."""
    room = WIDTH - LABEL - VALUE
    largest = max(megabytes for _, megabytes in rows)
    height = TOP + ROW * len(rows) + 8
    title = "Peak memory of the server while 16 clients ask for 10,000 restaurants"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="14" fill="{TEXT}">',
        f"<title>{title}</title>",
        f'<text x="0" y="20" font-weight="600">{title}</text>',
    ]
    for number, (name, megabytes) in enumerate(rows):
        top = TOP + ROW * number
        length = max(2.0, room * megabytes / largest)
        colour = NEW if name.startswith("TasteMatch") else OLD
        middle = top + BAR / 2 + 5
        lines += [
            f'<text x="{LABEL - 10}" y="{middle}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{LABEL}" y="{top}" width="{length:.1f}" height="{BAR}" rx="2" '
            f'fill="{colour}"/>',
            f'<text x="{LABEL + length + 8:.1f}" y="{middle}">{megabytes:,.0f} MB</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
