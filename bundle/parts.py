"""Whose parts lie in the executable's folder: every file there is traced to the package or library that it belongs to.

Knows installed packages and well-known shared libraries; nothing of what their licences allow.
"""

import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path

from bundle.contents import Entry


class UnknownPart(Exception):
    """A file or a licence that nobody has looked at yet; the executable is not built with it."""


@dataclass(frozen=True)
class Part:
    """One package or library. ``licence`` is an SPDX expression; ``texts`` are its licences' own words.

    ``inside`` names the package that brings a library whose own version nobody tells.
    """

    name: str
    version: str
    licence: str
    texts: tuple[str, ...] = ()
    purl: str | None = None
    inside: str = ""


@dataclass(frozen=True)
class Library:
    """A shared library that comes inside another package or from the system."""

    name: str
    licence: str


GCC = "GPL-3.0-or-later WITH GCC-exception-3.1"
"""The compiler's own libraries may be part of any program that it has compiled."""

LIBRARIES: Mapping[str, Library] = {
    r"libscipy_openblas.*|libopenblas.*": Library(
        "OpenBLAS", "BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1"
    ),
    r"(lib)?tbb.*": Library("oneTBB", "Apache-2.0"),
    r"(lib)?hwloc.*": Library("hwloc", "BSD-3-Clause"),
    r"libcharls.*": Library("CharLS", "BSD-3-Clause"),
    r"libdeflate.*": Library("libdeflate", "MIT"),
    r"libopenjp2.*": Library("OpenJPEG", "BSD-2-Clause"),
    r"liblcms2.*": Library("Little CMS", "MIT"),
    r"libjpeg.*": Library("libjpeg-turbo", "IJG AND BSD-3-Clause"),
    r"libtiff.*": Library("libtiff", "libtiff"),
    r"libpng.*": Library("libpng", "libpng-2.0"),
    r"libfreetype.*": Library("FreeType", "FTL OR GPL-2.0-or-later"),
    r"libharfbuzz.*": Library("HarfBuzz", "MIT"),
    r"libbrotli.*": Library("Brotli", "MIT"),
    r"libxcb.*|libXau.*": Library("XCB", "MIT"),
    r"libzstd.*": Library("Zstandard", "BSD-3-Clause OR GPL-2.0-only"),
    r"liblzma.*": Library("XZ Utils", "0BSD"),
    r"libz[.-].*|zlib1.*": Library("zlib", "Zlib"),
    r"libbz2.*": Library("bzip2", "bzip2-1.0.6"),
    r"libffi.*": Library("libffi", "MIT"),
    r"lib(ssl|crypto).*": Library("OpenSSL", "Apache-2.0"),
    r"libuuid.*": Library("libuuid", "BSD-3-Clause"),
    r"libsqlite3.*|sqlite3.*": Library("SQLite", "blessing"),
    r"lib(ncurses|tinfo).*": Library("ncurses", "X11-distribute-modifications-variant"),
    r"libmpdec.*": Library("mpdecimal", "BSD-2-Clause"),
    r"libexpat.*": Library("Expat", "MIT"),
    r"libstdc\+\+.*": Library("libstdc++", GCC),
    r"libgcc_s.*": Library("libgcc", GCC),
    r"libgomp.*": Library("libgomp", GCC),
    r"libgfortran.*": Library("libgfortran", GCC),
    r"libquadmath.*": Library("libquadmath", "LGPL-2.1-or-later"),
    r"libomp.*": Library("LLVM OpenMP", "Apache-2.0 WITH LLVM-exception"),
    r"(lib)?python3.*|Python": Library("Python", "PSF-2.0"),
    r"(vcruntime|msvcp|concrt|vcomp|ucrtbase|api-ms-win-).*": Library(
        "Microsoft Visual C++ Runtime", "LicenseRef-Microsoft-Redistributable"
    ),
}
"""By the name of the file. A library that is not here stops the build until somebody has read its licence."""

SPDX = {
    "Apache 2.0": "Apache-2.0",
    "Apache": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "OSI Approved :: MIT License": "MIT",
    "OSI Approved :: BSD License": "BSD-3-Clause",
    "OSI Approved :: Apache Software License": "Apache-2.0",
}
"""What packages write that do not declare their licence as an SPDX expression."""

LONGEST_NAME = 60
"""Some packages put the whole text of their licence where its name belongs."""

GPL_CLASSIFIER = re.compile(r"License ::.*(?<!Lesser )General Public License")
"""How a package says on PyPI that it is under the GPL or AGPL."""

DECLARED_HERE = {
    # Its bootloader's and hooks' exception lets programs of any licence be built with it.
    "pyinstaller": "GPL-2.0-or-later WITH Bootloader-exception",
    # What of it goes into an executable is under the first of its two licences.
    "pyinstaller-hooks-contrib": "Apache-2.0",
    # They put the whole text where the name belongs, or a name of no list.
    "torch": "BSD-3-Clause",
    "dynamic_network_architectures": "Apache-2.0",
    "nvidia-cusparselt-cu13": "LicenseRef-NVIDIA-Proprietary",
}

COVERS_ITS_LIBRARIES = re.compile(r"torch|nvidia-.*")
"""Packages that are made of their own makers' libraries, so that these need no look of their own."""

FURTHER_TEXTS = {
    "imagecodecs": ("LICENSE-openjpeg", "LICENSE-charls", "LICENSE-lcms2", "LICENSE-liblj92", "LICENSE-libdeflate")
}
"""Of a package that ships the licences of all its libraries those of the libraries that are bundled."""

BINARY, EXTENSION = "BINARY", "EXTENSION"
"""PyInstaller's names for shared libraries, and for those that are Python modules."""


def parts_of(entries: Iterable[Entry], own: Sequence[Path]) -> list[Part]:
    """The parts that ``entries`` come from, by name; files below the folders ``own`` are the project's.

    Raises UnknownPart.
    """
    owners = _owners()
    found: dict[tuple[str, str], Part] = {}
    for entry in entries:
        source = Path(entry[1])
        # The environment may lie inside the project; a package of several distributions has no file of its own.
        of_ours = any(source.is_relative_to(folder) for folder in own) and not source.is_relative_to(sys.prefix)
        of_ours = of_ours or not source.is_file()
        if not of_ours or entry[1] in owners:
            found |= {(part.name, part.inside): part for part in _parts_behind(entry, owners.get(entry[1]))}
    return sorted(found.values(), key=lambda part: (part.name.lower(), part.inside))


def _owners() -> dict[str, Distribution]:
    """Path → the installed package that brought it."""
    return {
        str(package.locate_file(file)): package
        for package in distributions()
        for file in package.files or ()
        if file.suffix != ".pyc"
    }


def _parts_behind(entry: Entry, owner: Distribution | None) -> Iterator[Part]:
    place, source, kind = entry
    if owner is not None:
        yield _package(owner)
    if kind == BINARY and not _is_its_own(place, owner):
        yield _library(Path(source), owner)
    elif owner is None and Path(source).is_relative_to(sys.base_prefix):
        yield _python()
    elif owner is None:
        raise UnknownPart(f"No installed package owns {place}.")


def _is_its_own(place: str, owner: Distribution | None) -> bool:
    """Whether the library is what its package is for, as libopenvino is openvino's."""
    if owner is None:
        return False
    name = _name_of(owner)
    return bool(COVERS_ITS_LIBRARIES.fullmatch(name) or re.match(f"(lib)?{name}", Path(place).name, re.IGNORECASE))


@cache
def _name_of(package: Distribution) -> str:
    return str(package.metadata["Name"])


@cache
def _package(package: Distribution) -> Part:
    name = _name_of(package)
    named = re.compile(r"licen[cs]e|copying|notice|third.party", re.IGNORECASE)
    beside = [file for file in package.files or () if ".dist-info" in file.parts[0] and named.search(str(file))]
    further = [file for file in package.files or () if file.name in FURTHER_TEXTS.get(name, ())]
    texts = (Path(str(package.locate_file(file))) for file in (*beside, *further))
    return Part(
        name=name,
        version=package.version,
        licence=_declared_licence(package),
        texts=tuple(text.read_text(encoding="utf-8", errors="replace") for text in texts if text.is_file()),
        purl=f"pkg:pypi/{name.lower().replace('_', '-')}@{package.version}",
    )


def _declared_licence(package: Distribution) -> str:
    """The package's licence as an SPDX expression. Raises UnknownPart."""
    name, told = _name_of(package), package.metadata
    fields = (told.get_all(field) or [] for field in ("License-Expression", "License", "Classifier"))
    words = [text for field in fields for text in field if "::" not in text or text.startswith("License ::")]
    for licence in (DECLARED_HERE.get(name), *words):
        if licence and len(licence) < LONGEST_NAME:
            found = str(SPDX.get(licence.removeprefix("License :: "), licence))
            if "GPL" not in found and any(map(GPL_CLASSIFIER.search, words)):
                raise UnknownPart(f"{name} says that it is under {found}, and under the GPL.")
            return found
    raise UnknownPart(f"{name} does not say what its licence is.")


def _library(path: Path, owner: Distribution | None) -> Part:
    library = next((known for pattern, known in LIBRARIES.items() if matches(pattern, path.name)), None)
    if library is None:
        raise UnknownPart(f"Nobody has read the licence of {path.name} yet; add it to bundle/parts.py.")
    if library.name == "Python":
        return _python()
    if owner is not None:
        # Its text stands among the package's own.
        return Part(library.name, "", library.licence, inside=f"{_name_of(owner)} {owner.version}")
    package = _debian_package(path)
    if package is None:
        return Part(library.name, "", library.licence)
    copyright_file = Path("/usr/share/doc", package.name, "copyright")
    texts = (copyright_file.read_text(encoding="utf-8"),) if copyright_file.is_file() else ()
    system = platform.freedesktop_os_release()["ID"]
    purl = f"pkg:deb/{system}/{package.name}@{package.version}"
    return Part(library.name, package.version, library.licence, texts, purl)


def matches(pattern: str, name: str) -> bool:
    """Whether a file of this ``name`` is what ``pattern`` means; Windows' import tables write names in capitals too."""
    return re.fullmatch(pattern, name, re.IGNORECASE) is not None


@dataclass(frozen=True)
class _DebianPackage:
    name: str
    version: str


@cache
def _debian_package(path: Path) -> _DebianPackage | None:
    """The package that brought a library of the system; None on systems of another kind."""
    if shutil.which("dpkg-query") is None:
        return None
    # By the end of the path: /lib is a link to /usr/lib, and packages name either.
    said = _run("dpkg-query", "--search", f"*/{path.parent.name}/{path.name}")
    name = said.partition(":")[0]
    return _DebianPackage(name, _run("dpkg-query", "--show", "--showformat=${Version}\n", name)) if name else None


def _run(*command: str) -> str:
    """The first line that a command says; nothing where it finds nothing."""
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return said.partition("\n")[0]


@cache
def _python() -> Part:
    places = (Path(sysconfig.get_path("stdlib")) / "LICENSE.txt", Path(sys.base_prefix) / "LICENSE.txt")
    texts = tuple(place.read_text(encoding="utf-8") for place in places if place.is_file())[:1]
    return Part("Python", platform.python_version(), "PSF-2.0", texts)
