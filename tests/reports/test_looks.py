"""Lines of one figure can be told apart, also where there are more of them than colours."""

from activedpo_cli.reports.drawing import PALETTE, _look
from activedpo_cli.reports.plot import Series


def test_twice_as_many_lines_as_colours_look_different() -> None:
    looks = [_look(Series(label="", x=[], y=[], sources=[], colour=place)) for place in range(2 * len(PALETTE))]
    for one in range(len(looks)):
        for other in range(one):
            same_colour = looks[one]["color"] == looks[other]["color"]
            assert not same_colour or looks[one]["marker"] != looks[other]["marker"]
            assert not same_colour or looks[one]["linestyle"] != looks[other]["linestyle"]
