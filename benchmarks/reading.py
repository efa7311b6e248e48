"""What reading a DICOM series takes, beside SimpleITK's ImageSeriesReader: seconds and memory, native and JPEG 2000.

    python -m benchmarks.reading [--slices 600] [--runs 3]
    python -m benchmarks.reading --listing 5000

The second: how long it takes to open a file of a small series that lies in a folder among so many files of another.

Each run is a process of its own; its libraries are loaded before the clock starts, and its memory is what reading added
at most, the image included.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless

from benchmarks.scan import Field, phantom_ct
from benchmarks.weigh import ROOT
from openscans.types import Point, Voxel
from phantom.files import DicomStyle, write_dicom_series

SIDE, SPACING_MM = 512, Point(0.7, 0.7, 1.0)

OTHER_ELEMENTS = 200

log = logging.getLogger(__name__)


def _ours(folder: Path) -> int:
    from openscans import volumes

    return int(volumes.open(folder).read().voxels.sum(dtype=np.int64))


def _simpleitk(folder: Path) -> int:
    import SimpleITK as sitk  # noqa: N813 - the name everybody knows it by

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()  # the view does not keep it alive
    return int(sitk.GetArrayViewFromImage(image).sum(dtype=np.int64))


READERS: dict[str, Callable[[Path], int]] = {"ours": _ours, "SimpleITK": _simpleitk}


def read_once(reader: str, folder: Path, warm_up: Path) -> None:
    """Read ``folder`` and write seconds, the growth of the peak of resident memory, and the sum of all voxels."""
    work = READERS[reader]
    work(warm_up)
    process = psutil.Process()
    before_bytes, began_s = process.memory_info().rss, time.perf_counter()
    total = work(folder)
    seconds = time.perf_counter() - began_s
    told = (Path("/proc/self/status").read_text(encoding="ascii")).split("VmHWM:")[1]
    grown_mb = (int(told.split()[0]) * 1024 - before_bytes) / 1e6
    sys.stdout.write(json.dumps({"seconds": seconds, "grown_mb": grown_mb, "sum": total}))


def measure(reader: str, folder: Path, warm_up: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.reading", "--one", reader, str(folder), str(warm_up)]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(said)
    return found


def compare(name: str, syntax: UID, slices: int, runs: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        for part, count in (("warm-up", 4), ("series", slices)):
            voxels, affine = phantom_ct(Field(Voxel(SIDE, SIDE, count), SPACING_MM))
            write_dicom_series(Path(place, part), voxels, affine, DicomStyle(transfer_syntax=syntax))
        found: dict[str, list[dict[str, float]]] = {reader: [] for reader in READERS}
        for _ in range(runs):
            for reader, results in found.items():
                results.append(measure(reader, Path(place, "series"), Path(place, "warm-up")))
    if len({one["sum"] for results in found.values() for one in results}) != 1:
        raise SystemExit("The two readers do not read the same voxels.")
    for reader, results in found.items():
        seconds, grown_mb = (median(one[key] for one in results) for key in ("seconds", "grown_mb"))
        log.info(f"| {name} | {reader} | {seconds:.2f} s | {grown_mb:.0f} MB |")


def _with_many_elements(file: Path) -> bytes:
    """The file with what scanners add, of which nothing is needed: in all some 230 elements, two of them sequences."""
    dataset = pydicom.dcmread(file)
    block = dataset.private_block(0x0019, "OPENSCANS BENCHMARK", create=True)
    for number in range(OTHER_ELEMENTS):
        block.add_new(number, "LO", "as long as most are")
    for name in ("ReferencedImageSequence", "ProcedureCodeSequence"):
        item = Dataset()
        item.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
        setattr(dataset, name, [item])
    written = BytesIO()
    dataset.save_as(written)
    return written.getvalue()


def list_folder(files: int, runs: int) -> None:
    """How long opening one file takes whose folder holds ``files`` of another series."""
    from openscans import volumes

    for name, enrich in (
        ("few elements", Path.read_bytes),
        ("as many elements as scanners write", _with_many_elements),
    ):
        with tempfile.TemporaryDirectory() as place:
            own = write_dicom_series(Path(place, "own"), np.zeros((12, 16, 16), np.int16), np.eye(4))
            other = write_dicom_series(Path(place, "other"), np.zeros((100, 16, 16), np.int16), np.eye(4))
            contents = [enrich(file) for file in other]
            for number in range(files):
                Path(place, "own", f"other{number:05d}.dcm").write_bytes(contents[number % len(contents)])
            walls_s, cpus_s = [], []
            for _ in range(runs):
                began_s, began_cpu_s = time.perf_counter(), time.process_time()
                volumes.open(own[0])
                walls_s.append(time.perf_counter() - began_s)
                cpus_s.append(time.process_time() - began_cpu_s)
        log.info(f"| {files} files of another series, {name} | {median(walls_s):.1f} s | {median(cpus_s):.1f} s |")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=600)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--listing", type=int, help="files of another series around the one that is opened")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        reader, folder, warm_up = arguments.one
        read_once(reader, Path(folder), Path(warm_up))
        return
    if arguments.listing:
        log.info("| folder | opened in | of a processor |")
        log.info("|---|---|---|")
        list_folder(arguments.listing, arguments.runs)
        return
    log.info("| series | reader | seconds | memory |")
    log.info("|---|---|---|---|")
    compare("native", ExplicitVRLittleEndian, arguments.slices, arguments.runs)
    compare("JPEG 2000", JPEG2000Lossless, arguments.slices, arguments.runs)


if __name__ == "__main__":
    main()
