"""The tree of errors as its module draws it, against the classes."""

import re
from collections.abc import Iterator

from openscans import errors
from openscans.errors import OpenScansError

LINE = re.compile(r" {4}((?:[│ ]  )*(?:[├└]─ )?)(\w+) +(\w+) +\S.*")
STEP = 3
"""Characters by which a narrower class is drawn further in."""


def drawn() -> list[tuple[int, str, str]]:
    """Depth, name and code of every line of the drawing."""
    found = map(LINE.fullmatch, (errors.__doc__ or "").splitlines())
    return [(len(line[1]) // STEP, line[2], line[3]) for line in found if line]


def defined(kind: type[OpenScansError] = OpenScansError, depth: int = 0) -> Iterator[tuple[int, str, str]]:
    if kind.__module__ == errors.__name__:
        yield depth, kind.__name__, kind.code
    for narrower in kind.__subclasses__():
        yield from defined(narrower, depth + 1)


def test_the_drawing_shows_every_class_in_its_place_with_its_code() -> None:
    assert drawn() == list(defined())


def test_every_kind_of_an_error_is_found_from_it() -> None:
    assert [kind.__name__ for kind in errors.kinds_of(OpenScansError)] == [name for _, name, _ in drawn()]
    assert list(errors.kinds_of(errors.ModelMissing)) == [
        errors.ModelMissing,
        errors.DamagedWeights,
        errors.RefusedWeights,
    ]
