"""Starts and stops the service: settings, the sockets, the worker's and the parent's life, exit codes.

Run as ``python main.py``. The worker process imports this file too, because `multiprocessing` imports its parent's
main module, so nothing here imports the web framework before it is needed.
"""

import argparse
import errno
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from config import InvalidSetting, Settings
from openscans.system import listeners
from openscans.system.program import RUNNING
from openscans.version import version

if TYPE_CHECKING:
    from inference import Pipeline
    from model_manager import Models
    from openscans.jobs.detector import DetectionRequest, Detector
    from openscans.jobs.queue import JobQueue
    from openscans.jobs.worker import Worker
    from openscans.server import AppState
    from openscans.system.private_folders import PrivateFolders
    from openscans.types import Detection, InferenceOptions

EXIT_INVALID_SETTING = 2
EXIT_CANNOT_BIND = 3
EXIT_RUNS_ALREADY = 4
EXIT_INTERRUPTED = 130

LATEST_END_S = 1.5
"""From the sign to end to the end, whatever still hangs: 2 s are promised after the parent's end, 3 s after a signal.
Streams get their last event in the first tenths of a second."""

NOTHING_IS_KEPT = "OPENSCANS_HOME cannot be written: what is there is used; no model, answer or log comes to it."

log = logging.getLogger("openscans.main")


@dataclass(frozen=True)
class Parts:
    """What lives as long as the server and must be ended with it."""

    models: "Models"
    detector: "Detector"
    jobs: "JobQueue[DetectionRequest, Detection]"
    worker: "Worker"
    private_folders: "PrivateFolders"

    def close(self) -> None:
        """Stop all work, so that every stream gets its last event; no process and no unpacked image is left."""
        self.jobs.close()
        self.models.close()
        self.worker.close()
        self.private_folders.close()


def main(arguments: Sequence[str], env: Mapping[str, str]) -> int:
    """The exit code: 0 asked to end, 2 a setting is wrong, 3 the address cannot be had, 4 a backend has it already."""
    keep_standard_descriptors()
    try:
        settings = Settings.from_env({**env, **parse_flags(arguments)})
        require_known_datasets(settings)
        require_open_home(settings.home)
    except InvalidSetting as error:
        write_line(sys.stderr, f"{error.message} {error.hint}")
        return EXIT_INVALID_SETTING
    try:
        sockets = listeners.bind_sockets(settings.host, settings.port)
    except OSError as error:
        return explain_bind_failure(settings.host, settings.port, error)
    return run(settings, sockets)


def require_known_datasets(settings: Settings) -> None:
    """Raises InvalidSetting where a digest is set for a dataset that no task has, and would guard nothing."""
    if not settings.digests:
        return
    from openscans.weights import catalogue

    known = sorted({dataset.number for task in catalogue.TASKS.values() for dataset in task.datasets})
    for number in settings.digests:
        if number not in known:
            raise InvalidSetting(f"OPENSCANS_DIGESTS names {number}; the datasets are {', '.join(map(str, known))}.")


def require_open_home(home: Path) -> None:
    """Raises InvalidSetting where nothing that lies in ``home`` can be reached; it need not be there yet."""
    from openscans.system import folders

    reason = folders.why_closed(home)
    if reason is not None:
        raise InvalidSetting(f"The folder that OPENSCANS_HOME means cannot be used: {reason}.")


def explain_bind_failure(host: str, port: int, error: OSError) -> int:
    """Say in one line why the address cannot be had, and return the exit code."""
    from openscans.system import processes

    reason, code = error.strerror or str(error), EXIT_CANNOT_BIND
    if error.errno in {errno.EADDRINUSE, errno.EACCES} and port != 0:
        address = processes.find_backend(reachable_host(host), port)
        if address is not None:
            reason, code = f"an OpenScans backend runs there already, at {address}", EXIT_RUNS_ALREADY
        elif error.errno == errno.EADDRINUSE:
            reason = f"the port is taken by {processes.find_listener(port)}"
    write_line(sys.stderr, f"Cannot listen on {host}:{port}: {reason}.")
    return code


def reachable_host(host: str) -> str:
    """``host``, or for an address that stands for all of this machine's the one that reaches it."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def parse_flags(arguments: Sequence[str]) -> dict[str, str]:
    """The command line as settings under their names in the environment."""
    parser = argparse.ArgumentParser(description="OpenScans AI backend: finds and labels vertebrae.")
    parser.add_argument("--version", action="version", version=version())
    parser.add_argument("--host", help=f"address to bind (default {Settings.host})")
    parser.add_argument("--port", help=f"port to bind (default {Settings.port}; 0 picks a free one)")
    parser.add_argument("--parent-pid", help="end when the process of this id ends")
    parser.add_argument("--end-with-stdin", action="store_const", const="1", help="end when standard input ends")
    given = parser.parse_args(arguments)
    named = {
        "OPENSCANS_HOST": given.host,
        "OPENSCANS_PORT": given.port,
        "OPENSCANS_PARENT_PID": given.parent_pid,
        "OPENSCANS_END_WITH_STDIN": given.end_with_stdin,
    }
    return {name: value for name, value in named.items() if value is not None}


def run(settings: Settings, sockets: Sequence[socket.socket]) -> int:
    """Serve on ``sockets`` until asked to end."""
    from openscans.system import folders, logs

    logs.set_up(settings.log_folder, file_name="server.log", debug=settings.debug)
    for notice in (*settings.notices, *([] if folders.is_writable(settings.home) else [NOTHING_IS_KEPT])):
        log.warning("%s", notice)
    parts = build_parts(settings)
    parts.models.tidy()
    # Of a whole study it takes longer than who waits for the server may have patience.
    threading.Thread(target=parts.private_folders.remove_left_over, name="left-over images", daemon=True).start()
    return serve(settings, parts, sockets)


def build_parts(settings: Settings) -> Parts:
    """The parts of the real service; nothing heavy is loaded and nothing runs yet."""
    from model_manager import Models
    from openscans.jobs.detector import STAGE_WEIGHTS, Detector
    from openscans.jobs.image_files import ImageAccess
    from openscans.jobs.queue import JobQueue
    from openscans.jobs.result_cache import ResultCache
    from openscans.jobs.worker import Worker
    from openscans.jobs.worker_process import LogPlan
    from openscans.system.private_folders import PrivateFolders
    from openscans.types import InferenceOptions
    from openscans.weights.digest_rules import DigestRules
    from openscans.weights.releases import Installer
    from openscans.weights.retry_policy import RetryPolicy

    # What lies beside a folder that may be read may lie outside of all that may.
    beside = not settings.allowed_roots
    options = InferenceOptions(
        settings.threads, settings.precision, settings.cache_folder, settings.tiles, look_beside=beside
    )
    log_plan = LogPlan(settings.log_folder, settings.debug)
    worker = Worker(
        partial(make_pipeline, options),
        keep_warm_s=settings.keep_warm_s,
        hang_s=settings.hang_s,
        log_plan=log_plan,
    )
    installer = Installer(
        settings.weights_urls,
        offline=settings.offline,
        digests=DigestRules(settings.strict_digests, settings.digests),
        retry_policy=RetryPolicy(stall_s=settings.stall_s),
        check=check_training,
        roots=settings.allowed_roots,
    )
    models = Models(settings.home, installer, totalsegmentator_results=results_within(settings))
    results = ResultCache(
        settings.cache_folder / "results", settings=(settings.precision, settings.tiles), most=settings.results
    )
    private_folders = PrivateFolders(settings.private_folder)
    detector = Detector(
        worker,
        models,
        results,
        ImageAccess(private_folders, settings.allowed_roots),
        auto_download=settings.auto_download,
        device=settings.device,
    )
    jobs = JobQueue(detector, weights=STAGE_WEIGHTS, most_waiting=settings.queue)
    return Parts(models, detector, jobs, worker, private_folders)


def make_pipeline(options: "InferenceOptions") -> "Pipeline":
    """Called in the worker process, which alone loads the libraries that this takes."""
    import inference

    return inference.Pipeline(options)


def results_within(settings: Settings) -> "Path | None":
    """Where TotalSegmentator keeps its weights, if images and weights may be read from there."""
    from openscans.system.allowed_roots import lies_in, real

    results, roots = settings.totalsegmentator_results, settings.allowed_roots
    return results if results is None or not roots or lies_in(real(results), roots) else None


def check_training(folder: "Path") -> None:
    """Raise DamagedWeights unless a network can be made of the weights in ``folder``, in bounded memory."""
    # Only when there are new ones, because it loads numpy.
    from openscans import networks

    networks.check_training(folder)


def build_state(settings: Settings, parts: Parts) -> "AppState":
    """What the web application is made over."""
    from openscans.server import AccessRules, AppState
    from openscans.system import devices

    return AppState(
        AccessRules(settings.host, settings.token, settings.allowed_roots, settings.allowed_origins),
        parts.models,
        parts.jobs,
        parts.worker,
        device=devices.resolve_device(settings.device),
        cuda_available=devices.cuda_available(),
    )


def serve(settings: Settings, parts: Parts, sockets: Sequence[socket.socket]) -> int:
    """Run the web server over ``parts``, and end them with it."""
    from openscans.server import Server, create_app
    from openscans.system import processes

    RUNNING.remember_files()
    listeners.raise_open_files()
    if listeners.lacks_ipv6(settings.host, sockets):
        log.warning("::1 cannot be had on this port; who asks for localhost may come to 127.0.0.1 late, or elsewhere.")
    app = create_app(build_state(settings, parts))
    begin = partial(on_started, sockets[0], parts.detector if settings.warm_up else None)
    server = Server(app, debug=settings.debug, on_start=begin, on_end=partial(shut_down, parts))
    if settings.parent_pid is not None:
        processes.when_ended(settings.parent_pid, server.end)
    if settings.end_with_stdin:
        processes.when_input_ends(server.end)
    end_on_hang_up(server.end)
    try:
        server.run(sockets=list(sockets))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        parts.close()
    return 0


def shut_down(parts: Parts) -> None:
    """End ``parts``; and the process soon, even if a thread hangs that nothing can stop."""
    last = threading.Timer(LATEST_END_S, os._exit, (0,))
    last.daemon = True
    last.start()
    parts.close()


def end_on_hang_up(then: Callable[[], None]) -> None:
    """End in order when the console is closed. (Windows tells it by the signal that the web server listens to.)"""
    # Who started the program with nohup wants it to stay.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda _number, _frame: then())


def keep_standard_descriptors() -> None:
    """Let no socket of ours take the number of a stream that was closed: libraries write there unasked."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def on_started(listener: socket.socket, early: "Detector | None") -> None:
    """Connections are answered: say where, and warm up what is wanted ``early``."""
    announce(listener)
    if early is not None:
        # In a thread, because starting a process and loading networks take longer than an answer may.
        threading.Thread(target=early.warm_up, name="warm-up", daemon=True).start()


def announce(listener: socket.socket) -> None:
    """The first line on stdout, from which whoever started the server reads the port."""
    host, port = listener.getsockname()[:2]
    name = reachable_host(host)
    write_line(sys.stdout, f"LISTENING http://{f'[{name}]' if ':' in name else name}:{port}")


def write_line(stream: TextIO | None, line: str) -> None:
    # A windowed executable has no streams; a parent may have closed its end, or never read and let the pipe fill.
    if stream is not None:
        with suppress(OSError, ValueError):
            stream.write(f"{line}\n")
            stream.flush()


if __name__ == "__main__":
    multiprocessing.freeze_support()
    sys.exit(main(sys.argv[1:], os.environ))
