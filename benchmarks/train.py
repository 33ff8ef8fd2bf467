"""Whole training steps, Barista beside PyTorch on the CPU, in one process and one run.

A step is forward, backward and the update by SGD with momentum and weight decay, on one
batch that lies in memory, with the loss read at its end.  The contenders take turns of a few steps
(see ``turns.py``); the steps of the first fifth of a second are not counted, since training runs
without end.

Run: python benchmarks/train.py [--backends opencl,cpu] [--rounds 7] [--csv FILE] [--plot FILE] [NETWORK ...]
Needs PyTorch (pip install torch), which nothing else of Barista does.
"""

from __future__ import annotations

import argparse
import csv
import platform
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_net import TorchNet
from turns import ratio, seconds, spread

import barista
from barista.compose import make_ops
from barista.frontends.prototxt import read_net, read_solver
from barista.ops.cpu.threads import available_cores
from barista.proto.caffe_pb2 import NetParameter
from barista.resources import find
from barista.solvers import get_solver

# name: batch, image shape, classes, milliseconds of one step of BVLC Caffe with OpenBLAS on a machine of this
# kind (two cores of an AMD EPYC; measured once, not in this run; None: not measured)
NETWORKS = {
    "lenet": (64, (1, 28, 28), 10, 18.0),
    "cifar10_full": (100, (3, 32, 32), 10, 160.0),
    "resnet20_cifar10": (128, (3, 32, 32), 10, 920.0),
    "alexnet": (16, (3, 227, 227), 1000, 830.0),
    "googlenet": (16, (3, 224, 224), 1000, None),
}
# At the start of each turn, steps for as long as this are not counted: a core that slept is slow at first.
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
    solver = get_solver(param, ops=ops, plan_memory=True)  # as the command `barista train` does
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


def main() -> None:
    """Print a table, write it as CSV and draw it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--backends", default="opencl,cpu", help="separated by ','; opencl, cpu, fpga")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    backends = options.backends.split(",")
    torch.set_num_threads(available_cores())
    print(f"Barista {barista.__version__}, {'; '.join(make_ops(backend).describe() for backend in backends)}; PyTorch "
          f"{torch.__version__}, {torch.get_num_threads()} threads; NumPy {np.__version__}; Python "
          f"{platform.python_version()}, {platform.machine()}")
    print(f"{'network':18} {'batch':>5} {'contender':9} {'ms (quartiles)':>26} {'PyTorch/ours':>22} "
          f"{'Caffe*/ours':>12}")
    rows = []
    for name in options.networks:
        batch, shape, classes, caffe_ms = NETWORKS[name]
        rng = np.random.default_rng(0)
        images = rng.normal(size=(batch, *shape)).astype(np.float32)
        labels = rng.integers(0, classes, batch)
        contenders = {backend: barista_step(name, backend, images, labels) for backend in backends}
        contenders["pytorch"] = torch_step(name, images, labels)
        for step in contenders.values():
            step()
        times: dict[str, list[float]] = {contender: [] for contender in contenders}
        for _ in range(options.rounds):
            for contender, step in contenders.items():
                times[contender].append(seconds(step, STEPS, WARM_S))
        for contender, own in times.items():
            low, middle, high = ratio(times["pytorch"], own)
            caffe = caffe_ms / (statistics.median(own) * 1e3) if caffe_ms else float("nan")
            print(f"{name:18} {batch:5} {contender:9} {spread(own, 1):>26} "
                  f"{f'{middle:.2f} ({low:.2f} to {high:.2f})':>22} {caffe:12.2f}", flush=True)
            rows.append({"network": name, "batch": batch, "contender": contender,
                         "ms": f"{statistics.median(own) * 1e3:.2f}", "pytorch_over_ours": f"{middle:.3f}",
                         "lower_quartile": f"{low:.3f}", "upper_quartile": f"{high:.3f}", "caffe_ms": caffe_ms or ""})
    print("* measured once on a machine of this kind, not in this run")
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    if options.plot:
        plot(rows, options.plot)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Bars of PyTorch's time over ours, a group for each network."""
    from matplotlib.figure import Figure

    networks, contenders = (list(dict.fromkeys(row[key] for row in rows)) for key in ("network", "contender"))
    figure = Figure(figsize=(2 + 1.5 * len(networks), 4), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(contenders)
    for index, contender in enumerate(contenders):
        heights = [float(row["pytorch_over_ours"]) for row in rows if row["contender"] == contender]
        axes.bar([place + index * width for place in range(len(networks))], heights, width, label=contender)
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(networks))], networks)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_ylabel("PyTorch's time over ours (higher is faster)")
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
