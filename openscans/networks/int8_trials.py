"""What came of trying a network in int8, kept on disk by the weights: the ranges of its channels, and how it did.

Knows numpy and JSON; no engine, and not how a network is tried.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openscans.system.disk_cache import DiskCache

LEAST_AGREEMENT = 0.995
"""Share of the named voxels that have the same label in int8 as in float32, below which int8 is refused."""

PLAIN_AGREEMENT = 0.9975
"""The share from which on nothing more exact is tried: half of what is forgiven. A network that just reached the least
share gave the smallest vertebra of other phantoms a Dice of 0.989."""

LEAST_NAMED = 2000
"""Named voxels that a patch must have for int8 to be judged by it. A vertebra has some thousand at 1.5 mm; in 2000, ten
voxels are what is forgiven."""

MARGIN = 1.25
"""By how much other patches may go beyond the range of those that were seen. Without it, the smallest vertebra of
phantoms that end within a patch lost a hundredth of its Dice; a third of a bit is what it costs."""

SUFFIX = ".int8"

MOST_KEPT = 32
"""Four networks, for some versions and machines; each takes at most some hundred kilobytes."""

log = logging.getLogger("openscans.networks")


@dataclass(frozen=True)
class ChannelRange:
    """The least and the largest value of each channel of an array."""

    low: NDArray[np.float32]
    high: NDArray[np.float32]

    def widened(self, other: "ChannelRange") -> "ChannelRange":
        """That of both arrays together."""
        return ChannelRange(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    def divided(self, factors: NDArray[np.float32]) -> "ChannelRange":
        """That of channels that were divided by ``factors``."""
        return ChannelRange(self.low / factors, self.high / factors)

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the largest value that an array of these channels is expected to have in any patch.

        With 0 between them, which the padding needs to be told exactly.
        """
        return MARGIN * min(float(self.low.min()), 0.0), MARGIN * max(float(self.high.max()), 0.0)

    @property
    def magnitude(self) -> NDArray[np.float32]:
        """The largest absolute value of each channel."""
        return np.maximum(np.abs(self.low), np.abs(self.high))


Ranges = Mapping[str, ChannelRange]
"""Of a convolution's input, by the convolution's name."""


@dataclass(frozen=True)
class Int8Trial:
    """``agreement``: the share of a patch's named voxels to which int8 gave float32's label; None where nothing
    computes int8. ``ranges`` are those of the convolutions that were computed so."""

    agreement: float | None
    ranges: Ranges

    @property
    def is_accepted(self) -> bool:
        return self.agreement is not None and self.agreement >= LEAST_AGREEMENT

    @property
    def digest(self) -> str:
        """Changes with the ranges."""
        return hashlib.sha256(_written(self)).hexdigest()


def agreement_of(exact: NDArray[np.intp], rounded: NDArray[np.intp]) -> float:
    """The share of voxels with the same label, of those that either gives another label than 0, the background."""
    named = (exact != 0) | (rounded != 0)
    return float((exact == rounded)[named].mean())


class TrialCache:
    """Trials by their keys in a folder that several processes share."""

    def __init__(self, folder: Path) -> None:
        self._cache = DiskCache(folder, SUFFIX, MOST_KEPT)

    def get(self, key: str) -> Int8Trial | None:
        content = self._cache.get(key)
        if content is None:
            return None
        try:
            return _read(content)
        except (AttributeError, KeyError, TypeError, ValueError):
            log.warning("What was kept of a trial of int8 is not understood; it is tried again.")
            return None

    def put(self, key: str, trial: Int8Trial) -> None:
        self._cache.put(key, _written(trial))


def _written(trial: Int8Trial) -> bytes:
    ranges = {name: [own.low.tolist(), own.high.tolist()] for name, own in trial.ranges.items()}
    return json.dumps({"agreement": trial.agreement, "ranges": ranges}).encode()


def _read(content: bytes) -> Int8Trial:
    kept = json.loads(content)
    ranges = {
        name: ChannelRange(np.array(low, np.float32), np.array(high, np.float32))
        for name, (low, high) in kept["ranges"].items()
    }
    agreement = kept["agreement"]
    return Int8Trial(None if agreement is None else float(agreement), ranges)
