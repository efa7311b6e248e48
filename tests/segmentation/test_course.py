"""The order of a row of vertebrae and its gaps, along a spine that is bent or tilted."""

from dataclasses import replace

from openscans.segmentation import course, plausibility
from openscans.types import Point, Vertebra
from phantom.spine import LEVELS
from tests.sample_vertebra import SAMPLE


def row_at(*places: tuple[float, float, float]) -> list[Vertebra]:
    """From T1 on, at these places (LPS, mm)."""
    labels = LEVELS[7 : 7 + len(places)]
    return [replace(SAMPLE, label=label, center_mm=Point(*place)) for label, place in zip(labels, places, strict=True)]


def test_order_is_told_along_the_spine_and_not_by_height() -> None:
    places = [(0, 0, 0), (0, 20, 12), (0, 40, 20), (0, 60, 16), (0, 75, 0)]
    assert plausibility.plausibility_warnings(row_at(*places)) == []


def test_two_that_changed_places_are_out_of_order_where_all_lie_at_one_height_too() -> None:
    [warning] = plausibility.plausibility_warnings(row_at((0, 0, 0), (40, 0, 0), (20, 0, 0), (60, 0, 0)))
    assert warning.code == "out_of_order"
    assert "T3 lies on the wrong side of T2" in warning.message


def gap_message(labels: str, *places_mm: float) -> str:
    """Of a straight row with one gap."""
    row = [
        replace(SAMPLE, label=label, center_mm=Point(0, 0, -place_mm))
        for label, place_mm in zip(labels.split(), places_mm, strict=True)
    ]
    [warning] = plausibility.plausibility_warnings(row)
    assert warning.code == "numbering_gap"
    return warning.message


def test_a_gap_without_room_for_a_body_says_so() -> None:
    assert "no room for it between T5 and T7" in gap_message("T4 T5 T7 T8", 0, 24, 48, 72)
    assert "no room" not in gap_message("T4 T5 T7 T8", 0, 24, 72, 96)


def test_neighbours_are_levels_between_which_most_people_have_none() -> None:
    assert course.are_neighbours("T12", "L1")
    assert course.are_neighbours("L5", "S1")
    assert course.levels_between("T10", "L2") == ["T11", "T12", "L1"]
