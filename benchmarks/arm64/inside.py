"""One patch through a network, in one formulation: what runs in the emulated root, and on this machine to compare.

    python -m benchmarks.arm64.inside TRAINING_FOLDER PATCH.npy [--logits LOGITS.npy] [--formulation planes]

Needs nothing but the lean set. Without ``--logits`` the network is only compiled. Writes one line of JSON; before and
after the inference it calls the kernel with a number that means nothing to it, upon which `count.c` tells the
instructions so far.
"""

import argparse
import ctypes
import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openscans.networks.checkpoint import CHECKPOINT, read_tensors
from openscans.networks.openvino_formulations import Formulation, Planes, Volumes
from openscans.networks.openvino_graph import build_graph
from openscans.networks.openvino_runtime import convolution_kernels, openvino, reference_count
from openscans.networks.plans import read_plan

FORMULATIONS: dict[str, Formulation] = {form.name: form for form in (Volumes(), Planes())}

MARK = 5000
"""A system call that no kernel has; `count.c` knows it, too."""

THREADS = 1
"""With more, instructions are counted wrongly."""


def infer(
    compiled: openvino.CompiledModel, patch: NDArray[np.float32], formulation: Formulation
) -> NDArray[np.float32]:
    """The logits (class, z, y, x) of ``patch`` (z, y, x)."""
    request = compiled.create_infer_request()
    mark = ctypes.CDLL(None).syscall
    mark(MARK)
    request.infer({0: patch[None, None]}, share_inputs=True)
    mark(MARK)
    return formulation.leave(request.get_output_tensor().data)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path, help="a training folder")
    parser.add_argument("patch", type=Path, help="(z, y, x), float32, normalised")
    parser.add_argument("--logits", type=Path, help="is written: (class, z, y, x), float32")
    parser.add_argument("--formulation", default="volumes", choices=FORMULATIONS)
    arguments = parser.parse_args()
    patch, formulation = np.load(arguments.patch), FORMULATIONS[arguments.formulation]
    plan = replace(read_plan(arguments.network), patch_zyx=patch.shape)
    graph = build_graph(plan, read_tensors(arguments.network / CHECKPOINT), openvino.Type.f32, formulation)
    settings = {"INFERENCE_PRECISION_HINT": openvino.Type.f32, "INFERENCE_NUM_THREADS": THREADS}
    compiled = openvino.Core().compile_model(graph, "CPU", settings)
    if arguments.logits:
        np.save(arguments.logits, infer(compiled, patch, formulation))
    kernels = convolution_kernels(compiled)
    logging.getLogger(__name__).info(json.dumps({"kernels": kernels, "references": reference_count(kernels)}))


if __name__ == "__main__":
    main()
