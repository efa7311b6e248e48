"""Reads an image as often as one of its files is opened, and each time a pipe takes that file's place at one opening.

Takes the path of the image and that of the file; writes how each reading ended, as a JSON list.
"""

import itertools
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openscans import volumes
from openscans.errors import OpenScansError


class Opening:
    """An audit hook that counts how often ``file`` is opened, and puts a pipe there at the time ``wanted``."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.wanted = self.count = 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or str(arguments[0]) != str(self.file):
            return
        self.count += 1
        if self.count == self.wanted:
            self.file.unlink()
            os.mkfifo(self.file)


def outcomes(image: Path, file: Path) -> Iterator[str]:
    content, opening = file.read_bytes(), Opening(file)
    sys.addaudithook(opening)
    for wanted in itertools.count(1):
        opening.wanted, opening.count = wanted, 0
        try:
            outcome = str(volumes.open(image).read().voxels.shape)
        except OpenScansError as error:
            outcome = error.code
        if opening.count < wanted:
            return
        yield outcome
        opening.wanted = 0
        file.unlink()
        file.write_bytes(content)


if __name__ == "__main__":
    print(json.dumps(list(outcomes(*map(Path, sys.argv[1:])))))  # noqa: T201
