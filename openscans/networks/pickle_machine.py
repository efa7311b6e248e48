"""A machine that runs pickles in bounded memory and time, and nothing of what they ask to be run.

A pickle is a program for a machine with a stack and a memo. Python's own takes whatever the program asks for: a memo of
any length, numbers and lists without end, a call of any function. This one keeps texts, small numbers, tuples, and
dictionaries by text; all else becomes `INERT`. What names and calls mean, who uses it says. Knows nothing of PyTorch.
"""

from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Final, TypeAlias

MOST_STEPS = 1_000_000
"""A second or two. Weights take ten thousand, and are saved before logs, of which 500 epochs with 117 scores each take
a million."""

MOST_DICTIONARIES = 100_000
"""Nothing else takes as much memory for its step. An optimizer has one a tensor."""

DEEPEST = 1000
"""Marks, which stand for what is begun and not whole. What PyTorch saves has ten within each other."""

MOST_TEXT_BYTES = 4096
"""Of a text that is kept: names of tensors, modules and storages."""

MOST_NUMBER_BYTES = 8
"""Of a whole number that is kept: shapes, strides, offsets."""

MOST_LINE_BYTES = 1024
"""Of the name of a module or of what is in it."""


class Inert(Enum):
    """Stands for anything that a pickle holds and that is not needed here."""

    INERT = auto()


INERT: Final = Inert.INERT

BROKEN = (LookupError, TypeError, ValueError)
"""How a pickle fails that is damaged, tampered with, or asks for more than any checkpoint."""


class PickleMachine:
    """Runs the pickle ``content``."""

    def __init__(self, content: bytes | bytearray) -> None:
        self._content = content
        self._at = 0
        self._memo: list[object] = []
        self._dictionaries = 0
        self.stack: list[object] = []
        """What was pushed since the last mark."""
        self.below: list[list[object]] = []
        """The stacks under the marks that are open, from the outermost."""

    def name(self, module: str, name: str) -> object:
        """What a pickle means by a global."""
        return INERT

    def call(self, function: object, arguments: object) -> object:
        """What a pickle means by a call."""
        return INERT

    def persistent(self, pid: object) -> object:
        """What a persistent id stands for."""
        return INERT

    def is_done(self) -> bool:
        """Whether the rest need not be run; asked before each mark."""
        return False

    def run(self) -> object:
        """What the whole pickle makes, or INERT where it was done before. Raises one of `BROKEN`."""
        content, acts = self._content, ACTS
        for _ in range(MOST_STEPS):
            code = content[self._at]
            self._at += 1
            if code == STOP:
                return self.stack.pop()
            if code == MARK and self.is_done():
                return INERT
            acts[code](self)
        raise ValueError("The pickle takes more steps than any checkpoint.")

    def new_dictionary(self) -> dict[str, object]:
        self._dictionaries += 1
        if self._dictionaries > MOST_DICTIONARIES:
            raise ValueError("The pickle makes more dictionaries than any checkpoint.")
        return {}

    def _take(self, size: int) -> bytes | bytearray:
        """The next bytes of the program."""
        start, self._at = self._at, self._at + size
        if size < 0 or self._at > len(self._content):
            raise ValueError("The pickle is cut short.")
        return self._content[start : self._at]

    def _take_size(self, width: int) -> int:
        return int.from_bytes(self._take(width), "little")

    def skip(self, size: int) -> None:
        # What leads behind the end is noticed at the next step.
        self._at += size

    def _take_line(self) -> str:
        end = self._content.index(b"\n", self._at, self._at + MOST_LINE_BYTES)
        line = self._take(end - self._at)
        self._at += 1
        return line.decode("utf-8")

    def _pop_mark(self) -> list[object]:
        found, self.stack = self.stack, self.below.pop()
        return found

    def mark(self) -> None:
        if len(self.below) == DEEPEST:
            raise ValueError("The pickle begins more within each other than any checkpoint.")
        self.below.append(self.stack)
        self.stack = []

    def drop(self, count: int) -> None:
        for _ in range(count):
            self.stack.pop()

    def drop_to_mark(self) -> None:
        self._pop_mark()

    def replace(self, count: int) -> None:
        """What ``count`` values on top make is not needed."""
        self.drop(count)
        self.stack.append(INERT)

    def replace_to_mark(self) -> None:
        self._pop_mark()
        self.stack.append(INERT)

    def push_inert(self, size: int) -> None:
        """What the next bytes say is not needed."""
        self.skip(size)
        self.stack.append(INERT)

    def push_inert_of(self, width: int) -> None:
        """What as many bytes say as the next ``width`` bytes tell is not needed."""
        self.push_inert(self._take_size(width))

    def push_text(self, width: int) -> None:
        size = self._take_size(width)
        if size > MOST_TEXT_BYTES:
            self.push_inert(size)
        else:
            self.stack.append(self._take(size).decode("utf-8", "surrogatepass"))

    def push_number(self, size: int, *, signed: bool) -> None:
        if size > MOST_NUMBER_BYTES:
            self.push_inert(size)
        else:
            self.stack.append(int.from_bytes(self._take(size), "little", signed=signed))

    def push_number_of(self, width: int) -> None:
        self.push_number(self._take_size(width), signed=True)

    def push_tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise ValueError("The pickle makes a tuple of more than there is.")
        start = len(self.stack) - count
        self.stack[start:] = [tuple(self.stack[start:])]

    def push_tuple_to_mark(self) -> None:
        found = tuple(self._pop_mark())
        self.stack.append(found)

    def push_dictionary(self) -> None:
        self.stack.append(self.new_dictionary())

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def set_items(self) -> None:
        self._set(self._pop_mark())

    def _set(self, pairs: list[object]) -> None:
        into = self.stack[-1]
        if isinstance(into, dict):
            for key, value in zip(pairs[::2], pairs[1::2], strict=True):
                # Keys of other kinds may take for ever to be compared.
                if isinstance(key, str):
                    into[key] = value

    def keep(self, width: int) -> None:
        """Remember what is on top under the next number; who pickles counts from 0."""
        self._keep(self._take_size(width))

    def keep_next(self) -> None:
        self._keep(len(self._memo))

    def _keep(self, index: int) -> None:
        if not 0 <= index <= len(self._memo):
            raise ValueError("The pickle's memo has holes.")
        self._memo[index : index + 1] = [self.stack[-1]]

    def recall(self, width: int) -> None:
        self.stack.append(self._memo[self._take_size(width)])

    def push_global(self) -> None:
        module = self._take_line()
        self.stack.append(self.name(module, self._take_line()))

    def push_global_of_stack(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(self.name(module, name) if isinstance(module, str) and isinstance(name, str) else INERT)

    def push_call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(self.call(function, arguments))

    def push_persistent(self) -> None:
        self.stack.append(self.persistent(self.stack.pop()))


Act: TypeAlias = Callable[[PickleMachine], None]


def _with(act: Callable[[PickleMachine, int], None], number: int) -> Act:
    return lambda machine: act(machine, number)


def _number(size: int, *, signed: bool = False) -> Act:
    return lambda machine: machine.push_number(size, signed=signed)


MARK, STOP = b"(."

OPCODES: Mapping[bytes, Act] = {
    b"\x80": _with(PickleMachine.skip, 1),  # PROTO
    b"\x95": _with(PickleMachine.skip, 8),  # FRAME
    b"(": PickleMachine.mark,
    b"0": _with(PickleMachine.drop, 1),
    b"1": PickleMachine.drop_to_mark,
    b"X": _with(PickleMachine.push_text, 4),
    b"\x8c": _with(PickleMachine.push_text, 1),
    b"\x8d": _with(PickleMachine.push_text, 8),
    b"J": _number(4, signed=True),
    b"K": _number(1),
    b"M": _number(2),
    b"\x8a": _with(PickleMachine.push_number_of, 1),
    b"\x8b": _with(PickleMachine.push_number_of, 4),
    b")": _with(PickleMachine.push_tuple, 0),
    b"\x85": _with(PickleMachine.push_tuple, 1),
    b"\x86": _with(PickleMachine.push_tuple, 2),
    b"\x87": _with(PickleMachine.push_tuple, 3),
    b"t": PickleMachine.push_tuple_to_mark,
    b"}": PickleMachine.push_dictionary,
    b"s": PickleMachine.set_item,
    b"u": PickleMachine.set_items,
    b"q": _with(PickleMachine.keep, 1),
    b"r": _with(PickleMachine.keep, 4),
    b"\x94": PickleMachine.keep_next,
    b"h": _with(PickleMachine.recall, 1),
    b"j": _with(PickleMachine.recall, 4),
    b"c": PickleMachine.push_global,
    b"\x93": PickleMachine.push_global_of_stack,
    b"R": PickleMachine.push_call,
    b"Q": PickleMachine.push_persistent,
    b"N": _with(PickleMachine.push_inert, 0),
    b"\x88": _with(PickleMachine.push_inert, 0),  # True
    b"\x89": _with(PickleMachine.push_inert, 0),  # False
    b"G": _with(PickleMachine.push_inert, 8),  # a float
    b"B": _with(PickleMachine.push_inert_of, 4),  # bytes
    b"C": _with(PickleMachine.push_inert_of, 1),
    b"\x8e": _with(PickleMachine.push_inert_of, 8),
    b"\x96": _with(PickleMachine.push_inert_of, 8),
    b"]": _with(PickleMachine.push_inert, 0),  # a list,
    b"a": _with(PickleMachine.drop, 1),  # what is put into it,
    b"e": PickleMachine.drop_to_mark,
    b"\x8f": _with(PickleMachine.push_inert, 0),  # a set,
    b"\x90": PickleMachine.drop_to_mark,  # and into it
    b"\x91": PickleMachine.replace_to_mark,  # a frozenset
    b"b": _with(PickleMachine.drop, 1),  # an object's state
    b"\x81": _with(PickleMachine.replace, 2),  # an object of a class and its arguments
    b"\x92": _with(PickleMachine.replace, 3),
}
"""Those that Python writes for protocols 2 to 5; before 2, PyTorch's file could not be written."""

ACTS: Mapping[int, Act] = {opcode[0]: act for opcode, act in OPCODES.items()}
