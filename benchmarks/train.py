"""Whole training steps, Barista beside PyTorch on the CPU, in one process and one run.

A step is forward, backward and the update by SGD with momentum and weight decay, on one
batch that lies in memory.  The contenders take turns of a few steps, with a pause between the
turns, since the BLAS and OpenMP threads of one spin after a call and would slow the next.  The
steps of the first fifth of a second are not counted: training runs without end, and a core
that slept is slow at first.

Run: python benchmarks/train.py [--backend cpu|opencl] [--turns 7] [--csv FILE] [NETWORK ...]
Needs PyTorch (pip install torch), which nothing else of Barista does.
"""

from __future__ import annotations

import argparse
import csv
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch_net import TorchNet

import barista
from barista.compose import make_ops
from barista.frontends.prototxt import read_net, read_solver
from barista.ops.cpu.threads import available_cores
from barista.proto.caffe_pb2 import NetParameter
from barista.resources import find
from barista.solvers import get_solver

# name: batch, image shape, classes, milliseconds of one step of BVLC Caffe with OpenBLAS on a machine of this
# kind (two cores of an AMD EPYC; measured once, not in this run)
NETWORKS = {
    "lenet": (64, (1, 28, 28), 10, 18.0),
    "cifar10_full": (100, (3, 32, 32), 10, 160.0),
    "resnet20_cifar10": (128, (3, 32, 32), 10, 920.0),
    "alexnet": (16, (3, 227, 227), 1000, 830.0),
}
# Pause before each turn, so that the other contender's threads have gone to sleep.
PAUSE_S = 0.08
# At the start of each turn, steps for as long as this are not counted.
WARM_S = 0.2
# Counted steps a turn.
STEPS = 5


def definition(name: str) -> NetParameter:
    """The shipped training network with its Data layers replaced by a batch that lies in memory."""
    batch, shape, _, _ = NETWORKS[name]
    shipped = read_net(find("prototxt", name, "train_val.prototxt"))
    net = NetParameter(name=shipped.name)
    data = net.layer.add(name="data", type="Input", top=["data", "label"])
    data.input_param.shape.add(dim=[batch, *shape])
    data.input_param.shape.add(dim=[batch])
    net.layer.extend(layer for layer in shipped.layer if layer.type != "Data")
    return net


def barista_step(name: str, backend: str, images: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    """One training step of ours."""
    param = read_solver(find("prototxt", name, "solver.prototxt"))
    for field in ("net", "test_iter", "test_interval", "snapshot", "display", "iter_size"):
        param.ClearField(field)
    param.train_net_param.CopyFrom(definition(name))
    param.max_iter = 1_000_000
    ops = make_ops(backend)
    solver = get_solver(param, ops=ops)
    solver.net.blobs["data"].data[...] = images
    solver.net.blobs["label"].data[...] = labels

    def step() -> float:
        solver.step(1)
        ops.finish()
        return solver.net.loss()

    return step


def torch_step(name: str, images: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    """One training step of PyTorch, on the same network."""
    module = TorchNet(barista.Net(definition(name), barista.TRAIN, ops=make_ops("cpu"))).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.001, momentum=0.9, weight_decay=0.0005)
    x, target = torch.from_numpy(images), torch.from_numpy(labels)

    def step() -> float:
        optimizer.zero_grad()
        loss = module(x, target)
        loss.backward()
        optimizer.step()
        return float(loss)

    return step


def turn(step: Callable[[], float]) -> list[float]:
    """Milliseconds of each counted step of one turn."""
    time.sleep(PAUSE_S)
    end = time.perf_counter() + WARM_S
    while time.perf_counter() < end:
        step()
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        step()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def spread(times: list[float]) -> str:
    """Median and the quartiles around it."""
    low, middle, high = statistics.quantiles(times, n=4)
    return f"{middle:7.1f} ({low:.1f} to {high:.1f})"


def main() -> None:
    """Print a table, and write it as CSV where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(available_cores())
    print(f"Barista {barista.__version__} {make_ops(options.backend).describe()}; PyTorch {torch.__version__}, "
          f"{torch.get_num_threads()} threads; Python {platform.python_version()}, {platform.machine()}")
    print(f"{'network':18} {'batch':>5} {'Barista ms (quartiles)':>30} {'PyTorch ms (quartiles)':>30} "
          f"{'PyTorch/ours':>13} {'Caffe ms*':>10} {'Caffe/ours':>11}")
    rows = []
    for name in options.networks:
        batch, shape, classes, caffe = NETWORKS[name]
        rng = np.random.default_rng(0)
        images = rng.normal(size=(batch, *shape)).astype(np.float32)
        labels = rng.integers(0, classes, batch)
        ours, theirs = barista_step(name, options.backend, images, labels), torch_step(name, images, labels)
        for _ in range(2):
            ours()
            theirs()
        pairs = [(turn(ours), turn(theirs)) for _ in range(options.turns)]
        mine, other = [t for p in pairs for t in p[0]], [t for p in pairs for t in p[1]]
        ratio = statistics.median(statistics.median(b) / statistics.median(a) for a, b in pairs)
        median = statistics.median(mine)
        print(f"{name:18} {batch:5} {spread(mine):>30} {spread(other):>30} {ratio:13.2f} {caffe:10.0f} "
              f"{caffe / median:11.2f}", flush=True)
        rows.append([name, batch, f"{median:.2f}", f"{statistics.median(other):.2f}", f"{ratio:.3f}", caffe])
    print("* measured once on a machine of this kind, not in this run")
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["network", "batch", "barista_ms", "pytorch_ms", "pytorch_over_barista", "caffe_ms"])
            writer.writerows(rows)


if __name__ == "__main__":
    main()
