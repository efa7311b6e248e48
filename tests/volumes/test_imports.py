"""Reading images loads nothing that is not used: every new process waits for it."""

import subprocess
import sys

from tests.live_server import ROOT


def run(code: str) -> str:
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return process.stdout.strip()


def test_pydicom_comes_without_other_decoders_and_what_fetches_its_samples() -> None:
    assert run("import openscans.volumes, sys; print({'gdcm', 'requests'} & set(sys.modules))") == "set()"


def test_others_in_the_process_find_what_pydicom_did_not() -> None:
    stand_in = "import sys, types; sys.modules['gdcm'] = one = types.ModuleType('gdcm')\n"
    assert run(stand_in + "import openscans.volumes, gdcm; print(gdcm is one)") == "True"
