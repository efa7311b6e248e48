"""Phantoms whose spines are bent as scoliosis and kyphosis bend them, more than `phantom.spine` draws by chance."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from phantom import spine


def bent(seed: int, levels: Sequence[str], *, to_side_mm: float = 0.0, to_back_mm: float = 0.0) -> spine.Phantom:
    """The phantom of ``seed``, its middle moved aside and backwards, and each vertebra turned with the curve (LPS)."""
    straight = spine.describe(seed, levels)
    low, high = straight.levels[-1].center_mm[2], straight.levels[0].center_mm[2]

    def curved(level: spine.Level) -> spine.Level:
        place = np.pi * (level.center_mm[2] - low) / (high - low)
        bend = np.array([to_side_mm, to_back_mm, 0.0])
        tilt = bend * np.cos(place) * np.pi / (high - low)
        up = level.axes[2] + tilt
        up /= np.linalg.norm(up)
        left = level.axes[0] - up * (level.axes[0] @ up)
        left /= np.linalg.norm(left)
        axes = np.stack([left, np.cross(up, left), up])
        return replace(level, center_mm=level.center_mm + bend * np.sin(place), axes=axes)

    return replace(straight, levels=tuple(curved(level) for level in straight.levels))
