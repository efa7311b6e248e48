"""What stands in a DICOM header's elements becomes numbers, or is named for what it is: why a header cannot be used.

Values come as pydicom makes them, or as the text that stands there where they are malformed (`elements`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pydicom.tag import Tag

from openscans.errors import CorruptFile
from openscans.volumes.elements import value_of


@dataclass(frozen=True)
class Fault:
    """Why a header cannot be used: ``says`` continues a sentence that begins with the file."""

    says: str
    hint: str | None = None

    def error(self, file: str) -> CorruptFile:
        """The error whose sentence begins with ``file``, such as "The DICOM file"."""
        return CorruptFile(f"{file} {self.says}.", hint=self.hint)


ENDS_EARLY = Fault("ends within its header")
NESTED = Fault("has a header that is nested too deep to be read")
DECIMAL_COMMAS = Fault(
    "writes numbers with decimal commas, which DICOM does not allow",
    hint="DICOM writes numbers with a point; export the series again with software that does.",
)
NO_NUMBER = Fault("has something else where its header must hold a number")


class MalformedValue(ValueError):
    """A value that is needed is not what it should be."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.says)
        self.fault = fault


def functional_value(sequence: str, name: str, groups: Sequence[Dataset], values: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """``name`` from the first of the frame's functional ``groups`` that has it, else from the file's top level.

    A frame's own groups go before the shared ones (PS3.3 C.7.6.16.2).
    """
    for group in groups:
        items = group.get(sequence) or []
        found = value_of(items[0], Tag(name)) if len(items) and name in items[0] else None
        if not _is_empty(found):
            return found
    return None if _is_empty(values.get(name)) else values.get(name)


def _is_empty(value: Any) -> bool:  # noqa: ANN401 - as above
    return value is None or (isinstance(value, str) and not value.strip())


def numbers_of(value: Any) -> list[float]:  # noqa: ANN401 - pydicom gives one value or a list of them
    """The numbers of an element, also where they are one text, divided by backslashes as they stand in the file.

    Raises MalformedValue where one of them is none.
    """
    numbers = value.split("\\") if isinstance(value, str) else value if isinstance(value, Iterable) else [value]
    try:
        return [float(number) for number in numbers]
    except (TypeError, ValueError) as error:
        raise MalformedValue(DECIMAL_COMMAS if "," in str(value) else NO_NUMBER) from error


def number_of(value: Any) -> float:  # noqa: ANN401 - as `numbers_of`
    numbers = numbers_of(value)
    if len(numbers) != 1:
        raise MalformedValue(NO_NUMBER)
    return numbers[0]


def whole_number_of(value: Any) -> int | None:  # noqa: ANN401 - whatever stands in the element
    """None where it is no whole number."""
    try:
        return None if value is None else int(value)
    except (OverflowError, TypeError, ValueError):
        return None
