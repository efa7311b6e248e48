"""Which zips weights may come from, as their digests tell, and what is said of those that are not the known ones.

Knows datasets and digests; nothing of files, or of how a zip came.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from openscans.errors import RefusedWeights
from openscans.types import ResultWarning, WarningCode
from openscans.weights.catalogue import Dataset

NAME_HINT = (
    "Name the SHA-256 of a zip that you trust in OPENSCANS_DIGESTS, as {number}=…, or unset OPENSCANS_STRICT_DIGESTS."
)

ZIP_HINT = "Download the model, or import the release's zip: a folder's files cannot be compared with a zip's digest."

OTHER_ZIP_HINT = "Download the model or import the zip that was meant, or mend OPENSCANS_DIGESTS if that is wrong."


@dataclass(frozen=True)
class DigestRules:
    """``own`` are digests of zips, by the datasets' numbers, that whoever set the server up named.

    They take the place of the known ones, and no other zip is taken for such a dataset. ``strict`` asks the same of
    all: without it another digest than the known one is only told, and of what has no known one nothing is said.
    """

    strict: bool = False
    own: Mapping[int, str] = field(default_factory=dict)

    def known(self, dataset: Dataset) -> str | None:
        """The SHA-256 that the dataset's zip should have, None where nobody knows."""
        return self.own.get(dataset.number, dataset.zip_sha256)

    def are_binding(self, dataset: Dataset) -> bool:
        """Whether weights of another origin than the known zip are refused."""
        return self.strict or dataset.number in self.own

    def refusal_of_all(self, dataset: Dataset) -> RefusedWeights | None:
        """Why no weights of the dataset can be taken, whatever they are; None where some can."""
        if not self.are_binding(dataset) or self.known(dataset) is not None:
            return None
        return RefusedWeights(
            f"OPENSCANS_STRICT_DIGESTS wants {dataset.folder} from a zip whose SHA-256 is known, and none is: "
            "TotalSegmentator publishes no digests.",
            hint=NAME_HINT.format(number=dataset.number),
        )

    def refusal(self, dataset: Dataset, zip_sha256: str | None) -> RefusedWeights | None:
        """Why weights from a zip with this digest, or from a folder (None), are not taken; None where they are."""
        of_all = self.refusal_of_all(dataset)
        if of_all is not None or not self.are_binding(dataset) or zip_sha256 == self.known(dataset):
            return of_all
        if zip_sha256 is None:
            return RefusedWeights(
                f"{dataset.folder} is from a folder, and only of its zip a SHA-256 is known.", hint=ZIP_HINT
            )
        where = "stands in OPENSCANS_DIGESTS" if dataset.number in self.own else "is known"
        return RefusedWeights(
            f"The zip of {dataset.folder} has another SHA-256 than the one that {where}.", hint=OTHER_ZIP_HINT
        )

    def warnings(self, dataset: Dataset, zip_sha256: str | None) -> tuple[ResultWarning, ...]:
        """What is to be said of weights on disk that came from a zip with this digest, or from a folder (None)."""
        refusal = self.refusal(dataset, zip_sha256)
        if refusal is not None:
            return (ResultWarning(WarningCode.UNEXPECTED_DIGEST, f"A detection refuses it: {refusal.message}"),)
        if None in {zip_sha256, self.known(dataset)} or zip_sha256 == self.known(dataset):
            return ()
        message = f"{dataset.folder} came from a zip with an unknown SHA-256."
        return (ResultWarning(WarningCode.UNEXPECTED_DIGEST, message),)


ANY_ZIP = DigestRules()
"""Nothing is refused."""
