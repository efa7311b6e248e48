"""Tells when another process ends, so that a server does not outlive the application that started it.

Knows how each system tells; nothing of servers.
"""

import os
import select
import sys
import threading
import time
from collections.abc import Callable

POLL_S = 0.5
"""Where a process can only be asked after; the server must be gone 2 s after its parent."""

SYNCHRONIZE = 0x00100000
"""Windows' access right to wait for a process."""

FOREVER = 0xFFFFFFFF


def when_ended(pid: int, then: Callable[[], None]) -> None:
    """Call ``then`` from a thread of its own once the process ``pid`` is gone, at once if it is gone already."""

    def watch() -> None:
        wait_for_end(pid)
        then()

    threading.Thread(target=watch, name="parent", daemon=True).start()


def wait_for_end(pid: int) -> None:
    if sys.platform == "win32":
        _wait_on_windows(pid)
    elif hasattr(os, "pidfd_open"):
        _wait_on_linux(pid)
    else:
        _poll(pid)


def _wait_on_linux(pid: int) -> None:
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
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        waiting.poll()
    finally:
        os.close(descriptor)


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
