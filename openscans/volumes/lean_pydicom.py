"""Imports pydicom without what it takes along where that is installed: a fifth of the imports of a new process.

To be imported before any module that imports pydicom.
"""

import sys

UNUSED = ("gdcm", "requests")
"""A decoder beside ours, and what fetches pydicom's samples; pydicom does without either where it is not installed."""


def _import_without(names: tuple[str, ...]) -> None:
    """Others find what they ask for: ``names`` are out of sight only as long as this takes."""
    seen = {name: sys.modules[name] for name in names if name in sys.modules}
    # None makes an import fail, as where nothing of that name is installed.
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]
    try:
        import pydicom  # noqa: F401 - that it is imported is all
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(seen)


_import_without(UNUSED)
