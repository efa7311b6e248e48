"""What a training's dataset.json says to people about itself, as the demonstration's networks do.

Knows the one key; nothing of what the rest of the file means, or of networks.
"""

import json
from pathlib import Path

from openscans.system.regular_files import open_regular
from openscans.types import ResultWarning, WarningCode

KEY = "notice"

MOST_BYTES = 2**20
"""Of a dataset.json; larger ones are no network's and never come so far."""

MOST_TOLD = 200
"""Characters of a notice; it is a sentence."""


def notice_warnings(training: Path) -> tuple[ResultWarning, ...]:
    """A warning with the notice of the training in that folder; none where it has none.

    The same of every dataset that says the same, so that two such networks need to be warned of once.
    """
    notice = _read(training / "dataset.json")
    if not notice:
        return ()
    message = f"These weights say of themselves: {notice}"
    return (ResultWarning(WarningCode.DEMONSTRATION_WEIGHTS, message if message.endswith(".") else f"{message}."),)


def _read(path: Path) -> str:
    """The notice on one line; "" where there is none that can be read."""
    try:
        with open_regular(path) as file:
            content = file.read(MOST_BYTES + 1)
        notice = json.loads(content).get(KEY, "") if len(content) <= MOST_BYTES else ""
    except (OSError, ValueError, AttributeError, RecursionError):
        return ""
    if not isinstance(notice, str):
        return ""
    # Lone surrogates and line breaks would spoil the answer, or the log, that quotes it.
    return " ".join("".join(one if one.isprintable() else " " for one in notice).split())[:MOST_TOLD]
