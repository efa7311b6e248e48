"""In what two recordings differ: path of the key, what was, what is. Numbers that networks compute may differ a little.

Knows JSON and the keys of a vertebra; nothing of how answers are had.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

NEAR: Sequence[tuple[re.Pattern[str], float, float]] = (
    (re.compile(r"\.center(_mm)?\.[xyz]$"), 0.05, 0.0),
    (re.compile(r"\.(level_)?confidence$"), 0.01, 0.0),
    (re.compile(r"\.volume_ml$"), 0.0, 0.01),
    (re.compile(r"\.bounds\.(min|max)\.[xyz]$"), 1.0, 0.0),
    (re.compile(r"\.slice\.[xy]$"), 1.0, 0.0),
    (re.compile(r""), 0.0, 1e-9),
)
"""Keys, and how far their numbers may lie apart, absolute and as a share: processors round differently."""

VERTEBRA = re.compile(r"\.vertebrae\.[0-9]+$")
"""May gain keys, as the contract has it; what it had stays, in its order."""

LONGEST = 400
"""Characters of a value that are shown."""

Meant = Mapping[tuple[str, str], str]
"""(pattern of the scenario's name, pattern of the key's path, both as file names have them) → why it changed."""


@dataclass(frozen=True)
class Difference:
    path: str
    was: str
    now: str

    def __str__(self) -> str:
        return f"{self.path}\n  was {self.was}\n  is  {self.now}"


def differences(was: Any, now: Any, path: str = "answer") -> Iterator[Difference]:
    """Every one, from the outside to the inside; types, and the order of an object's keys, count."""
    if isinstance(was, dict) and isinstance(now, dict):
        yield from _of_objects(was, now, path)
    elif isinstance(was, list) and isinstance(now, list):
        yield from _of_lists(was, now, path)
    elif not _same(was, now, path):
        yield Difference(path, _shown(was), _shown(now))


def _of_objects(was: Mapping[str, Any], now: Mapping[str, Any], path: str) -> Iterator[Difference]:
    for key in was:
        if key not in now:
            yield Difference(f"{path}.{key}", _shown(was[key]), "absent")
    for key in now:
        if key not in was and not VERTEBRA.search(path):
            yield Difference(f"{path}.{key}", "absent", _shown(now[key]))
    before, after = [key for key in was if key in now], [key for key in now if key in was]
    if before != after:
        yield Difference(f"{path} (order of its keys)", ", ".join(before), ", ".join(after))
    for key in before:
        yield from differences(was[key], now[key], f"{path}.{key}")


def _of_lists(was: Sequence[Any], now: Sequence[Any], path: str) -> Iterator[Difference]:
    if len(was) != len(now):
        yield Difference(f"{path} ({len(was)} and {len(now)} items)", _shown(was), _shown(now))
        return
    for number, (one, other) in enumerate(zip(was, now, strict=True)):
        yield from differences(one, other, f"{path}.{number}")


def _same(was: Any, now: Any, path: str) -> bool:
    if type(was) is not type(now):
        return False
    if isinstance(was, bool) or not isinstance(was, int | float):
        return bool(was == now)
    absolute, share = next((absolute, share) for key, absolute, share in NEAR if key.search(path))
    return math.isclose(was, now, abs_tol=absolute, rel_tol=share)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def unmeant(scenario: str, found: Sequence[Difference], meant: Meant) -> list[Difference]:
    """Those for which no entry of ``meant`` gives a reason."""
    return [one for one in found if not any(explains(entry, scenario, one) for entry in meant)]


def explains(entry: tuple[str, str], scenario: str, difference: Difference) -> bool:
    names, paths = entry
    return fnmatchcase(scenario, names) and fnmatchcase(difference.path, paths)
