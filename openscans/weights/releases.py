"""How weights get into their place: from a mirror, from a zip, or from a folder of TotalSegmentator's.

Knows addresses and digests; nothing of tasks, or of who may change a place: callers hold its lock alone.
"""

import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from openscans.errors import (
    DamagedWeights,
    DownloadFailed,
    InputNotFound,
    ModelMissing,
    RefusedWeights,
    UnusableImport,
)
from openscans.system.files import translate_os_errors
from openscans.weights import archive, catalogue
from openscans.weights.catalogue import Dataset
from openscans.weights.digest_rules import ANY_ZIP, DigestRules
from openscans.weights.download import DownloadedFile, discard, fetch, sha256_of
from openscans.weights.download_task import DownloadTask
from openscans.weights.installation import REQUIRED, Installation, TrainingCheck, take_any
from openscans.weights.originals import find_dataset, find_originals
from openscans.weights.retry_policy import DEFAULT_POLICY, RetryPolicy

OFFLINE_HINT = "Import the model with POST /api/models/import/{task}, or unset OPENSCANS_OFFLINE."

AGAIN_HINT = "Start the download again; nothing was installed."

CHOOSE_HINT = "Choose a zip of the release, or the folder that holds the model's own folder."

log = logging.getLogger("openscans.models")


class Installer:
    """``mirrors`` are base addresses of `{base}/{version}/{folder}.zip`, in order.

    Only what ``digests`` and ``check`` let through is put in place. With ``roots``, folders are imported from below
    them alone.
    """

    def __init__(
        self,
        mirrors: Sequence[str],
        *,
        offline: bool,
        digests: DigestRules = ANY_ZIP,
        retry_policy: RetryPolicy = DEFAULT_POLICY,
        check: TrainingCheck = take_any,
        roots: Sequence[Path] = (),
    ) -> None:
        self._mirrors = tuple(mirrors)
        self._offline = offline
        self.digests = digests
        self._retry_policy = retry_policy
        self._check = check
        self._roots = tuple(roots)

    def require_takeable(self, dataset: Dataset) -> None:
        """Raises RefusedWeights where no zip of the dataset would be taken, so that none need be asked for."""
        refusal = self.digests.refusal_of_all(dataset)
        if refusal is not None:
            raise refusal

    def download(self, place: Installation, download: DownloadTask) -> None:
        """Fetch and install. Raises ModelMissing, DownloadFailed, DiskFull, Busy, Cancelled."""
        was_there = place.zip_path.is_file()
        try:
            self._install(place, download)
        except (DamagedWeights, RefusedWeights) as error:
            discard(place.zip_path)
            if was_there:
                # What a crash left behind may be torn; what comes from the mirror now is not.
                self.download(place, download)
                return
            raise DownloadFailed(
                f"What was downloaded as {place.dataset.folder} is unusable: {error.message}",
                hint=error.hint if isinstance(error, RefusedWeights) else AGAIN_HINT,
            ) from error

    def import_from(self, places: Sequence[Installation], path: Path) -> None:
        """Install those of ``places`` that ``path`` (a zip, or a folder) holds; it stays as it is.

        Raises InputNotFound, ForbiddenPath, UnusableImport, DiskFull.
        """
        if not path.exists():
            raise InputNotFound("There is no file or folder at that path.")
        if path.is_file() and not os.access(path, os.R_OK):
            raise InputNotFound("The file at that path may not be read.")
        install = self._import_folder if path.is_dir() else self._import_zip
        try:
            filled = install(places, path)
        except DamagedWeights as error:
            raise UnusableImport(error.message) from error
        except RefusedWeights as error:
            raise UnusableImport(error.message, hint=error.hint) from error
        if not filled:
            names = " or ".join(place.dataset.folder for place in places)
            raise UnusableImport(f"Nothing of the name {names} was found there.", hint=CHOOSE_HINT)

    def _install(self, place: Installation, download: DownloadTask) -> None:
        fetched = self._fetch(place, download)
        download.report(place.dataset, "verifying", 0, 1)
        self._check_digest(place.dataset, fetched.sha256)
        extracting = partial(download.report, place.dataset, "extracting")
        log.info("%s came from %s.", place.dataset.folder, fetched.url or "a place that is no longer known")
        source = f"release {place.dataset.version}"
        place.install_zip(place.zip_path, source=source, sha256=fetched.sha256, check=self._check, report=extracting)
        for warning in place.weights_warnings(self.digests, fetched.sha256):
            download.warn(warning)
        discard(place.zip_path)

    def _fetch(self, place: Installation, download: DownloadTask) -> DownloadedFile:
        dataset = place.dataset
        if self._offline and not place.zip_path.is_file():
            raise ModelMissing(f"{dataset.folder} is not on disk, and the server works offline.", hint=OFFLINE_HINT)
        urls = [f"{base}/{dataset.release_path}" for base in self._mirrors]
        return fetch(
            urls,
            place.zip_path,
            report=partial(download.report, dataset, "downloading"),
            retry_policy=self._retry_policy.once_reached() if download.has_received else self._retry_policy,
            room_after=catalogue.UNPACKED_PER_ZIP,
            signature=archive.SIGNATURE,
        )

    def _import_zip(self, places: Sequence[Installation], path: Path) -> int:
        """How many of ``places`` were filled."""
        with translate_os_errors():
            digest = sha256_of(path)
        wanted = [
            place for place in places if archive.find_folder(path, PurePosixPath(place.dataset.folder)) is not None
        ]
        for place in wanted:
            self._check_digest(place.dataset, digest)
        for place in wanted:
            place.install_zip(path, source="zip", sha256=digest, check=self._check)
            discard(place.zip_path)
        return len(wanted)

    def _import_folder(self, places: Sequence[Installation], path: Path) -> int:
        """How many of ``places`` were filled."""
        with translate_os_errors():
            found = [(place, find_dataset(path, place.dataset.folder, self._roots)) for place in places]
            # What may not be read is refused before anything is.
            wanted = [
                (place, folder, find_originals(folder / place.dataset.training, REQUIRED, self._roots))
                for place, folder in found
                if folder is not None
            ]
        for place, _, _ in wanted:
            self._check_digest(place.dataset, None)
        for place, folder, originals in wanted:
            place.install_folder(folder, originals, check=self._check)
            discard(place.zip_path)
        return len(wanted)

    def _check_digest(self, dataset: Dataset, zip_sha256: str | None) -> None:
        """Raises RefusedWeights where the settings want another zip; None stands for a folder, which has no digest."""
        refusal = self.digests.refusal(dataset, zip_sha256)
        if refusal is not None:
            raise refusal
        for warning in self.digests.warnings(dataset, zip_sha256):
            log.warning("%s It is %s; known is %s.", warning.message, zip_sha256, self.digests.known(dataset))
