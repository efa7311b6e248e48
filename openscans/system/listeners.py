"""Sockets that listen for connections, and how many files and connections the process may have open.

Knows addresses and the system's limits; nothing of what is said over a connection.
"""

import errno
import socket
import sys
from collections.abc import Sequence

BACKLOG = 128
"""Connections that wait to be accepted while the server starts."""

BOTH_LOOPBACKS = frozenset({"127.0.0.1", "localhost"})
"""Who asks for one of these means this machine alone. `localhost` is ::1 first on Windows and macOS, and there a
connection that is refused at ::1 is tried for two seconds before 127.0.0.1 is."""

IPV6_LOOPBACK = "::1"

PORTS_TRIED = 20
"""A port that the system gives at one address is rarely taken at the other."""

TAKEN = frozenset({errno.EADDRINUSE, errno.EACCES})
"""Windows says the second where another program wants its port for itself."""

OPEN_FILES = 4096
"""Some systems begin with 256. Two hundred connections and the worker's pipes need no more than 300; more than this
would be a leak, and slow for libraries that close every number there may be."""


def bind_sockets(host: str, port: int) -> list[socket.socket]:
    """Listening sockets of one port: at ``host``, and where that is one of `BOTH_LOOPBACKS` at ::1 too, if it can be.

    With the port 0 one is chosen that is free at both. Raises OSError where ``host`` itself cannot be had.
    """
    if host.lower() not in BOTH_LOOPBACKS:
        return [_bind(host, port)]
    for _ in range(PORTS_TRIED if port == 0 else 1):
        first = _bind(host, port)
        try:
            return [first, _bind(IPV6_LOOPBACK, first.getsockname()[1])]
        except OSError as error:
            if port != 0 or error.errno not in TAKEN:
                return [first]
            first.close()
    return [_bind(host, port)]


def lacks_ipv6(host: str, listeners: Sequence[socket.socket]) -> bool:
    """Whether ::1 was wanted and could not be had."""
    return host.lower() in BOTH_LOOPBACKS and len(listeners) == 1


def raise_open_files() -> None:
    """Let this process have `OPEN_FILES` files open, as far as the system allows it to ask for them."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            # macOS has a second limit, which it does not tell beforehand. What there is must do.
            return


def most_open_files() -> int:
    """How many files and connections this process may have open together."""
    if sys.platform == "win32":
        return OPEN_FILES
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return OPEN_FILES if soft == resource.RLIM_INFINITY else soft


def _bind(host: str, port: int) -> socket.socket:
    """Raises OSError."""
    # The protocol is named because asyncio switches Nagle's delay (40 ms an answer) off only where it sees TCP.
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # A restart may take the port over at once. On Windows the same option would share it with a live server.
        option = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
        listener.setsockopt(socket.SOL_SOCKET, option, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except UnicodeError as error:
        listener.close()
        raise OSError("that is no name of a machine") from error
    except OSError:
        listener.close()
        raise
    return listener
