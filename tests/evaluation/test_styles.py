from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from plug_sklearn.evaluation._styles import LINES, style_line

#: Linear RGB → what an eye without red, and one without green cones, is left with:
#: Viénot, Brettel and Mollon, "Digital video colourmaps for checking the legibility of
#: displays by dichromats", 1999, equations 6 and 7.
WITHOUT_CONES = {
    "red": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    "green": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
}


@pytest.mark.parametrize("cones", WITHOUT_CONES)
def test_colours_differ_to_the_colour_blind(cones: str) -> None:
    linear = [np.array(to_rgb(line["color"])) ** 2.2 for line in LINES]
    seen = [np.array(WITHOUT_CONES[cones]) @ color for color in linear]
    for one, other in combinations(seen, 2):
        assert np.abs(one - other).max() > 0.05


def test_no_two_lines_look_alike() -> None:
    styles = [style_line(number) for number in range(25)]
    looks = {(s["color"], str(s["linestyle"]), s["marker"]) for s in styles}
    assert len(looks) == 25


def test_the_first_lines_differ_in_more_than_colour() -> None:
    assert len({str(line["linestyle"]) for line in LINES}) == len(LINES)
    assert len({line["marker"] for line in LINES}) == len(LINES)
