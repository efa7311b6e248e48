"""How long a download waits: for a silent server, and before it asks again one that failed.

Knows seconds only; nothing of HTTP's other headers, files or threads.
"""

import random
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Self


@dataclass(frozen=True)
class RetryPolicy:
    """The limits of one download. There is none for the whole of it: slow lines may take hours.

    ``stall_s`` is the silence after which a connection counts as dead. ``retries`` counts the failures in a row without
    a byte gained that are forgiven; with the pauses between them an absent network is waited for about a minute.
    ``longest_asked_s`` bounds what a server may ask for by Retry-After.

    As long as nobody was ever reached there may be no network at all, which has to be known within 5 s: all mirrors
    together are given ``reach_s`` for a connection, and ``unreached_retries`` failures to get one are forgiven.
    """

    stall_s: float = 30.0
    connect_s: float = 10.0
    retries: int = 6
    first_pause_s: float = 1.0
    longest_pause_s: float = 30.0
    longest_asked_s: float = 120.0
    reach_s: float = 3.0
    unreached_retries: int = 0

    def among(self, mirrors: int) -> Self:
        """The same for one of so many ``mirrors``."""
        return replace(self, reach_s=self.reach_s / mirrors)

    def once_reached(self) -> Self:
        """The same when there is a network, since somebody was reached: one that goes away is waited for."""
        return replace(self, reach_s=self.stall_s, unreached_retries=self.retries)

    def pause_s(self, failures: int, retry_after_s: float) -> float:
        """The pause after so many failures in a row (from 1); ``retry_after_s`` is what the server wants at least."""
        doubled_s = min(self.first_pause_s * 2.0 ** (failures - 1), self.longest_pause_s)
        # Spread, so that all who were cut off together do not come back together.
        return max(doubled_s * random.uniform(0.5, 1.0), min(retry_after_s, self.longest_asked_s))


DEFAULT_POLICY = RetryPolicy()


def parse_retry_after(retry_after: str, server_date: str) -> float:
    """The headers Retry-After (seconds, or a date) and Date as a pause; 0 where they say nothing usable."""
    if re.fullmatch(r"[0-9]{1,9}", retry_after):
        return float(retry_after)
    until = _parse_http_date(retry_after)
    if until is None:
        return 0.0
    # By the server's own clock, where it tells: ours may be wrong.
    now = _parse_http_date(server_date) or datetime.now(UTC)
    return max((until - now).total_seconds(), 0.0)


def _parse_http_date(http_date: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(http_date)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
