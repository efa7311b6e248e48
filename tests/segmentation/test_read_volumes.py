"""The levels of whole label maps read together, on spines whose probabilities were drawn with faults of known kinds."""

import pytest

from openscans.segmentation import evidence, sequence, vertebrae
from openscans.types import ResultWarning, Vertebra
from phantom import probabilities
from phantom.course import Shape
from phantom.probabilities import LEVELS, Settings

SEED = 2


def read(settings: Settings) -> sequence.SequenceReading:
    spine = probabilities.draw(settings)
    found = spine.label_map
    measured = vertebrae.measure_all(found, spine.volume)
    bones = [*measured.vertebrae, *measured.repeated]
    return sequence.read_sequence(evidence.instances_of(bones, measured, found, spine.affine_lps))


def weighed(settings: Settings) -> tuple[list[Vertebra], list[ResultWarning]]:
    spine = probabilities.draw(settings)
    found = spine.label_map
    measured = vertebrae.measure_all(found, spine.volume)
    return evidence.weigh_levels(measured.vertebrae, measured, found, spine.affine_lps)


@pytest.mark.parametrize("shape", ["straight", "scoliotic", "kyphotic"])
def test_a_clean_spine_is_read_as_it_is_and_as_good_as_certain(shape: Shape) -> None:
    found, warnings = weighed(Settings(SEED, shape=shape))
    assert tuple(vertebra.label for vertebra in found) == LEVELS
    assert warnings == []
    assert min(vertebra.level_confidence or 0.0 for vertebra in found) > 0.99


def test_a_field_of_view_that_cuts_its_ends_is_read_as_it_is() -> None:
    assert read(Settings(SEED, LEVELS[9:19], cut=True)).levels == LEVELS[9:19]


def test_three_vertebrae_that_the_network_shifts_are_told_and_keep_their_labels() -> None:
    first = LEVELS.index("T5")
    settings = Settings(SEED, shifted=LEVELS[first : first + 3], shift=-1)
    found, warnings = weighed(settings)
    assert [warning.code for warning in warnings] == ["sequence_differs"]
    named = set(probabilities.draw(settings).labels.ravel().tolist())
    assert {vertebra.label for vertebra in found} == {
        name for number, name in probabilities.NAMES.items() if number in named
    }


def test_ten_vertebrae_that_the_network_shifts_are_told() -> None:
    first = LEVELS.index("T2")
    _, warnings = weighed(Settings(SEED, shifted=LEVELS[first : first + 10], shift=1))
    assert [warning.code for warning in warnings] == ["sequence_differs"]


@pytest.mark.parametrize(
    ("levels", "anomaly"),
    [(probabilities.ELEVEN_THORACIC, "eleven thoracic"), (probabilities.FOUR_LUMBAR, "four lumbar")],
)
def test_a_spine_with_a_vertebra_fewer_is_named(levels: tuple[str, ...], anomaly: str) -> None:
    reading = read(Settings(SEED, levels))
    assert reading.levels == levels
    assert reading.anomalies == (anomaly,)


def test_a_vertebra_that_was_not_seen_shifts_none_of_the_others_in_a_volume() -> None:
    unseen = LEVELS[10]
    reading = read(Settings(SEED, missing=unseen))
    assert reading.levels == tuple(level for level in LEVELS if level != unseen)
    assert reading.anomalies == ()


@pytest.mark.parametrize("size_mm3", [50.0, 150.0, 500.0])
def test_a_blob_beside_the_spine_takes_no_level(size_mm3: float) -> None:
    assert read(Settings(SEED, spurious_mm3=size_mm3)).levels == LEVELS


def test_a_body_of_which_half_is_called_otherwise_is_read_right() -> None:
    assert read(Settings(SEED, mixed=LEVELS[11])).levels == LEVELS
