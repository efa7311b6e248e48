"""Other processes: when one ends, or standard input does, and which one listens at an address already.

Knows how each system tells, and a backend's health answer; nothing of our own server.

Rules for threads. Whoever waits for an end gets a thread of its own, which calls back once and shares nothing.
"""

import json
import os
import re
import select
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

POLL_S = 0.5
"""Where a process can only be asked after; the server must be gone 2 s after its parent."""

SYNCHRONIZE = 0x00100000
"""Windows' access right to wait for a process."""

FOREVER = 0xFFFFFFFF

PIECE_BYTES = 4096

ANSWER_WITHIN_S = 2.0
"""A backend answers in 50 ms; a program of another kind may never."""

LONGEST_ANSWER_BYTES = 64 * 1024

LISTENS = "0A"
"""The state of a listening socket in /proc/net/tcp."""


def when_ended(pid: int, then: Callable[[], None]) -> None:
    """Call ``then`` from a thread of its own once the process ``pid`` is gone, at once if it is gone already."""

    def watch() -> None:
        wait_for_end(pid)
        then()

    threading.Thread(target=watch, name="parent", daemon=True).start()


def when_input_ends(then: Callable[[], None]) -> None:
    """Call ``then`` once nobody can write to standard input any more; what is written there is not looked at."""

    def watch() -> None:
        with suppress(OSError):
            while os.read(0, PIECE_BYTES):
                pass
        then()

    threading.Thread(target=watch, name="stdin", daemon=True).start()


def wait_for_end(pid: int) -> None:
    """Return when the process that had this id when this one began is gone."""
    if sys.platform == "win32":
        _wait_on_windows(pid)
    elif sys.platform == "linux" and hasattr(os, "pidfd_open"):
        _wait_on_linux(pid)
    else:
        _poll(pid)


def find_backend(host: str, port: int) -> str | None:
    """The address of the OpenScans backend that answers there, None if there is none."""
    connection = HTTPConnection(host, port, timeout=ANSWER_WITHIN_S)
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


def find_listener(port: int) -> str:
    """The program that listens on ``port``, as far as the system tells; others' processes are not shown."""
    wanted = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for process in Path("/proc").glob("[0-9]*") if wanted else ():
        with suppress(OSError):
            if any(_link_target(descriptor) in wanted for descriptor in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
    return "another program"


def _wait_on_linux(pid: int) -> None:
    if sys.platform != "linux":
        return
    # Unlike the number, the descriptor stays with this process when its number is given to another.
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except OSError:
        # A kernel before 5.3, or a container that forbids it.
        _poll(pid)
        return
    try:
        if not _began_after_us(pid):
            waiting = select.poll()
            waiting.register(descriptor, select.POLLIN)
            waiting.poll()
    finally:
        os.close(descriptor)


def _began_after_us(pid: int) -> bool:
    """Whether the parent ended before it could be watched, and its id was given to a new process."""
    try:
        return _began_ticks(pid) > _began_ticks(os.getpid())
    except (OSError, ValueError, IndexError):
        return False


def _began_ticks(pid: int) -> int:
    """Clock ticks from the system's start to the process's."""
    # Field 22; the second is the program's name in brackets, which may hold spaces and brackets itself.
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19])


def _wait_on_windows(pid: int) -> None:
    if sys.platform == "win32":
        import ctypes

        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.OpenProcess.restype = ctypes.c_void_p
        handle = kernel.OpenProcess(SYNCHRONIZE, False, pid)
        if handle:
            kernel.WaitForSingleObject(ctypes.c_void_p(handle), FOREVER)
            kernel.CloseHandle(ctypes.c_void_p(handle))


def _poll(pid: int) -> None:
    own_parent = os.getppid() == pid
    while _exists(pid) and (not own_parent or os.getppid() == pid):
        time.sleep(POLL_S)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                _, own, _, state, *rest = line.split()
                if state == LISTENS and re.search(f":{port:04X}$", own):
                    found.add(rest[5])
    return found


def _link_target(path: Path) -> str:
    with suppress(OSError):
        return str(path.readlink())
    return ""
