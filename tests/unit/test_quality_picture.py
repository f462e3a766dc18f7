"""Pictures of a profile."""

from __future__ import annotations

from xml.etree import ElementTree

from jobs.quality.picture import bars, svg
from jobs.quality.profile import ColumnProfile


def test_bars_show_every_count_above_none() -> None:
    assert bars([0, 1, 400, 800]) == " ▁▄█"
    assert bars([]) == bars([0, 0]) == ""


def test_the_svg_is_well_formed_with_a_bar_for_each_count_whatever_the_values_hold() -> None:
    columns = [
        ColumnProfile("number", "int", 10, 1, 3, 0, 20, None, (), [4, 0, 5]),
        ColumnProfile("note", "string", 10, 0, 2, "a", "b", None, [("<script>&\x00", 7), ("b", 3)]),
        ColumnProfile("nothing", "string", 0, 0),
    ]
    root = ElementTree.fromstring(svg("silver.<orders>", columns))
    rects = list(root.iter("{http://www.w3.org/2000/svg}rect"))
    assert len(rects) == 1 + 3 + 2  # the ground, the buckets, the values
    heights = [float(one.get("height", "")) for one in rects[1:4]]
    assert heights[1] == 0
    assert heights[2] > heights[0] > 0
    texts = "".join(root.itertext())
    assert "<script>&" in texts
    assert "10.0% null" in texts
    assert "no rows" in texts
