"""The warning before a detection that will take minutes: from what the work forecasts, as soon as it does.

Knows forecasts; nothing of what is done, or of who reads the warning.
"""

import logging
from dataclasses import replace

from openscans.progress import Forecast, StageReport
from openscans.types import ResultWarning, WarningCode

SLOW_S = 120.0
"""Beyond it nobody waits before a screen, and wants to know that now rather than then."""

log = logging.getLogger("openscans.jobs")


class SlowDetectionWatch:
    """Stands between the work and ``told``, and adds the warning to what the work forecasts.

    ``faster``: whether fast_mode would take less.
    """

    def __init__(self, told: StageReport, *, faster: bool) -> None:
        self._told = told
        self._faster = faster
        self.warnings: tuple[ResultWarning, ...] = ()

    def report(self, stage: str, done: int, total: int, forecast: Forecast | None = None, /) -> None:
        """The `StageReport` that the work is given. Raises Cancelled."""
        if forecast is not None:
            self._look_at(forecast.left_s(total - done))
            forecast = replace(forecast, warnings=(*forecast.warnings, *self.warnings))
        self._told(stage, done, total, forecast)

    def _look_at(self, left_s: float | None) -> None:
        if self.warnings or left_s is None or left_s <= SLOW_S:
            return
        message = f"A detection in this image takes about {round(left_s / 60)} minutes on this machine"
        message += "; fast_mode takes less." if self._faster else "."
        log.warning("%s", message)
        self.warnings = (ResultWarning(WarningCode.SLOW_DETECTION, message),)
