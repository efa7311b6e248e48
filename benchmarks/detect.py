"""One detection in a new process, from import to answer, without HTTP: what `compare` times and weighs.

python -m benchmarks.detect IMAGE --results WEIGHTS_FOLDER [--fast] [--precision float32]
"""

import argparse
import json
import logging
import tempfile
from dataclasses import asdict
from pathlib import Path

from findings import EngineOptions, Order, TrainedModel
from inference import Pipeline


def training_folder(results: Path, dataset: int) -> Path:
    """The one training of ``dataset`` under ``results``; found without `phantom.layout`, which would load PyTorch."""
    [folder] = results.glob(f"Dataset{dataset}_*/*__nnUNetPlans__3d_fullres")
    return folder


def model(results: Path, dataset: int) -> TrainedModel:
    folder = training_folder(results, dataset)
    return TrainedModel(folder.parent.name, folder, sha256=folder.parent.name)


def order(image: Path, results: Path, *, fast: bool) -> Order:
    """What `detection` would ask of the worker for ``image``."""
    return Order(
        path=image,
        task="total_body" if fast else "vertebrae",
        segmenter=model(results, 297 if fast else 292),
        localiser=model(results, 298),
        step=0.8,
        fast_mode=fast,
        device="cpu",
    )


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--precision", default="auto", choices=["auto", "float32"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        pipeline = Pipeline(EngineOptions(threads=None, precision=arguments.precision, cache_folder=Path(cache)))
        found = pipeline.detect(order(arguments.image, arguments.results, fast=arguments.fast), lambda *_: None)
    result = {"vertebrae": len(found.vertebrae), "timings_ms": found.timings_ms, "size": asdict(found.image.size)}
    logging.getLogger(__name__).info(json.dumps(result))


if __name__ == "__main__":
    main()
