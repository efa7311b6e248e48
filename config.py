"""A mapping (the environment, with command-line flags laid over it) becomes one frozen `Settings`.

Whose a name is decides what a wrong value does: one that begins with ``OPENSCANS_`` is ours and ends the start; HOST,
PORT and DEBUG belong to other programs too, and are passed over where they cannot be meant, with a notice for the log.

Importing this does nothing; nothing here touches the disk.
"""

import ipaddress
import os
import re
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from openscans.errors import OpenScansError
from openscans.system import devices, folders

OURS = "OPENSCANS_"
"""How the names begin that nobody else uses."""

WEIGHTS_URL = "https://github.com/wasserth/TotalSegmentator/releases/download"

HIGHEST_PORT = 65535

ON = frozenset({"1", "true", "yes", "on"})
OFF = frozenset({"0", "false", "no", "off"})

LONGEST_WARM_S = 30 * 24 * 3600
"""A month; who wants longer says -1 (never)."""

LONGEST_STALL_S = 3600
"""Who waits longer for a single byte waits for nothing."""

LONGEST_HANG_S = 24 * 3600
"""A day; no patch takes so long on any machine."""

MOST_RESULTS = 100_000
"""Some gigabytes; they are listed whenever one is written."""


class InvalidSetting(OpenScansError):
    """A setting that cannot be what it says; the server does not start."""

    code = "invalid_setting"
    hint = "The settings are listed in the README."


@dataclass(frozen=True)
class Settings:
    """Everything that can be set from outside, already checked.

    ``threads`` None: the cores that the process may use. ``keep_warm_s`` None: the worker keeps its memory for ever.
    ``hang_s``: five minutes are a packed image from a slow network drive; for a patch that takes longer the worker asks
    for more. ``allowed_roots`` empty: any file that the user may read. ``totalsegmentator_results``: weights to import.
    ``results``: how many answers are kept; one is some tens of kilobytes. ``digests``: the SHA-256 of weights' zips by
    the numbers of their datasets, which nothing here knows. ``notices``: what was passed over, a sentence each, with
    the variable's name and never with what it holds.
    """

    home: Path
    host: str = "127.0.0.1"
    port: int = 8000
    debug: bool = False
    weights_urls: tuple[str, ...] = (WEIGHTS_URL,)
    device: str = "auto"
    precision: str = "auto"
    tiles: str = "spine"
    threads: int | None = None
    auto_download: bool = True
    offline: bool = False
    strict_digests: bool = False
    digests: Mapping[int, str] = field(default_factory=dict)
    stall_s: int = 30
    keep_warm_s: int | None = 600
    warm_up: bool = False
    hang_s: int = 300
    queue: int = 8
    results: int = 1000
    token: str | None = None
    allowed_roots: tuple[Path, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    parent_pid: int | None = None
    totalsegmentator_results: Path | None = None
    end_with_stdin: bool = False
    notices: tuple[str, ...] = ()

    @property
    def cache_folder(self) -> Path:
        return self.home / "cache"

    @property
    def private_folder(self) -> Path:
        """Where images are unpacked for as long as they are read."""
        return self.home / "private"

    @property
    def log_folder(self) -> Path:
        return self.home / "logs"

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Raises InvalidSetting for a value that is not what its setting needs; an empty value is no value."""
        asked = _AskedNames(env)
        settings = cls._read(asked)
        return replace(settings, notices=(*_shared_notices(env), *_unknown_notices(env, asked.names)))

    @classmethod
    def _read(cls, env: Mapping[str, str]) -> Self:
        roots = "OPENSCANS_ALLOWED_ROOTS"
        keep_warm_s = _whole_number(env, "OPENSCANS_KEEP_WARM_S", default=600, low=-1, high=LONGEST_WARM_S)
        token = env.get("OPENSCANS_TOKEN", "").strip() or None
        return cls(
            home=_folder("OPENSCANS_HOME", env.get("OPENSCANS_HOME", "").strip() or "~/.openscans"),
            host=_host(env, _name_of(env, "HOST"), default=cls.host, others_may_reach_it=token is not None),
            port=_whole_number(env, _name_of(env, "PORT"), default=cls.port, low=0, high=HIGHEST_PORT),
            debug=_switch(env, _name_of(env, "DEBUG"), default=cls.debug),
            weights_urls=_urls(env, "OPENSCANS_WEIGHTS_URL"),
            device=_device(env, "OPENSCANS_DEVICE"),
            precision=_choice(env, "OPENSCANS_PRECISION", ("auto", "float32", "int8")),
            tiles=_choice(env, "OPENSCANS_TILES", ("spine", "course", "exact")),
            threads=_number_or_none(env, "OPENSCANS_THREADS", low=1, high=1024),
            auto_download=_switch(env, "OPENSCANS_AUTO_DOWNLOAD", default=cls.auto_download),
            offline=_switch(env, "OPENSCANS_OFFLINE", default=cls.offline),
            strict_digests=_switch(env, "OPENSCANS_STRICT_DIGESTS", default=cls.strict_digests),
            digests=_digests(env, "OPENSCANS_DIGESTS"),
            stall_s=_whole_number(env, "OPENSCANS_STALL_S", default=cls.stall_s, low=1, high=LONGEST_STALL_S),
            keep_warm_s=None if keep_warm_s == -1 else keep_warm_s,
            warm_up=_switch(env, "OPENSCANS_WARM_UP", default=cls.warm_up),
            hang_s=_whole_number(env, "OPENSCANS_HANG_S", default=cls.hang_s, low=1, high=LONGEST_HANG_S),
            queue=_whole_number(env, "OPENSCANS_QUEUE", default=cls.queue, low=0, high=1000),
            results=_whole_number(env, "OPENSCANS_RESULTS", default=cls.results, low=0, high=MOST_RESULTS),
            token=token,
            allowed_roots=tuple(_folder(roots, text) for text in _split(env, roots, os.pathsep)),
            allowed_origins=_origins(env, "OPENSCANS_ALLOWED_ORIGINS"),
            parent_pid=_number_or_none(env, "OPENSCANS_PARENT_PID", low=1, high=2**32 - 1),
            totalsegmentator_results=_totalsegmentator_results(env),
            end_with_stdin=_switch(env, "OPENSCANS_END_WITH_STDIN", default=cls.end_with_stdin),
        )


class _AskedNames(Mapping[str, str]):
    """``env``, and the names that were looked up in it."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return self._env[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._env)

    def __len__(self) -> int:
        return len(self._env)


def _name_of(env: Mapping[str, str], shared: str) -> str:
    """The name whose value counts: ours, or ``shared`` where it alone holds what can be meant."""
    ours = f"{OURS}{shared}"
    return shared if not env.get(ours, "").strip() and SHARED[shared](env.get(shared, "").strip()) else ours


def _shared_notices(env: Mapping[str, str]) -> Iterator[str]:
    """What is said of names that other programs use, where what they hold is nothing for us."""
    for name, can_be_meant in SHARED.items():
        text, ours = env.get(name, "").strip(), f"{OURS}{name}"
        if text and not env.get(ours, "").strip() and not can_be_meant(text):
            yield f"{name} is passed over: it holds what other programs mean by it. {ours} is ours alone."
    for name in sorted(env):
        if re.fullmatch(r"WEB_CONCURRENCY|FORWARDED_ALLOW_IPS|UVICORN_\w+", name, re.ASCII) and env[name].strip():
            yield f"{name} is passed over; settings of this server begin with {OURS}."


def _unknown_notices(env: Mapping[str, str], known: Set[str]) -> Iterator[str]:
    """What is said of names that begin as ours do, and are none."""
    ours = [name for name in known if name.startswith(OURS)]
    for name in sorted(env):
        if re.fullmatch(rf"{OURS}\w*", name, re.ASCII | re.IGNORECASE) and name not in known:
            yield f"{name} is no setting and is passed over; {_nearest(name.upper(), ours)}."


def _nearest(name: str, known: list[str]) -> str:
    # Nobody who writes no name wrong waits for it to load.
    import difflib

    found = difflib.get_close_matches(name, known, n=1)
    return f"the nearest that is one is {found[0]}" if found else "the README lists those that are"


def _host(env: Mapping[str, str], name: str, *, default: str, others_may_reach_it: bool) -> str:
    host = env.get(name, "").strip() or default
    if not others_may_reach_it and not _is_loopback(host):
        raise InvalidSetting(f"{name} is {host[:80]!r}, where other machines may reach it; set OPENSCANS_TOKEN too.")
    return host


def _is_loopback(host: str) -> bool:
    """Whether only this machine reaches who listens there. Of names only localhost is known: none is looked up."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _is_address(text: str) -> bool:
    """Whether it can only mean where to listen. Shells and compilers put names into HOST: the machine's, a target's."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        # As the system reads numbers of an address that are left out.
        return text.lower() == "localhost" or re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3}){0,2}", text, re.ASCII) is not None
    return True


def _whole_number(env: Mapping[str, str], name: str, *, default: int, low: int, high: int) -> int:
    found = _number_or_none(env, name, low=low, high=high)
    return default if found is None else found


def _number_or_none(env: Mapping[str, str], name: str, *, low: int, high: int) -> int | None:
    text = env.get(name, "").strip()
    if not text:
        return None
    if not _is_whole_number(text, low, high):
        raise InvalidSetting(f"{name} must be a whole number from {low} to {high}, not {text[:40]!r}.")
    return int(text)


def _is_whole_number(text: str, low: int, high: int) -> bool:
    # int() alone would take "8_000" and Arabic digits, and would need seconds for a million digits.
    return re.fullmatch(r"[+-]?[0-9]{1,10}", text) is not None and low <= int(text) <= high


def _is_port(text: str) -> bool:
    return _is_whole_number(text, 0, HIGHEST_PORT)


def _switch(env: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = env.get(name, "").strip().lower()
    if not text:
        return default
    if not _is_switch(text):
        raise InvalidSetting(f"{name} must be 1 or 0, not {text[:40]!r}.")
    return text in ON


def _is_switch(text: str) -> bool:
    return text.lower() in ON | OFF


def _choice(env: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    text = env.get(name, "").strip().lower() or choices[0]
    if text not in choices:
        raise InvalidSetting(f"{name} must be one of {', '.join(choices)}, not {text[:40]!r}.")
    return text


def _device(env: Mapping[str, str], name: str) -> str:
    text = env.get(name, "").strip().lower() or "auto"
    if not devices.WISH.fullmatch(text):
        raise InvalidSetting(f"{name} must be {devices.WISHES}, not {text[:40]!r}.")
    return text


def _urls(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    urls = tuple(url.rstrip("/") for url in _split(env, name, ",")) or (WEIGHTS_URL,)
    for url in urls:
        if not re.match(r"https?://[^/\s]", url):
            raise InvalidSetting(f"{name} must hold addresses that begin with https:// or http://, not {url[:80]!r}.")
    return urls


def _digests(env: Mapping[str, str], name: str) -> Mapping[int, str]:
    digests: dict[int, str] = {}
    for text in _split(env, name, ","):
        found = re.fullmatch(r"([0-9]{1,4})\s*=\s*([0-9a-f]{64})", text.lower(), re.ASCII)
        if found is None:
            raise InvalidSetting(f"{name} must hold datasets with their zips' SHA-256, as 292=…, not {text[:80]!r}.")
        number, digest = int(found[1]), found[2]
        if digests.setdefault(number, digest) != digest:
            raise InvalidSetting(f"{name} holds two different digests for {number}.")
    return digests


def _origins(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    origins = tuple(origin.rstrip("/").lower() for origin in _split(env, name, ","))
    for origin in origins:
        if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/?#@*]+", origin):
            raise InvalidSetting(f"{name} must hold origins such as https://viewer.example, not {origin[:80]!r}.")
    return origins


def _split(env: Mapping[str, str], name: str, separator: str) -> list[str]:
    return [part.strip() for part in env.get(name, "").split(separator) if part.strip()]


def _totalsegmentator_results(env: Mapping[str, str]) -> Path | None:
    """Where TotalSegmentator looks for its weights; None where that is unclear, as it is no setting of ours."""
    weights = env.get("TOTALSEG_WEIGHTS_PATH")
    try:
        return folders.absolute(weights or f"{env.get('TOTALSEG_HOME_DIR') or '~/.totalsegmentator'}/nnunet/results")
    except FileNotFoundError:
        return None


def _folder(name: str, text: str) -> Path:
    try:
        return folders.absolute(text)
    except FileNotFoundError as error:
        raise InvalidSetting(f"{name} needs a whole path: where {text[:80]!r} begins is not known here.") from error


SHARED: Mapping[str, Callable[[str], bool]] = {"HOST": _is_address, "PORT": _is_port, "DEBUG": _is_switch}
"""Names that other programs use too, and whether a value can be meant for us."""
