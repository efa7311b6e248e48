"""A synthetic MR of the same spine: signals in the place of densities, thick slices, uneven sensitivity, Rician noise.

Knows what a spine's MR looks like; the body and its labels are those of `phantom.drawing`. The slices are sagittal and
lie along x of the grid; `phantom.files.reorient` to "PIR" puts them in the order in which scanners store them.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from phantom import drawing, grid
from phantom.grid import Affine, Float32
from phantom.spine import Phantom

Weighting = Literal["T1", "T2"]

MARROW = (0.35, 0.52, 0.73, 0.98, 1.28)
"""The steps that code a level, each more than the one before by a third or a half: an uneven sensitivity multiplies."""

TISSUES: dict[Weighting, drawing.Tissues] = {
    "T1": drawing.Tissues(
        air=0.0,
        fat=1.0,
        muscle=0.26,
        lung=0.03,
        organ=0.35,
        rib=0.5,
        disc=0.24,
        canal=0.1,
        cortex=0.05,
        sacrum=0.45,
        marrow=MARROW,
    ),
    "T2": drawing.Tissues(
        air=0.0,
        fat=0.8,
        muscle=0.16,
        lung=0.03,
        organ=0.3,
        rib=0.4,
        disc=0.75,
        canal=1.2,
        cortex=0.05,
        sacrum=0.45,
        marrow=MARROW,
    ),
}
"""Signals beside that of fat in T1. Fluid is dark in T1 and bright in T2, as discs are; cortex is dark in both."""

SUB_SLICES = (-1 / 3, 0.0, 1 / 3)
"""Where within its thickness a slice is sampled; its signal is their mean."""

COILS_BEHIND_MM = 60.0
"""How far behind the spine the coils of the table lie."""

COIL_REACH_MM = 110.0
"""Where a coil's sensitivity has fallen to a half."""


@dataclass(frozen=True)
class Sequence:
    """How an MR is made: its contrast and its faults.

    ``thickness_mm`` of a slice, whatever the distance to the next. ``bias``: how far the signal slowly varies over the
    body, a share's deviation. ``coils``: 1 for the whole fall-off of the three coils behind the back, 0 where it was
    corrected. ``noise``: the deviation of either channel. All signals are multiplied by ``gain``.
    """

    weighting: Weighting
    thickness_mm: float = 3.6
    bias: float = 0.05
    coils: float = 0.5
    noise: float = 0.03
    gain: float = 400.0


def render(
    phantom: Phantom, shape_zyx: grid.Shape, affine_lps: Affine, sequence: Sequence, *, seed: int = 0
) -> tuple[Float32, NDArray[np.uint8]]:
    """The phantom on a grid whose x is across the slices: signal (z, y, x), never negative, and labels (z, y, x)."""
    random = np.random.default_rng(seed)
    tissues = TISSUES[sequence.weighting]
    drawn = [drawing.draw(phantom, shape_zyx, _shifted(affine_lps, sequence, share), tissues) for share in SUB_SLICES]
    signal = np.mean([values for values, _ in drawn], axis=0, dtype=np.float32)
    field = _BiasField(random, sequence.bias)
    for slab in grid.slabs(shape_zyx):
        positions = grid.positions(slab, shape_zyx, affine_lps)
        signal[slab] *= field.at(positions) * _coil_sensitivity(phantom, positions) ** np.float32(sequence.coils)
    _make_rician(signal, sequence.noise, random)
    signal *= np.float32(sequence.gain)
    return signal, drawn[len(SUB_SLICES) // 2][1]


def _shifted(affine_lps: Affine, sequence: Sequence, share: float) -> Affine:
    """The grid moved across the slices by a ``share`` of their thickness."""
    across = affine_lps[:3, 0] / np.linalg.norm(affine_lps[:3, 0])
    moved = affine_lps.copy()
    moved[:3, 3] += across * share * sequence.thickness_mm
    return moved


class _BiasField:
    """A factor about 1 that varies slowly over the body: a few waves of 300 to 600 mm, as no coil's correction is."""

    WAVES = 4

    def __init__(self, random: np.random.Generator, deviation: float) -> None:
        directions = random.standard_normal((self.WAVES, 3))
        lengths_mm = random.uniform(300, 600, self.WAVES)
        directions *= (2 * np.pi / lengths_mm / np.linalg.norm(directions, axis=1))[:, None]
        self._waves = directions.astype(np.float32)
        self._phases = random.uniform(0, 2 * np.pi, self.WAVES).astype(np.float32)
        self._height = np.float32(deviation * np.sqrt(2 / self.WAVES))

    def at(self, positions: Float32) -> Float32:
        """At ``positions`` (3, z, y, x), LPS mm: (z, y, x)."""
        exponent = np.zeros(positions.shape[1:], np.float32)
        for wave, phase in zip(self._waves, self._phases, strict=True):
            exponent += np.sin(np.tensordot(wave, positions, 1) + phase)
        return np.exp(self._height * exponent)


def _coil_sensitivity(phantom: Phantom, positions: Float32) -> Float32:
    """What three coils in a row behind the back receive together, 1 in the middle of the spine."""
    x, y, z = np.mean([level.center_mm for level in phantom.levels], axis=0)
    heights = np.linspace(phantom.bottom_mm, phantom.top_mm, 7)[1::2]

    def received(at: Float32) -> Float32:
        squares = np.zeros(at.shape[1:], np.float32)
        for height in heights:
            away = at - np.array([x, y + COILS_BEHIND_MM, height], np.float32)[:, None, None, None]
            squares += (1 + np.square(away).sum(axis=0) / np.float32(COIL_REACH_MM**2)) ** -2
        return np.sqrt(squares)

    middle = np.array([x, y, z], np.float32)[:, None, None, None]
    result: Float32 = received(positions) / received(middle)
    return result


def _make_rician(signal: Float32, noise: float, random: np.random.Generator) -> None:
    """The magnitude of a signal with noise in both of its channels."""
    for z in range(len(signal)):
        real, imaginary = random.standard_normal((2, *signal[z].shape), np.float32) * np.float32(noise)
        np.hypot(signal[z] + real, imaginary, out=signal[z])
