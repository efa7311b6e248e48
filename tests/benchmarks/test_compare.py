"""What is made of the runs of both programs: whose call is which, and the table that says so."""

import json
import sys

import pytest

from benchmarks import compare, weigh
from benchmarks.weigh import Run


def said(seconds: float, finished_s: float) -> str:
    """What either program says of one call."""
    call = {"seconds": seconds, "processor_s": 2 * seconds, "processor_so_far_s": 9.0, "finished_s": finished_s}
    return json.dumps(call | {"patches": {"segmenting": 2}, "timings_ms": {"segment": 900}})


OURS = Run(1000.0, ((1001.0, 10**9), (1005.0, 2 * 10**9)), f"{said(3.0, 1004.0)}\n{said(1.0, 1006.0)}\n")
THEIRS = Run(2000.0, ((2001.0, 5 * 10**9),), f"a warning\n{said(35.0, 2040.0)}\n{said(20.0, 2060.0)}\n")


@pytest.fixture
def measured() -> compare.Measured:
    found = compare.Measured()
    found.warm.append(found.add_calls(compare.COLD, compare.WARM, OURS))
    found.theirs_warm.append(found.add_calls(compare.THEIRS, compare.THEIRS_WARM, THEIRS))
    return found


def test_the_first_call_counts_from_the_start_of_the_process_the_second_alone(measured: compare.Measured) -> None:
    assert measured.seconds == {
        compare.COLD: [4.0],
        compare.WARM: [1.0],
        compare.THEIRS: [40.0],
        compare.THEIRS_WARM: [20.0],
    }


def test_each_call_has_the_memory_of_its_own_time(measured: compare.Measured) -> None:
    assert measured.peak_bytes[compare.COLD] == [10**9]
    assert measured.peak_bytes[compare.WARM] == [2 * 10**9]


def test_ours_stands_beside_their_new_process_and_beside_their_second_call(measured: compare.Measured) -> None:
    rows = {line.split(" | ")[0].strip("| "): line for line in compare.table(measured)}
    assert rows[compare.WARM].endswith("| 40.0 × as long | 20.0 × as long |")
    assert rows[compare.COLD].endswith("| 10.0 × as long | 5.0 × as long |")
    assert "× as long" not in rows[compare.THEIRS_WARM]
    assert rows[compare.THEIRS_WARM].startswith(f"| {compare.THEIRS_WARM} | 20.0 | 40.0 |")


def test_alone_ours_stands_beside_nothing() -> None:
    alone = compare.Measured()
    alone.warm.append(alone.add_calls(compare.COLD, compare.WARM, OURS))
    assert "× as long" not in "".join(compare.table(alone))


def test_an_instruction_set_below_bfloat16_is_measured_in_float32_unless_int8_is_asked_for() -> None:
    assert compare.parse_arguments(["--isa", "avx2"]).precision == "float32"
    assert compare.parse_arguments(["--isa", "avx2", "--precision", "int8"]).precision == "int8"
    assert compare.parse_arguments([]).precision == "auto"


def test_an_instruction_set_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        compare.parse_arguments(["--isa", "sse2"])
    assert "invalid choice: 'sse2'" in capsys.readouterr().err


def test_a_command_is_weighed_with_its_children_while_it_runs() -> None:
    # It holds that for longer than passes between two looks.
    hold = f"import time; held = b'x' * 10**8; time.sleep(4 * {weigh.SAMPLE_S}); print('done')"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}], check=True)"
    ran = weigh.run([sys.executable, "-c", parent])
    assert ran.output == "done\n"
    assert ran.peak_bytes() > 10**8
    assert ran.peak_bytes(until_s=ran.started_s - 1) == 0
