"""Keys of a request that nobody knows: told with the nearest that is known, so that a slip is no silent default.

Knows keys; of their values nothing, and of keys only those that are plain words: any other may hold whatever a caller
sent, such as a path.
"""

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from itertools import islice
from typing import Any

from pydantic import BaseModel, ConfigDict

from openscans.types import ResultWarning, WarningCode

PLAIN_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")

MOST_NAMED = 5

MOST_COMPARED = 50
"""A body may hold thirty thousand keys."""


class RequestBody(BaseModel):
    """What is asked for with an object of JSON; keys that are not known are ignored, and told."""

    model_config = ConfigDict(extra="allow")

    def known(self) -> dict[str, Any]:
        """The values of the known keys alone."""
        return {name: getattr(self, name) for name in type(self).model_fields}

    def warnings(self) -> tuple[ResultWarning, ...]:
        """One where there are unknown keys."""
        unknown = self.model_extra or {}
        if not unknown:
            return ()
        told = describe_unknown(unknown, type(self).model_fields)
        text = f"Keys of the request that are not known were ignored ({told})."
        return (ResultWarning(WarningCode.UNKNOWN_KEYS, text),)


def describe_unknown(unknown: Collection[str], known: Collection[str]) -> str:
    """Those in ``unknown`` that are plain words, each with the nearest in ``known``, and how many others there are."""
    named = list(islice(_plain_words(unknown), MOST_NAMED))
    told = [_suggestion(key, near) if (near := _nearest(key, known)) else key for key in named]
    others = len(unknown) - len(named)
    return "; ".join([*told, f"{others} unnamed"] if others else told)


def suggest(missing: str, keys: Iterable[str]) -> str | None:
    """The one of ``keys`` that was meant to be ``missing``, as a question; None where there is none."""
    by_lower_case = {key.lower(): key for key in islice(_plain_words(keys), MOST_COMPARED)}
    near = _nearest(missing, by_lower_case)
    return None if near is None else _suggestion(by_lower_case[near], missing)


def _plain_words(keys: Iterable[str]) -> Iterable[str]:
    return (key for key in keys if PLAIN_WORD.fullmatch(key))


def _nearest(key: str, known: Iterable[str]) -> str | None:
    return next(iter(get_close_matches(key.lower(), known, n=1)), None)


def _suggestion(key: str, near: str) -> str:
    return f"{key}: did you mean {near}?"
