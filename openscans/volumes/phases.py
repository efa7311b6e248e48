"""Of several volumes under one series UID the one that a named file belongs to; headers only."""

from collections.abc import Sequence
from pathlib import Path

from openscans.types import ResultWarning, WarningCode
from openscans.volumes.headers import PHASES, Slice
from openscans.volumes.volume import FEWEST_SLICES

ONE_OF_SEVERAL = ResultWarning(
    WarningCode.ONE_OF_SEVERAL_VOLUMES, "The series holds several volumes; the given file's own was read."
)


def select_phase(slices: Sequence[Slice], named: Path | None) -> tuple[list[Slice], tuple[ResultWarning, ...]]:
    """``slices`` that share the first of `headers.PHASES` that tells several volumes at one place apart.

    The value is that of the file ``named``; without one, or where nothing tells them apart, all ``slices``.
    """
    own = next((one for one in slices if one.file == named), None)
    if own is None or _lie_apart(slices):
        return list(slices), ()
    for index in range(len(PHASES)):
        same = [one for one in slices if one.phase[index] == own.phase[index]]
        if len(same) >= FEWEST_SLICES and _lie_apart(same):
            return same, (ONE_OF_SEVERAL,)
    return list(slices), ()


def _lie_apart(slices: Sequence[Slice]) -> bool:
    places = [one.place.position for one in slices if one.place is not None]
    return len({tuple(position.round(2)) for position in places}) == len(slices)
