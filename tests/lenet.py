"""LeNet on handwritten digits, with the recipe that ships: what every backend trains to the same result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from barista.blob import HOST
from barista.frontends.prototxt import read_net
from barista.ops.base import OpSet
from barista.proto.caffe_pb2 import SolverParameter
from barista.resources import find
from barista.solvers import Solver, get_solver

STEPS = 20


def lenet(ops: OpSet, digits: Path, **fields: Any) -> Solver:
    """A solver of LeNet on the digits, with the recipe that ships."""
    net = read_net(str(find("prototxt", "lenet_digits", "train_val.prototxt")))
    for layer in net.layer:
        if layer.type == "Data":
            layer.data_param.source = str(digits / layer.data_param.source)
    param = SolverParameter(base_lr=0.01, lr_policy="inv", gamma=1e-4, power=0.75, momentum=0.9, weight_decay=5e-4,
                            random_seed=1, max_iter=STEPS, test_iter=[6], test_interval=1000,
                            test_initialization=False)
    param.net_param.CopyFrom(net)
    return get_solver(param, ops=ops, **fields)


def train(ops: OpSet, digits: Path) -> tuple[list[float], dict[str, float], list[np.ndarray]]:
    """Losses of each step, the test scores at the end, and the parameters."""
    with lenet(ops, digits) as solver:
        losses = []
        for _ in range(STEPS):
            solver.step(1)
            losses.append(solver.net.loss())
        scores = {name: float(value[0]) for name, value in solver.test_all()[0].items()}
        return losses, scores, [item.blob.value.read(HOST).copy() for item in solver.net.learnable]
