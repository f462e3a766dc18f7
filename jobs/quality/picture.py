"""Pictures of a profile: a panel for each column in one SVG file, or a line of bars in a terminal. Pure: values in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from jobs.quality.profile import ColumnProfile

_BLOCKS = " ▁▂▃▄▅▆▇█"
PANEL_WIDTH_PX, PANEL_HEIGHT_PX, PANELS_A_ROW = 300, 170, 3
_MARGIN_PX, _BARS_PX = 14, 90
TOP_SHOWN = 5


def bars(counts: Sequence[int]) -> str:
    """One block a count; a count above none is never shown as none."""
    most = max(counts, default=0)
    return "".join(_BLOCKS[-(-count * (len(_BLOCKS) - 1) // most)] if count else _BLOCKS[0] for count in counts) if most else ""


def svg(title: str, columns: Sequence[ColumnProfile]) -> str:
    """The whole file: histograms of numbers and times, the most frequent values of the others."""
    rows = -(-len(columns) // PANELS_A_ROW)
    width, height = PANEL_WIDTH_PX * PANELS_A_ROW, PANEL_HEIGHT_PX * rows + 40
    panels = "".join(f'<g transform="translate({_place(n)})">{_panel(one)}</g>\n' for n, one in enumerate(columns))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">\n'
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n{_text(_MARGIN_PX, 26, title, size=16)}\n{panels}</svg>\n'
    )


def _place(number: int) -> str:
    return f"{number % PANELS_A_ROW * PANEL_WIDTH_PX} {number // PANELS_A_ROW * PANEL_HEIGHT_PX + 40}"


def _panel(one: ColumnProfile) -> str:
    parts = [_text(_MARGIN_PX, 14, f"{one.name}  {one.type[:24]}", bold=True)]
    share = f"{one.nulls / one.rows:.1%} null" if one.rows else "no rows"
    distinct = f", about {one.distinct:,} values" if one.distinct is not None else ""
    parts.append(_text(_MARGIN_PX, 28, share + distinct, fill="#666"))
    if one.buckets:
        parts += _histogram(one)
    elif one.top:
        parts += _top(one)
    return "".join(parts)


def _histogram(one: ColumnProfile) -> list[str]:
    most, bottom = max(one.buckets), 36 + _BARS_PX
    width = (PANEL_WIDTH_PX - 2 * _MARGIN_PX) / len(one.buckets)
    out = []
    for n, count in enumerate(one.buckets):
        height = max(1.0, count / most * _BARS_PX) if count else 0.0
        out.append(_bar(_MARGIN_PX + n * width, bottom - height, width - 1, height, f"{count:,}"))
    low, high = _shown(one.minimum), _shown(one.maximum)
    return [*out, _text(_MARGIN_PX, bottom + 13, low), _text(PANEL_WIDTH_PX - _MARGIN_PX, bottom + 13, high, anchor="end")]


def _top(one: ColumnProfile) -> list[str]:
    most, out = max(count for _, count in one.top), []
    for n, (value, count) in enumerate(one.top[:TOP_SHOWN]):
        y = 38 + n * 19
        out.append(_bar(_MARGIN_PX, y, count / most * (PANEL_WIDTH_PX - 2 * _MARGIN_PX), 15, f"{count:,}"))
        out.append(_text(_MARGIN_PX + 4, y + 11, f"{_shown(value)}  {count:,}"))
    return out


def _bar(x: float, y: float, width: float, height: float, says: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="#9ecae1"><title>{escape(says)}</title></rect>'


def _text(
    x: float, y: float, text: str, *, size: int = 11, fill: str = "#222", anchor: str = "start", bold: bool = False
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'


def _shown(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return "".join(character for character in text if character.isprintable())[:32]
