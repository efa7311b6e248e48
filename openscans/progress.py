"""How long work says how far it is, without knowing who listens or how it is stopped."""

from collections.abc import Callable
from typing import TypeAlias

Report: TypeAlias = Callable[[int, int], None]
"""``report(done, total)`` in units of real work (bytes, slices, patches); raises `errors.Cancelled` to stop it."""

StageReport: TypeAlias = Callable[[str, int, int], None]
"""``report(stage, done, total)``, the stage being a status of the HTTP contract ("reading", "segmenting", …)."""


def ignore_progress(done: int, total: int) -> None:
    """A `Report` to nobody."""
