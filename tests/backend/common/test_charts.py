"""Charts: what is drawn lies where its numbers say, and names cannot break out of the SVG."""

import re

import pytest

from backend.common.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Curve, draw_curves


def test_a_line_goes_through_its_points():
    chart = draw_curves(
        "risk", [Curve("float", [(0, 0), (0.5, 0.2), (1, 0.4)])], x="answered", y="wrong", top=0.4
    )
    [path] = re.findall(r'class="ck-chart-line ck-chart-1" d="([^"]+)"', chart)
    points = [tuple(map(float, pair)) for pair in re.findall(r"([\d.]+) ([\d.]+)", path)]
    middle = (LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) / 2)
    assert points == [(LEFT, HEIGHT - BOTTOM), pytest.approx(middle), (WIDTH - RIGHT, TOP)]
    assert ">40 %<" in chart
    assert ">100 %<" in chart


def test_dots_grow_with_their_weight_and_what_lies_outside_stays_at_the_edge():
    chart = draw_curves("", [Curve("", [(0.2, 0.2), (0.5, 3)], [0.04, 0.64])], x="", y="", diagonal=True)
    dots = re.findall(r'cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)"', chart)
    assert float(dots[0][2]) < float(dots[1][2])
    assert float(dots[1][1]) == TOP
    assert "ck-chart-diagonal" in chart
    assert "ck-chart-line" not in chart


def test_names_are_escaped():
    chart = draw_curves("a<b>", [Curve("<script>", [(0, 0)]), Curve("&", [(0, 0)])], x='"', y="<y>")
    assert "<script>" not in chart
    assert "&lt;script&gt;" in chart
    assert "<b>" not in chart
