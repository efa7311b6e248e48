"""What weights say of themselves in their dataset.json reaches whoever reads a warning, however it is written."""

import json
from pathlib import Path

import pytest

from openscans.weights.notice import MOST_BYTES, MOST_TOLD, notice_warnings
from phantom.demo import WEIGHTS
from phantom.layout import NOTICE


def told(training: Path, content: bytes) -> list[str]:
    (training / "dataset.json").write_bytes(content)
    return [warning.message for warning in notice_warnings(training)]


def test_all_of_the_demonstrations_networks_say_what_they_are_in_the_same_words() -> None:
    trainings = [path.parent for path in WEIGHTS.rglob("dataset.json")]
    warnings = [warning for training in trainings for warning in notice_warnings(training)]
    assert [warning.code for warning in warnings] == ["demonstration_weights"] * len(trainings)
    assert {warning.message for warning in warnings} == {f"These weights say of themselves: {NOTICE}."}


@pytest.mark.parametrize(
    "content",
    [
        b'{"labels": {}}',
        b'{"notice": ""}',
        b'{"notice": 7}',
        b'{"notice": null}',
        b"[]",
        b"no JSON",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"notice": "too large"}'.ljust(MOST_BYTES + 1),
    ],
    ids=lambda content: content[:20].decode(errors="replace"),
)
def test_where_nothing_is_said_or_nothing_can_be_read_there_is_no_warning(tmp_path: Path, content: bytes) -> None:
    assert told(tmp_path, content) == []


def test_what_is_not_there_has_no_warning(tmp_path: Path) -> None:
    assert notice_warnings(tmp_path) == ()


def test_a_notice_is_told_on_one_line_and_cut(tmp_path: Path) -> None:
    notice = "no\nuse:\x1b[31m \ud800 " + "a" * 1000
    (message,) = told(tmp_path, json.dumps({"notice": notice}).encode())
    assert message.isprintable()
    assert message.startswith("These weights say of themselves: no use: [31m a")
    assert len(message) < MOST_TOLD + 40
