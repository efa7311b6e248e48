"""One patch through a network, in one formulation: what runs in the emulated root, and on this machine to compare.

    python -m benchmarks.arm64.inside TRAINING_FOLDER PATCH.npy LOGITS.npy [--formulation planes] [--threads 1]

Needs nothing but the lean set. Writes one line of JSON; before and after the inference it calls the kernel with a
number that means nothing to it, upon which `count.c` tells the instructions so far.
"""

import argparse
import ctypes
import json
import logging
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from openscans.networks.checkpoint import CHECKPOINT, read_tensors
from openscans.networks.openvino_formulations import Planes, Volumes
from openscans.networks.openvino_graph import build_graph
from openscans.networks.openvino_runtime import convolution_kernels, openvino, reference_count
from openscans.networks.plans import read_plan

FORMULATIONS = {form.name: form for form in (Volumes(), Planes())}

MARK = 5000
"""A system call that no kernel has; `count.c` knows it, too."""


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path, help="a training folder")
    parser.add_argument("patch", type=Path, help="(z, y, x), float32, normalised")
    parser.add_argument("logits", type=Path, help="is written: (class, z, y, x), float32")
    parser.add_argument("--formulation", default="volumes", choices=FORMULATIONS)
    parser.add_argument("--threads", type=int, default=1, help="instructions are counted rightly with one only")
    arguments = parser.parse_args()
    patch = np.load(arguments.patch)
    plan = replace(read_plan(arguments.network), patch_zyx=patch.shape)
    tensors = read_tensors(arguments.network / CHECKPOINT)
    graph = build_graph(plan, tensors, openvino.Type.f32, FORMULATIONS[arguments.formulation])
    settings = {"INFERENCE_PRECISION_HINT": openvino.Type.f32, "INFERENCE_NUM_THREADS": arguments.threads}
    compiled = openvino.Core().compile_model(graph, "CPU", settings)
    request = compiled.create_infer_request()
    mark = ctypes.CDLL(None).syscall
    began_s = time.perf_counter()
    mark(MARK)
    request.infer({0: patch[None, None]}, share_inputs=True)
    mark(MARK)
    seconds = time.perf_counter() - began_s
    np.save(arguments.logits, request.get_output_tensor().data[0])
    kernels = convolution_kernels(compiled)
    told = {"seconds": seconds, "kernels": kernels, "references": reference_count(kernels)}
    logging.getLogger(__name__).info(json.dumps(told))


if __name__ == "__main__":
    main()
