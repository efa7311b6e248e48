"""What comes second and third: as the softmax of the whole image at once has it, and nothing else changed by it."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from openscans import networks
from openscans.networks import Network
from openscans.networks.plans import Plan
from openscans.progress import ignore_progress
from openscans.segmentation import blending, sliding_window
from openscans.segmentation.blending import LogitPlane, RunnersUp, window_of
from openscans.segmentation.sliding_window import Coverage
from phantom.demo import WEIGHTS
from phantom.layout import training_folder
from phantom.specs import SPECS

Float32 = NDArray[np.float32]
PATCH = (12, 24, 32)


@dataclass
class Waves(Network):
    """A network whose logits depend on the voxel, on where in the patch it lies, and on the class."""

    plan: Plan
    device: str = "cpu"
    patch_s: float = 0.1

    def logits(self, patch: Float32) -> Float32:
        z, y, x = np.indices(patch.shape, np.float32)
        classes = range(self.plan.architecture.heads)
        return np.stack([np.sin(number * patch + z / 5) * 3 + np.cos(number + y / 9 + x / 7) for number in classes])


@pytest.fixture(scope="module")
def network() -> Waves:
    plan = networks.read_plan(training_folder(WEIGHTS, SPECS[292]))
    without_halving = replace(plan.architecture, strides=tuple((1, 1, 1) for _ in plan.architecture.strides))
    return Waves(replace(plan, architecture=without_halving, patch_zyx=PATCH))


def slanting(shape_zyx: tuple[int, int, int]) -> NDArray[np.bool_]:
    wanted = np.zeros(shape_zyx, np.bool_)
    for z in range(shape_zyx[0]):
        wanted[z, 20:28, 2 * z : 2 * z + 8] = True
    return wanted


COVERAGES = {
    "one patch": ((10, 24, 30), Coverage(0.5)),
    "patches below one another": ((40, 24, 32), Coverage(0.5)),
    "patches beside one another": ((30, 50, 61), Coverage(0.8)),
    "patches where something is wanted": ((40, 50, 90), Coverage(0.8, slanting((40, 50, 90)))),
    "patches that follow it": ((40, 50, 90), Coverage(0.8, slanting((40, 50, 90)), follow_spine=True)),
    "one patch of many": ((40, 50, 90), Coverage(0.8, np.arange(40 * 50 * 90).reshape(40, 50, 90) == 4711)),
    "no patch": ((40, 50, 90), Coverage(0.8, np.zeros((40, 50, 90), np.bool_))),
}

EVERY_COVERAGE = pytest.mark.parametrize(("shape_zyx", "coverage"), COVERAGES.values(), ids=COVERAGES)


def image_of(shape_zyx: tuple[int, int, int]) -> Float32:
    return np.random.default_rng(0).standard_normal(shape_zyx, np.float32)


def softmax_at_once(image: Float32, network: Network, coverage: Coverage) -> NDArray[np.float64]:
    """(class, z, y, x), of weighted sums over the whole image; of a voxel without a patch background alone."""
    short = [max(length - size, 0) for size, length in zip(image.shape, PATCH, strict=True)]
    around = [(gap // 2, gap - gap // 2) for gap in short]
    padded = np.pad(image, around)
    wanted = np.ones(padded.shape, np.bool_) if coverage.mask is None else np.pad(coverage.mask, around)
    sums, weights = np.zeros((network.plan.architecture.heads, *padded.shape)), np.zeros(padded.shape)
    for row in sliding_window.patch_layout(wanted, PATCH, step=coverage.step, follow_spine=coverage.follow_spine):
        for corner in row.corners:
            window = window_of((row.top, *corner), PATCH)
            sums[(slice(None), *window)] += network.logits(padded[window]) * blending.gaussian(PATCH)
            weights[window] += blending.gaussian(PATCH)
    exponentials = np.exp(sums / np.maximum(weights, 1e-9))
    exponentials[1:, weights == 0] = 0
    inside = tuple(slice(low, low + size) for (low, _), size in zip(around, image.shape, strict=True))
    return (exponentials / exponentials.sum(axis=0))[(slice(None), *inside)]


@EVERY_COVERAGE
def test_second_and_third_are_those_of_the_whole_image_at_once(
    network: Waves, shape_zyx: tuple[int, int, int], coverage: Coverage
) -> None:
    image = image_of(shape_zyx)
    found = sliding_window.predict(image, network, coverage, report=ignore_progress, with_runners_up=True)
    expected = softmax_at_once(image, network, coverage)[:, found.labels != 0]
    assert found.runners_up is not None
    ranking = np.argsort(-expected, axis=0, kind="stable")[:3]
    ranked = np.stack([found.labels[found.labels != 0], *found.runners_up.labels])
    assert np.count_nonzero(ranked != ranking) <= 0.001 * ranked.size
    np.testing.assert_allclose(found.runners_up.probabilities, np.take_along_axis(expected, ranking, 0)[1:], atol=2e-3)


@EVERY_COVERAGE
def test_who_asks_for_them_gets_the_same_labels_and_probabilities(
    network: Waves, shape_zyx: tuple[int, int, int], coverage: Coverage
) -> None:
    image = image_of(shape_zyx)
    without = sliding_window.predict(image, network, coverage, report=ignore_progress)
    found = sliding_window.predict(image, network, coverage, report=ignore_progress, with_runners_up=True)
    assert without.runners_up is None
    np.testing.assert_array_equal(found.labels, without.labels)
    np.testing.assert_array_equal(found.probabilities, without.probabilities)


def decided(logits: Float32) -> RunnersUp:
    """What comes after the winners of one row of voxels, ``logits`` (class, voxel)."""
    parts: list[RunnersUp] = []
    shape = (1, 1, logits.shape[1])
    plane = LogitPlane(logits[:, None])
    blending.argmax_softmax([plane], np.zeros(shape, np.uint8), np.zeros(shape, np.float16), parts)
    return blending.join_runners_up(parts)


def test_background_may_come_second() -> None:
    found = decided(np.log(np.array([[0.3, 0.9], [0.5, 0.05], [0.2, 0.05]], np.float32)))
    assert found.labels.tolist() == [[0], [2]]
    np.testing.assert_allclose(found.probabilities, [[0.3], [0.2]], atol=1e-3)


def test_of_equals_the_lowest_class_comes_first() -> None:
    assert decided(np.array([[0.0], [1.0], [1.0], [1.0]], np.float32)).labels.tolist() == [[2], [3]]


def test_where_nothing_is_left_to_come_third_its_probability_is_nought() -> None:
    found = decided(np.array([[0.0], [1.0]], np.float32))
    assert found.labels.tolist() == [[0], [0]]
    assert found.probabilities[1] == 0


def test_a_class_that_is_out_of_question_has_a_probability_of_nought() -> None:
    found = decided(np.array([[-500.0], [300.0], [-500.0]], np.float32))
    assert found.probabilities.tolist() == [[0], [0]]


@pytest.mark.parametrize("broken", [np.inf, -np.inf, np.nan])
def test_a_logit_that_is_no_number_leaves_a_row_for_every_label(broken: float) -> None:
    logits = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, broken, 0.0]], np.float32)
    labels, probabilities = np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1, 3), np.float16)
    parts: list[RunnersUp] = []
    blending.argmax_softmax([LogitPlane(logits[:, None])], labels, probabilities, parts)
    assert blending.join_runners_up(parts).labels.shape[1] == np.count_nonzero(labels)
    assert np.isfinite(probabilities).all()
