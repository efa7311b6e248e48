"""What speaks for each level in each bone that was measured, and from that how sure its label is; numpy only.

A bone's evidence is the mean probability of each level over the bone's core: what lies two samples and more below its
surface, which of a vertebra is the body, since arches and processes are thinner than five samples. At the surface
neighbours mix, and there are more samples. Of every sample the three likeliest classes are known
(`blending.RunnersUp`); the rest share what is left, and count as nothing. How the evidence of all bones is read
together is `sequence`'s.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from openscans.segmentation import grids, sequence
from openscans.segmentation.vertebrae import Component, LabelMap, Measured
from openscans.types import Alternative, ResultWarning, Vertebra
from openscans.volumes import Affine

CORE_DEPTH = 2
"""Samples from the surface. Where a bone is nowhere so thick, its core is what is deepest."""

LEAST_CORE = 10
"""Samples; what fewer are called is chance."""

LEAST_CONTACT_MM2 = 100.0
"""Of a bone that stands on the sacrum's labels with its end plate; facets that touch them have less."""


def weigh_levels(
    vertebrae: Sequence[Vertebra], measured: Measured, found: LabelMap, affine_lps: Affine
) -> tuple[list[Vertebra], list[ResultWarning]]:
    """``vertebrae``, which are some of those ``measured`` in ``found``, with how sure their labels are, and the doubts.

    Bodies that carry a label again are read with them, since they are levels of the same spine.
    """
    instances = instances_of([*vertebrae, *measured.repeated], measured, found, affine_lps)
    reading = sequence.read_sequence(instances)
    weighed = [
        replace(
            vertebra,
            level_confidence=confidence,
            alternatives=tuple(Alternative(label, probability) for label, probability in alternatives),
        )
        for vertebra, (confidence, alternatives) in zip(
            vertebrae, sequence.level_doubts(reading, instances), strict=False
        )
    ]
    return weighed, sequence.sequence_warnings(instances, reading)


def instances_of(
    vertebrae: Sequence[Vertebra], measured: Measured, found: LabelMap, affine_lps: Affine
) -> list[sequence.VertebraInstance]:
    """Each of ``vertebrae`` with its evidence; ``affine_lps`` is the volume's."""
    x_mm, y_mm, _ = grids.sample_spacing_mm(found.grid, affine_lps)
    ranked = np.flatnonzero(found.labels)
    instances = []
    for vertebra in vertebrae:
        component, mask = measured.components[vertebra], measured.mask(vertebra)
        contact_mm2 = _samples_on_sacrum(mask, component, found) * x_mm * y_mm
        instances.append(
            sequence.VertebraInstance(
                label=vertebra.label,
                center_mm=vertebra.center_mm if vertebra.body is None else vertebra.body.center_mm,
                shares=_shares(core_of(mask), component, found, ranked),
                on_sacrum=vertebra.label == "S1" or contact_mm2 > LEAST_CONTACT_MM2,
            )
        )
    return instances


def _shares(
    core: NDArray[np.bool_], component: Component, found: LabelMap, ranked: NDArray[np.intp]
) -> dict[str, float]:
    """Level → its mean probability over ``core``, (z, y, x) of the component's box, as a share of all levels' together.

    ``ranked`` are the flat indices of the samples that have runners-up.
    """
    places = tuple(offset + low for offset, low in zip(np.nonzero(core), component.low_xyz[::-1], strict=True))
    flat = np.ravel_multi_index(places, found.labels.shape)
    sums = np.zeros(256)
    if found.runners_up is not None:
        columns = np.searchsorted(ranked, flat)
        labels, probabilities = found.runners_up.labels[:, columns], found.runners_up.probabilities[:, columns]
        sums += np.bincount(labels.ravel(), probabilities.ravel(), minlength=256)
    sums[component.label] += found.probabilities.reshape(-1)[flat].sum(dtype=np.float64)
    total = sum(sums[number] for number in found.names)
    return {level: float(sums[number] / total) for number, level in found.names.items() if sums[number] > 0}


def core_of(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of a bone's ``mask`` (z, y, x) what is `CORE_DEPTH` samples from its surface, or as deep as there is any."""
    core = mask
    for _ in range(CORE_DEPTH):
        inner = _peel(core)
        if np.count_nonzero(inner) < LEAST_CORE:
            break
        core = inner
    return core


def _peel(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """``mask`` without the samples that have one of the 26 neighbours outside it, or outside the array."""
    for axis in range(3):
        along = np.moveaxis(mask, axis, 0)
        inner = np.zeros_like(along)
        inner[1:-1] = along[1:-1] & along[:-2] & along[2:]
        mask = np.moveaxis(inner, 0, axis)
    return mask


def _samples_on_sacrum(mask: NDArray[np.bool_], component: Component, found: LabelMap) -> int:
    """How many samples of ``component`` stand right on one that is called S1 or sacrum; z runs towards the head."""
    sacral = [number for number, name in found.names.items() if name == "S1"]
    sacral += [] if found.sacrum is None else [found.sacrum]
    z, y, x = component.box
    first = 1 if z.start == 0 else 0
    below = found.labels[z.start + first - 1 : z.stop - 1, y, x]
    return int(np.count_nonzero(mask[first:] & np.isin(below, sacral)))
