"""All that a caller sees of a program, from a server's first answer to the files it leaves, as one table of scenarios.

    python -m tests.recording --write [--program PATH/TO/main.py]

What is written judges a change that nobody may notice: `test_recorded_answers` compares today's answers with it.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.live_server import MAIN, ROOT
from tests.recorded import detections, program, service
from tests.recorded.answers import Recorder

FILE = ROOT / "tests" / "recorded_answers.json"

LINE = 118
"""Characters; what fits into a line is not spread over several."""


def everything(main: Path, folder: Path) -> dict[str, Any]:
    """Each scenario by its name. ``folder`` is empty and holds all that is written on the way."""
    recorded = program.Program(main.resolve(), folder.resolve())
    recorder = Recorder({str(recorded.folder): "<folder>", str(recorded.main.parent): "<program>"})
    program.record_runs(recorder, recorded)
    service.record_a_new_server(recorder, recorded)
    service.record_a_guarded_server(recorder, recorded)
    detections.record_detections(recorder, recorded)
    return dict(sorted(recorder.scenarios.items()))


def pretty(value: object, indent: int = 0) -> str:
    """JSON whose short lists and objects stand on one line each."""
    short = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or len(short) + indent <= LINE:
        return short
    if isinstance(value, list):
        opening, closing, lines = "[", "]", [pretty(item, indent + 1) for item in value]
    else:
        opening, closing = "{", "}"
        lines = [f"{json.dumps(key, ensure_ascii=False)}: {pretty(item, indent + 1)}" for key, item in value.items()]
    space = " " * (indent + 1)
    return f"{opening}\n{space}" + f",\n{space}".join(lines) + f"\n{' ' * indent}{closing}"


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=Path(MAIN[0]), help="the main.py that is recorded")
    parser.add_argument("--write", action="store_true", help=f"into {FILE.name}; else to standard output")
    arguments = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        text = pretty(everything(arguments.program, Path(folder))) + "\n"
    if arguments.write:
        FILE.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
