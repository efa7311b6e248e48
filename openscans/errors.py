"""Everything that can go wrong, as one small tree: a stable code, a sentence for a person, a hint what to do.

Knows nothing of HTTP; `server.error_responses` maps these classes to statuses. A sentence never holds a patient's data.

    OpenScansError                   internal_error               what nobody foresaw; the root of all
    ├─ Cancelled                     cancelled                    somebody asked it to stop
    ├─ Unauthorized                  unauthorized                 the caller shows no token, or a wrong one
    ├─ ForbiddenHost                 forbidden_host               the caller means another machine
    ├─ ForbiddenOrigin               forbidden_origin             a web page that may not call
    ├─ InvalidRequest                invalid_request              not understood
    │  └─ FolderTooLarge             invalid_request              a folder that nobody means, such as a whole disk
    ├─ NotFound                      not_found                    nothing is at the address
    ├─ MethodNotAllowed              method_not_allowed           the address answers, but not to this
    ├─ InputNotFound                 file_not_found               no file is at the path
    ├─ UnknownSeries                 unknown_series               the folder holds no series with that UID
    ├─ ForbiddenPath                 forbidden_path               a path that may not be read
    ├─ VolumeError                   corrupt_file                 a file or series that cannot become a volume
    │  ├─ UnsupportedFile            unsupported_file             a format that is not read
    │  ├─ UnsupportedTransferSyntax  unsupported_transfer_syntax  a compression that is not read
    │  ├─ NoImage                    no_image                     DICOM without pixels
    │  ├─ TooFewSlices               too_few_slices               hardly a slice, and no volume
    │  ├─ InconsistentGeometry       inconsistent_geometry        slices that make no regular grid
    │  ├─ UnsupportedModality        unsupported_modality         neither CT nor MR
    │  ├─ SeveralVolumes             several_volumes              more than one, and nothing tells which
    │  └─ CorruptFile                corrupt_file                 incomplete or damaged
    ├─ ModelError                    internal_error               something about the networks' weights
    │  ├─ UnknownTask                unknown_task                 no model has that name
    │  ├─ ModelMissing               model_missing                its weights are not on disk
    │  │  ├─ DamagedWeights          model_missing                they are, but cannot be what they claim to be
    │  │  └─ RefusedWeights          model_missing                they are, or could be, but the settings forbid them
    │  ├─ UnusableImport             corrupt_file                 what was named as weights are none
    │  ├─ ModelInUse                 model_in_use                 somebody downloads, changes or uses it
    │  └─ DownloadFailed             download_failed              the weights could not be fetched
    ├─ UnknownJob                    unknown_job                  no job has that id, or not any more
    ├─ Busy                          busy                         too much is asked for just now
    ├─ WorkerCrashed                 worker_crashed               the worker process ended or hung
    ├─ OutOfMemory                   out_of_memory                the memory does not suffice
    └─ DiskFull                      disk_full                    the disk does not suffice
       └─ UnwritableDisk             disk_full                    nothing can be written there at all
"""

from collections.abc import Iterator, Sequence

MOST_SERIES_TOLD = 10
"""Of those that a folder holds; a study has some, an archive thousands."""


class OpenScansError(Exception):
    """Root of every error that a caller may see."""

    code = "internal_error"
    hint = "Try again; if it happens again, send the log file to the developers."

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if hint is not None:
            self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # Subclasses may build their own sentence; pickling between processes must not build it twice.
        return _rebuild, (type(self), self.message, self.hint)


def _rebuild(kind: type[OpenScansError], message: str, hint: str) -> OpenScansError:
    error = kind.__new__(kind, message)
    OpenScansError.__init__(error, message, hint=hint)
    return error


class Cancelled(OpenScansError):
    """Raised through `report` when somebody asked long work to stop."""

    code = "cancelled"
    hint = "Send the request again if the result is still wanted."

    def __init__(self, message: str = "The work was cancelled.") -> None:
        super().__init__(message)


class Unauthorized(OpenScansError):
    """The caller did not show the token that the server was started with."""

    code = "unauthorized"
    hint = "Send the header Authorization: Bearer with the value of OPENSCANS_TOKEN."


class ForbiddenHost(OpenScansError):
    """The request says that it is meant for another machine, as one of a page that rebinds its own name does."""

    code = "forbidden_host"
    hint = "Use http://127.0.0.1 or http://localhost, or start the server with OPENSCANS_HOST set to that address."


class ForbiddenOrigin(OpenScansError):
    """The request comes from a web page that is not the application's."""

    code = "forbidden_origin"
    hint = "Add the page's origin to OPENSCANS_ALLOWED_ORIGINS if it may use this server."


class InvalidRequest(OpenScansError):
    code = "invalid_request"
    hint = "Compare the request with the keys and addresses that are listed at /docs."


class FolderTooLarge(InvalidRequest):
    """A folder with more below it than anybody means to be read as one image, such as a whole disk."""

    hint = "Name the series' folder."


class NotFound(OpenScansError):
    code = "not_found"
    hint = "The addresses of this service are listed at /docs."


class MethodNotAllowed(OpenScansError):
    code = "method_not_allowed"
    hint = "The addresses of this service and their methods are listed at /docs."


class InputNotFound(OpenScansError):
    code = "file_not_found"
    hint = "Check the path; it must be absolute and readable by the user who runs the server."


class UnknownSeries(OpenScansError):
    """A folder holds no series with the UID that a caller named; ``found``: UID, modality and slices of its images."""

    code = "unknown_series"

    def __init__(self, found: Sequence[tuple[str, str, int]] = ()) -> None:
        listed = [f"{uid} ({modality}, {slices} slices)" for uid, modality, slices in found[:MOST_SERIES_TOLD] if uid]
        more = f", and {len(found) - len(listed)} more" if len(found) > len(listed) else ""
        hint = f"It holds {', '.join(listed)}{more}." if listed else "Leave series_uid out."
        super().__init__("The folder holds no series with this series_uid.", hint=hint)


class ForbiddenPath(OpenScansError):
    code = "forbidden_path"
    hint = "Move the file under an allowed folder or add its folder to OPENSCANS_ALLOWED_ROOTS."


class VolumeError(OpenScansError):
    """A file or series that cannot become a volume."""

    code = "corrupt_file"
    hint = "Export the series again."


class UnsupportedFile(VolumeError):
    code = "unsupported_file"
    hint = "Send a DICOM file or folder, or a NIfTI file (.nii, .nii.gz)."


class UnsupportedTransferSyntax(VolumeError):
    code = "unsupported_transfer_syntax"
    hint = "Export the series uncompressed or in a lossless compression (JPEG 2000, JPEG-LS, JPEG lossless, RLE)."


class NoImage(VolumeError):
    code = "no_image"
    hint = "Choose an image series; reports, structured results and index files hold no pixels."


class TooFewSlices(VolumeError):
    code = "too_few_slices"
    hint = "Put all slices of the series into one folder and send that folder or one of its files."


class InconsistentGeometry(VolumeError):
    code = "inconsistent_geometry"
    hint = "Export the whole series again, or choose another reconstruction."


class UnsupportedModality(VolumeError):
    code = "unsupported_modality"
    hint = "Send a CT or MR series."


class SeveralVolumes(VolumeError):
    code = "several_volumes"
    hint = "Split the file or series and send one volume at a time."


class CorruptFile(VolumeError):
    code = "corrupt_file"
    hint = "The file is incomplete or damaged; copy or export it again."


class ModelError(OpenScansError):
    """Something about the networks' weights."""


class UnknownTask(ModelError):
    code = "unknown_task"
    hint = "GET /api/models/all lists the tasks."


class ModelMissing(ModelError):
    code = "model_missing"
    hint = "Download it with POST /api/models/download/{task}."


class DamagedWeights(ModelMissing):
    """Weights that are on disk but cannot be what they claim to be."""

    hint = "Delete the model and download it again."


class RefusedWeights(ModelMissing):
    """Weights whose zip has another digest than the settings want, or none that anybody knows."""

    hint = "OPENSCANS_DIGESTS names the digests of zips that may be used."


class UnusableImport(ModelError):
    """A file or folder that a caller named as weights and that cannot be taken for them."""

    code = "corrupt_file"
    hint = "Nothing was installed. Download or copy the file again."


class ModelInUse(ModelError):
    code = "model_in_use"
    hint = "Wait until the download or detection has ended, or cancel it."


class DownloadFailed(ModelError):
    code = "download_failed"
    hint = "Check the network and the proxy settings, then start the download again; it goes on where it stopped."


class UnknownJob(OpenScansError):
    code = "unknown_job"
    hint = "GET /api/jobs lists the jobs that are known."


class Busy(OpenScansError):
    code = "busy"
    hint = "Wait and send the request again."


class WorkerCrashed(OpenScansError):
    code = "worker_crashed"
    hint = "Send the request again; a fresh worker serves it."


class OutOfMemory(OpenScansError):
    code = "out_of_memory"
    hint = "Close other programs, or use fast_mode."


class DiskFull(OpenScansError):
    code = "disk_full"
    hint = "Make room on the disk that holds OPENSCANS_HOME, then try again; what is there is kept."


class UnwritableDisk(DiskFull):
    """A disk that is read-only, or a folder that is closed to the user who runs the server."""

    hint = "Let the user who runs the server write into the folder of OPENSCANS_HOME, or name another in it."


def kinds_of(kind: type[OpenScansError]) -> Iterator[type[OpenScansError]]:
    """``kind`` and every narrower one that a caller may see, in the order of their definition, depth first."""
    # A wrong setting is an error too, but ends the program before there is anybody to tell.
    if kind.__module__ == __name__:
        yield kind
    for narrower in kind.__subclasses__():
        yield from kinds_of(narrower)
