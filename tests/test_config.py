"""Settings: what the environment and the command line become."""

import os
import re
from pathlib import Path

import pytest

from config import WEIGHTS_URL, InvalidSetting, Settings
from main import parse_flags

ROOT = Path(__file__).resolve().parents[1]

OF_OTHERS = ("0.0.0.0", "::", "0", "192.168.1.5", "fe80::1")


def test_an_empty_environment_gives_the_defaults_of_the_contract() -> None:
    assert Settings.from_env({}) == Settings(
        home=Path.home() / ".openscans",
        host="127.0.0.1",
        port=8000,
        debug=False,
        weights_urls=(WEIGHTS_URL,),
        device="auto",
        precision="auto",
        tiles="spine",
        threads=None,
        auto_download=True,
        offline=False,
        strict_digests=False,
        digests={},
        stall_s=30,
        keep_warm_s=600,
        warm_up=False,
        hang_s=300,
        queue=8,
        token=None,
        allowed_roots=(),
        allowed_origins=(),
        parent_pid=None,
        totalsegmentator_results=Path.home() / ".totalsegmentator/nnunet/results",
        end_with_stdin=False,
        notices=(),
    )


def test_every_setting_can_be_set(tmp_path: Path) -> None:
    env = {
        "OPENSCANS_HOST": "::1",
        "OPENSCANS_PORT": "0",
        "OPENSCANS_DEBUG": "yes",
        "OPENSCANS_HOME": str(tmp_path),
        "OPENSCANS_WEIGHTS_URL": "http://localhost:1/a/, https://mirror.example/b",
        "OPENSCANS_DEVICE": "CUDA:1",
        "OPENSCANS_PRECISION": "int8",
        "OPENSCANS_TILES": "exact",
        "OPENSCANS_THREADS": "4",
        "OPENSCANS_AUTO_DOWNLOAD": "0",
        "OPENSCANS_OFFLINE": "1",
        "OPENSCANS_STRICT_DIGESTS": "true",
        "OPENSCANS_DIGESTS": f"292={'0a' * 32}, 0756 = {'B' * 64}",
        "OPENSCANS_STALL_S": "5",
        "OPENSCANS_KEEP_WARM_S": "0",
        "OPENSCANS_WARM_UP": "1",
        "OPENSCANS_HANG_S": "60",
        "OPENSCANS_QUEUE": "0",
        "OPENSCANS_TOKEN": "secret",
        "OPENSCANS_ALLOWED_ROOTS": os.pathsep.join(["/data", "/scans"]),
        "OPENSCANS_ALLOWED_ORIGINS": "https://viewer.example/, app://Viewer",
        "OPENSCANS_PARENT_PID": "4711",
        "TOTALSEG_WEIGHTS_PATH": "/weights",
        "OPENSCANS_END_WITH_STDIN": "1",
    }
    assert Settings.from_env(env) == Settings(
        home=tmp_path,
        host="::1",
        port=0,
        debug=True,
        weights_urls=("http://localhost:1/a", "https://mirror.example/b"),
        device="cuda:1",
        precision="int8",
        tiles="exact",
        threads=4,
        auto_download=False,
        offline=True,
        strict_digests=True,
        digests={292: "0a" * 32, 756: "b" * 64},
        stall_s=5,
        keep_warm_s=0,
        warm_up=True,
        hang_s=60,
        queue=0,
        token="secret",
        allowed_roots=(Path("/data"), Path("/scans")),
        allowed_origins=("https://viewer.example", "app://viewer"),
        parent_pid=4711,
        totalsegmentator_results=Path("/weights"),
        end_with_stdin=True,
    )


def test_totalsegmentators_weights_are_looked_for_where_it_keeps_them() -> None:
    assert Settings.from_env({"TOTALSEG_HOME_DIR": "/ts"}).totalsegmentator_results == Path("/ts/nnunet/results")


def test_an_empty_or_blank_value_is_no_value() -> None:
    blank = {"PORT": "", "DEBUG": " ", "OPENSCANS_HOME": "", "OPENSCANS_TOKEN": "  ", "OPENSCANS_WEIGHTS_URL": ","}
    assert Settings.from_env(blank) == Settings.from_env({})


def test_a_worker_that_is_kept_warm_for_ever() -> None:
    assert Settings.from_env({"OPENSCANS_KEEP_WARM_S": "-1"}).keep_warm_s is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENSCANS_PORT", "65536"),
        ("OPENSCANS_PORT", "-1"),
        ("OPENSCANS_PORT", "8_000"),
        ("OPENSCANS_PORT", "80.5"),
        ("OPENSCANS_PORT", "9" * 100_000),
        ("OPENSCANS_DEBUG", "perhaps"),
        ("OPENSCANS_THREADS", "0"),
        ("OPENSCANS_QUEUE", "-1"),
        ("OPENSCANS_KEEP_WARM_S", "-2"),
        ("OPENSCANS_DEVICE", "tpu"),
        ("OPENSCANS_PRECISION", "float8"),
        ("OPENSCANS_TILES", "some"),
        ("OPENSCANS_WEIGHTS_URL", "ftp://mirror"),
        ("OPENSCANS_PARENT_PID", "0"),
        ("OPENSCANS_DIGESTS", "0a" * 32),
        ("OPENSCANS_DIGESTS", f"292={'0a' * 31}"),
        ("OPENSCANS_DIGESTS", f"292={'0g' * 32}"),
        ("OPENSCANS_DIGESTS", f"Dataset292={'0a' * 32}"),
        ("OPENSCANS_DIGESTS", f"292={'0a' * 32};297={'0a' * 32}"),
        ("OPENSCANS_DIGESTS", f"292={'0a' * 32},292={'0b' * 32}"),
        ("OPENSCANS_ALLOWED_ORIGINS", "*"),
        ("OPENSCANS_ALLOWED_ORIGINS", "null"),
        ("OPENSCANS_ALLOWED_ORIGINS", "viewer.example"),
        ("OPENSCANS_ALLOWED_ORIGINS", "https://viewer.example/page"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_name(name: str, value: str) -> None:
    with pytest.raises(InvalidSetting, match=name) as caught:
        Settings.from_env({name: value})
    assert len(caught.value.message) < 200


SHARED = {"HOST": "::1", "PORT": "9000", "DEBUG": "on"}


def test_names_that_other_programs_use_count_where_they_can_be_meant() -> None:
    settings = Settings.from_env(SHARED)
    assert (settings.host, settings.port, settings.debug, settings.notices) == ("::1", 9000, True, ())


def test_a_name_that_is_ours_alone_is_stronger() -> None:
    ours = {"OPENSCANS_HOST": "localhost", "OPENSCANS_PORT": "9001", "OPENSCANS_DEBUG": "0"}
    for shared in (SHARED, {"HOST": "0.0.0.0", "PORT": "http", "DEBUG": "*"}):
        settings = Settings.from_env({**shared, **ours})
        assert (settings.host, settings.port, settings.debug, settings.notices) == ("localhost", 9001, False, ())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOST", "x86_64-conda-linux-gnu"),
        ("HOST", "workstation"),
        ("HOST", "localhost:3000"),
        ("HOST", "https://secret@proxy.example"),
        ("PORT", "tcp://10.0.0.1:80"),
        ("PORT", "65536"),
        ("PORT", "9" * 100_000),
        ("DEBUG", "*"),
        ("DEBUG", "release"),
        ("WEB_CONCURRENCY", "auto"),
        ("FORWARDED_ALLOW_IPS", "*"),
        ("UVICORN_PORT", "secret"),
    ],
)
@pytest.mark.parametrize("token", [{}, {"OPENSCANS_TOKEN": "s3cret"}])
def test_what_other_programs_mean_is_passed_over_and_said_by_its_name(
    name: str, value: str, token: dict[str, str]
) -> None:
    settings = Settings.from_env({name: value, **token})
    assert len(settings.notices) == 1
    assert settings.notices[0].startswith(f"{name} is passed over")
    assert value not in settings.notices[0]
    assert (settings.host, settings.port, settings.debug) == (Settings.host, Settings.port, Settings.debug)


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("OPENSCANS_THREAD", "OPENSCANS_THREADS"),
        ("OPENSCANS_ALOWED_ROOTS", "OPENSCANS_ALLOWED_ROOTS"),
        ("openscans_port", "OPENSCANS_PORT"),
        ("OPENSCANS_MODEL_HOME", "OPENSCANS_HOME"),
    ],
)
def test_a_name_that_begins_as_ours_and_is_none_is_said_with_the_nearest(wrong: str, nearest: str) -> None:
    assert Settings.from_env({wrong: "secret"}).notices == (
        f"{wrong} is no setting and is passed over; the nearest that is one is {nearest}.",
    )


def test_a_name_that_is_near_none_is_said_too() -> None:
    (notice,) = Settings.from_env({"OPENSCANS_ZZZZZZZZZZZZZ": "1"}).notices
    assert "README" in notice


def test_every_name_that_is_read_stands_in_the_readme() -> None:
    told = set(re.findall(r"OPENSCANS_[A-Z_]+", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert set(re.findall(r'"(OPENSCANS_[A-Z_]+)"', (ROOT / "config.py").read_text(encoding="utf-8"))) <= told


def test_reading_settings_makes_no_folder(tmp_path: Path) -> None:
    Settings.from_env({"OPENSCANS_HOME": str(tmp_path / "home")})
    assert list(tmp_path.iterdir()) == []


def test_a_flag_is_stronger_than_the_environment() -> None:
    env = {"PORT": "9000", "HOST": "localhost"}
    settings = Settings.from_env({**env, **parse_flags(["--port", "9001", "--parent-pid", "12"])})
    assert (settings.host, settings.port, settings.parent_pid) == ("localhost", 9001, 12)


@pytest.mark.parametrize("name", ["HOST", "OPENSCANS_HOST"])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost", "::ffff:127.0.0.1"])
def test_loopback_needs_no_token(host: str, name: str) -> None:
    assert Settings.from_env({name: host}).host == host


@pytest.mark.parametrize(
    ("name", "host"),
    [
        *((name, host) for name in ("HOST", "OPENSCANS_HOST") for host in OF_OTHERS),
        ("OPENSCANS_HOST", "workstation"),
        ("OPENSCANS_HOST", "localhost.example"),
    ],
)
def test_an_address_that_others_may_reach_needs_a_token(name: str, host: str) -> None:
    with pytest.raises(InvalidSetting, match=f"^{name} .*OPENSCANS_TOKEN"):
        Settings.from_env({name: host})
    assert Settings.from_env({name: host, "OPENSCANS_TOKEN": "s3cret"}).host == host
