"""A process that brings one model into a home, as the server would, and can be killed at any time.

Says "ready" when it has loaded, begins at the first line of its input, and ends with 0 when the model is there.
"""

import sys
from pathlib import Path

from tests.model_homes import last, online


def run(home: str, url: str, task: str) -> int:
    models = online(Path(home), url)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    models.tidy()
    return 0 if last(models.download(task)).status == "complete" else 1


if __name__ == "__main__":
    sys.exit(run(*sys.argv[1:]))
