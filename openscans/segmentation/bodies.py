"""Where the body of a vertebra is, told from its label alone: the middle of the thick part; numpy only.

A vertebra's centre of mass lies 4 to 14 mm behind its body, which is where a reader puts the level's mark.

How: the share of bone in a box around each sample, taken twice, is largest in the middle of the body, since arch and
processes are thinner than the box. The samples within a tenth of the largest share, as far as they hang together, are
the thick part, and their mean, weighted by the share's cube, is the middle. Of three ways that were tried (this one;
the largest inscribed sphere alone, and averaged over what lies near its size) it is the least off at 3 mm, and it is as
quick as one pass over the box.

Off by, on phantoms that know their bodies (`python -m benchmarks.bodies`, figures in benchmarks/RESULTS.md): at 1.5 mm
0.5 mm (at most 0.8), at 3 mm 0.9 mm (at most 2.3). The dens of C2 and the wings of S1 were not drawn there.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WITHOUT_BODY = frozenset({"C1"})

HALF_BOX_MM = {"C": 3.0, "T": 5.0, "L": 6.0, "S": 6.0}
"""By region: about a quarter of a body's height, which arches (5 mm) and processes do not fill."""

NEAR_THE_LARGEST = 0.9

LEAST_SHARE = {"C": 0.7, "T": 0.57, "L": 0.6, "S": 0.6}
"""Of bone in the two boxes. At 1.5 mm bodies reach 0.91 and more, arches alone 0.74 in the neck, 0.56 and 0.43 below;
at 3 mm bodies 0.79, 0.61 (T1) and 0.93, arches 0.67, 0.38 and 0.4. Of a vertebra that is cut off there may be less."""

Share = NDArray[np.float32]
"""Between 0 and 1, (z, y, x)."""


def body_center(
    labelled: NDArray[np.bool_], level: str, sample_mm: Sequence[float], edges: Sequence[tuple[bool, bool]]
) -> tuple[float, float, float] | None:
    """The middle of the body in ``labelled`` (z, y, x), the box of one vertebra, as an index (x, y, z); None where it
    cannot be told, or where ``level`` has none.

    ``sample_mm``: between samples along x, y, z. ``edges``: for each axis of the array, z first, whether its first and
    its last plane are the image's, beyond which a body that is cut off goes on.
    """
    if level in WITHOUT_BODY:
        return None
    region = level[0]
    halves = [max(1, round(HALF_BOX_MM[region] / step_mm)) for step_mm in reversed(sample_mm)]
    share = _share_around(_share_around(labelled.astype(np.float32), halves, edges), halves, edges) * labelled
    if float(share.max()) < LEAST_SHARE[region]:
        return None
    thick = np.where(_largest_piece(share >= NEAR_THE_LARGEST * share.max()), share**3, 0)
    z, y, x = (
        float(np.average(np.arange(size), weights=thick.sum(axis=tuple(other for other in range(3) if other != axis))))
        for axis, size in enumerate(thick.shape)
    )
    return x, y, z


def _share_around(values: Share, halves: Sequence[int], edges: Sequence[tuple[bool, bool]]) -> Share:
    """The mean of ``values`` in the box that reaches ``halves`` samples to every side of each."""
    for axis, (half, (first, last)) in enumerate(zip(halves, edges, strict=True)):
        wide = _pad(_pad(values, axis, (half, 0), goes_on=first), axis, (0, half), goes_on=last)
        sums = np.moveaxis(np.cumsum(wide, axis=axis, dtype=np.float64), axis, 0)
        sums = np.concatenate([np.zeros_like(sums[:1]), sums])
        values = np.moveaxis((sums[2 * half + 1 :] - sums[: -2 * half - 1]) / (2 * half + 1), 0, axis).astype(
            np.float32
        )
    return values


def _pad(values: Share, axis: int, width: tuple[int, int], *, goes_on: bool) -> Share:
    widths = [(0, 0), (0, 0), (0, 0)]
    widths[axis] = width
    return np.pad(values, widths, mode="edge" if goes_on else "constant")


def _largest_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    import cc3d

    pieces = cc3d.connected_components(mask, connectivity=26)
    counts = np.bincount(pieces.ravel())
    counts[0] = 0
    largest: NDArray[np.bool_] = pieces == int(counts.argmax())
    return largest
