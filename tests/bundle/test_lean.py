"""What the lean environment lacks is told in a sentence; here PyTorch is hidden, where it is installed."""

import subprocess
import sys

from tests.live_server import ROOT

HIDDEN = "import sys; sys.modules['torch'] = None\n"
"""None in sys.modules makes an import fail, as where the library is not installed."""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", HIDDEN + code], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_an_engine_that_is_not_installed_is_a_sentence() -> None:
    said = run(
        "from pathlib import Path\n"
        "from openscans import errors, networks\nfrom openscans.types import InferenceOptions\n"
        "options = InferenceOptions(None, 'auto', Path('.'))\n"
        "[folder] = Path('phantom/weights').glob('Dataset297_*/*')\n"
        "try:\n    networks.load_folder(folder, device=networks.TORCH_ON_CPU, options=options)\n"
        "except errors.InvalidRequest as error:\n    print(error.message)"
    )
    assert said.stdout.strip() == "The device cpu:torch needs PyTorch, which is not installed here.", said.stderr


def test_a_card_that_is_asked_for_is_a_warning_and_the_cpu_is_used() -> None:
    said = run(
        "from openscans import networks\nused, warning = networks.choose_device('cuda')\nprint(used, warning.message)"
    )
    wanted = "cpu The device cuda needs PyTorch, which is not installed here; the CPU was used."
    assert said.stdout.strip() == wanted, said.stderr


def test_training_says_in_one_line_what_it_needs() -> None:
    said = run("import runpy\nrunpy.run_module('phantom.train', run_name='__main__')")
    assert said.returncode == 1
    assert [line.split(",")[0] for line in said.stderr.splitlines()] == ["Training needs PyTorch"]
