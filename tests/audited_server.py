"""The real server under an audit hook, as another program would watch it from inside; the product knows nothing of it.

With AUDIT_DIE="EVENT END" it is killed at the first EVENT (open, os.rename, os.remove …) that has an argument which
ends so, before that step is done. With AUDIT_PIPE=NAME a pipe takes the place of a file of that name just before it
is opened. With AUDIT_CONNECTIONS=FILE it writes down every address that it, or a process of
its, wants to reach. With AUDIT_THREADLESS="NAME FILE" no thread of that name can be started as long as FILE is there.
Takes the same flags and environment as main.py.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Hook = Callable[[str, tuple[Any, ...]], None]

OUTWARDS = {"socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"}


def dying(at: str) -> Hook:
    wanted, end = at.split(" ")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == wanted and any(str(argument).endswith(end) for argument in arguments):
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def piping(name: str) -> Hook:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and (path := Path(str(arguments[0]))).name == name and path.is_file():
            path.unlink()
            os.mkfifo(path)

    return hook


def threadless(what: str) -> Hook:
    name, sign = what.rsplit(" ", 1)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        starts = event.startswith("_thread.start") and getattr(arguments[0], "__self__", None)
        if starts and starts.name == name and Path(sign).exists():
            raise RuntimeError("can't start new thread")

    return hook


def writing_down(path: str) -> Hook:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in OUTWARDS:
            os.write(descriptor, f"{event} {arguments[1:] if event == 'socket.connect' else arguments}\n".encode())

    return hook


# Not only in the server: its worker imports this file too.
if "AUDIT_DIE" in os.environ:
    sys.addaudithook(dying(os.environ["AUDIT_DIE"]))
if "AUDIT_PIPE" in os.environ:
    sys.addaudithook(piping(os.environ["AUDIT_PIPE"]))
if "AUDIT_THREADLESS" in os.environ:
    sys.addaudithook(threadless(os.environ["AUDIT_THREADLESS"]))
if "AUDIT_CONNECTIONS" in os.environ:
    sys.addaudithook(writing_down(os.environ["AUDIT_CONNECTIONS"]))

if __name__ == "__main__":
    multiprocessing.freeze_support()
    from main import main

    sys.exit(main(sys.argv[1:], os.environ))
