"""Who listens at an address already: another OpenScans backend, or which other program.

Knows a health answer and, on Linux, /proc; nothing of our own server.
"""

import json
import re
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

PATIENCE_S = 2.0
"""A backend answers in 50 ms; a program of another kind may never."""

LONGEST_ANSWER_BYTES = 64 * 1024

LISTENS = "0A"
"""The state of a listening socket in /proc/net/tcp."""


def backend_at(host: str, port: int) -> str | None:
    """The address of the OpenScans backend that answers there, None if there is none."""
    connection = HTTPConnection(host, port, timeout=PATIENCE_S)
    try:
        # Said by name: our own server would refuse the host of an address that stands for all of them.
        connection.request("GET", "/api/health", headers={"Host": "localhost"})
        answer = json.loads(connection.getresponse().read(LONGEST_ANSWER_BYTES))
    except (OSError, HTTPException, ValueError, RecursionError):
        return None
    finally:
        connection.close()
    if not isinstance(answer, dict) or "OpenScans" not in str(answer.get("message")):
        return None
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def program_at(port: int) -> str:
    """The program that listens on ``port``, as far as the system tells; others' processes are not shown."""
    wanted = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for process in Path("/proc").glob("[0-9]*") if wanted else ():
        with suppress(OSError):
            if any(_link(descriptor) in wanted for descriptor in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
    return "another program"


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                _, own, _, state, *rest = line.split()
                if state == LISTENS and re.search(f":{port:04X}$", own):
                    found.add(rest[5])
    return found


def _link(path: Path) -> str:
    with suppress(OSError):
        return str(path.readlink())
    return ""
