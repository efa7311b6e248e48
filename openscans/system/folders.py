"""Folders that may be unknown, gone or closed: the user's own, the one that a process works in, one that is written to.

Knows what systems say of folders; nothing of what lies in them.
"""

import errno
import os
import sys
from pathlib import Path


def user_home() -> Path | None:
    """The user's own folder: as HOME has it, else as the system knows it; None where neither does."""
    if sys.platform != "win32" and not os.environ.get("HOME"):
        import pwd

        try:
            return Path(pwd.getpwuid(os.getuid()).pw_dir)
        except KeyError:
            # A container may run a program as a user whom nobody has entered.
            return None
    try:
        return Path.home()
    except RuntimeError:
        return None


def absolute(text: str) -> Path:
    """The path from the root on that ``text`` means.

    Raises FileNotFoundError where it begins at a user's folder that is not known, or at a working folder that is gone.
    """
    path = Path(text)
    if path.parts[:1] == ("~",):
        home = user_home()
        if home is None:
            raise FileNotFoundError("The user's own folder is not known.")
        path = home.joinpath(*path.parts[1:])
    try:
        return path.expanduser().absolute()
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError("What the path begins at is not known or gone.") from error


def why_closed(folder: Path) -> str | None:
    """Why nothing in ``folder`` can be reached, in the system's words; None where it can, or is not there yet."""
    try:
        with os.scandir(folder) as entries:
            next(entries, None)
    except FileNotFoundError:
        return None
    except OSError as error:
        return error.strerror or type(error).__name__
    # To reach what names stand for takes another permission than to list them.
    return None if os.access(folder, os.X_OK) else os.strerror(errno.EACCES)


def is_writable(folder: Path) -> bool:
    """Whether something can be put into ``folder``, which need not be there yet."""
    there = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), folder)
    return os.access(there, os.W_OK | os.X_OK)


def leave_lost_folder() -> bool:
    """Work in the root where the present working folder was removed or cannot be entered; whether that was so.

    A new process begins in its parent's, and would end at once.
    """
    try:
        os.chdir(Path.cwd())
    except OSError:
        os.chdir(Path(sys.executable).anchor)
        return True
    return False
