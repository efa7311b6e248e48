"""The small networks that are committed: what they claim to be, and that nobody can take them for the real ones."""

import json

import pytest

from openscans import networks
from phantom import layout, specs
from phantom.demo import WEIGHTS

LARGEST_BYTES = 10_000_000
"""They come with every clone."""


@pytest.mark.parametrize("dataset", [292, 297, 298, 756])
def test_a_small_network_has_the_stages_and_labels_of_the_real_one(dataset: int) -> None:
    spec = specs.SPECS[dataset]
    plan = networks.read_plan(layout.training_folder(WEIGHTS, spec))
    assert plan.labels == {0: "background"} | dict(spec.labels)
    assert plan.architecture.strides == spec.strides
    assert plan.architecture.kernels == spec.kernels
    assert plan.spacing_zyx_mm == (spec.spacing_mm,) * 3


@pytest.mark.parametrize("dataset", [292, 297, 298, 756])
def test_a_small_network_says_that_it_has_no_medical_use(dataset: int) -> None:
    folder = layout.training_folder(WEIGHTS, specs.SPECS[dataset])
    assert "no medical use" in json.loads((folder / "dataset.json").read_text())["notice"]


def test_all_small_networks_together_are_a_few_megabytes() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) < LARGEST_BYTES
