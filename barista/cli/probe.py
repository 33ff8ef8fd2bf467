"""A little network whose results are known, to see whether a backend computes right.

``python -m barista.cli.probe`` lists the OpenCL devices, with a device's number it tries that one, with ``fpga`` the
emulated board; each prints one line of JSON. `barista doctor` runs it in a process of its own, since a driver may crash
or hang.
"""

from __future__ import annotations

import json
import logging
import sys
import time

import numpy as np
import numpy.typing as npt

from ..blob import HOST
from ..compose import make_ops
from ..errors import BaristaError
from ..frontends.prototxt import parse_net
from ..net import Net
from ..ops.base import OpSet

_NET = """
name: "probe"
layer { name: "in" type: "Input" top: "x" top: "t" input_param {
  shape { dim: 2 dim: 3 dim: 7 dim: 8 } shape { dim: 2 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "c"
  convolution_param { num_output: 5 kernel_size: 3 pad: 1 } }
layer { name: "relu" type: "ReLU" bottom: "c" top: "c" }
layer { name: "pool" type: "Pooling" bottom: "c" top: "p" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "p" top: "f" inner_product_param { num_output: 4 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "f" bottom: "t" top: "loss" }
"""
# Of the largest magnitude; rounding stays far below, a wrong kernel far above.
TOLERANCE = 1e-4


def results(ops: OpSet) -> dict[str, npt.NDArray[np.float64]]:
    """Loss, scores and the gradients of the parameters, by name."""
    net = Net(parse_net(_NET, "probe"), 0, ops=ops)
    numbers = np.random.default_rng(1)
    for blobs in ([net.blobs["x"]], *net.params.values()):
        for blob in blobs:
            blob.value.write(HOST)[...] = numbers.normal(size=blob.shape)
    net.blobs["t"].value.write(HOST)[...] = [1, 3]
    net.forward_pass()
    net.backward_pass()
    found = {"loss": net.blobs["loss"].value, "scores": net.blobs["f"].value}
    found |= {f"gradient of {name}[{index}]": blob.grad for name, blobs in net.params.items()
              for index, blob in enumerate(blobs)}
    return {name: np.array(tensor.read(HOST), np.float64) for name, tensor in found.items()}


def trouble(backend: str, device: str | None = None) -> str:
    """What is wrong with the results of a backend in float32, against the processor's in float64; '' for nothing.

    Raises
    ------
    BaristaError : it cannot compute at all
    """
    expected = results(make_ops("cpu", np.float64))
    for name, values in results(make_ops(backend, np.float32, device, measure=False)).items():
        scale = np.abs(expected[name]).max()
        error = np.abs(values - expected[name]).max()
        if not error <= TOLERANCE * scale:  # NaN too
            return f"wrong results: {name} of a little network is off by {error:.3g} at a magnitude of {scale:.3g}"
    return ""


def listed() -> dict[str, object]:
    """The OpenCL devices: a description, whether commands take it by default, and why it is unfit, or ''."""
    from ..runtime.devices import all_devices, describe, survey, unfit
    from .device_query import verdicts

    found = survey()
    if not found.devices:
        all_devices()  # raises, and says why there is none
    return {"devices": [{"name": describe(device), "taken": verdict, "unfit": unfit(device)} for device, verdict in
                        zip(found.devices, verdicts(found.devices), strict=True)], "failed": found.failed}


def tried(what: str) -> dict[str, object]:
    """How a device, or ``fpga``, computes, in how many seconds, building included, and what was done to let it."""
    notes = _Notes()
    logger = logging.getLogger("barista.runtime.pocl")
    logger.addHandler(notes)
    logger.setLevel(logging.DEBUG)
    began = time.perf_counter()
    problem = trouble("fpga") if what == "fpga" else trouble("opencl", what)
    return {"problem": problem, "seconds": time.perf_counter() - began, "notes": notes.texts}


class _Notes(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record's text."""
        self.texts.append(record.getMessage())


def main() -> None:
    """Print one line of JSON; what ends it is said in the field ``error``."""
    try:
        answer = tried(sys.argv[1]) if len(sys.argv) > 1 else listed()
    except BaristaError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
