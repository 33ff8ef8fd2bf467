"""Every layer of a network but its convolutions, forward and backward, on our backends beside PyTorch on the CPU.

Convolutions have a benchmark of their own, ``convolutions.py``.  Layers of one type and shape are measured once.  The
wait for the result is counted.  PyTorch computes the same layer by its own functions and its automatic gradients; what
it keeps for the gradient is its affair, as what ours keep is ours.

The limit is the bandwidth of the device: each bottom and top, and in the backward pass each of their gradients, read
or written once.

Run: python benchmarks/layers.py [--rounds 7] [--csv FILE] [--plot FILE] [NETWORK ...]
Needs PyTorch (pip install torch).
"""

from __future__ import annotations

import argparse
import platform
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from roofline import measure
from torch_net import TorchNet
from train import NETWORKS, definition
from turns import compare, ratio, spread, write_csv

import barista
from barista.compose import make_ops
from barista.net import Net
from barista.ops.cpu.threads import available_cores
from barista.ops.opencl import OpenCLOps

Call = Callable[[], object]
# What has nothing to compute, or stands elsewhere.
LEFT_OUT = ("Input", "Split", "Convolution", "Accuracy")
BACKENDS = ("opencl", "cpu")


def filled(name: str, backend: str) -> Net:
    """The training network with a batch in it, after one step."""
    batch, shape, classes, _ = NETWORKS[name]
    net = Net(definition(name), barista.TRAIN, ops=make_ops(backend))
    rng = np.random.default_rng(0)
    net.blobs["data"].data[...] = rng.normal(size=(batch, *shape))
    net.blobs["label"].data[...] = rng.integers(0, classes, batch)
    net.forward_pass()
    net.backward_pass()
    return net


def ours(net: Net, index: int) -> tuple[Call, Call]:
    """Forward and backward of one layer of ours."""
    def forward() -> None:
        net.forward_pass(index, index)
        net.ops.finish()

    def backward() -> None:
        net.backward_pass(index, index)
        net.ops.finish()

    return forward, backward


def theirs(net: Net, module: TorchNet, index: int) -> tuple[Call, Call]:
    """Forward and backward of the same layer in PyTorch."""
    param = net.layers[index].param
    rng = np.random.default_rng(1)
    bottoms = [torch.from_numpy(rng.normal(size=net.blobs[name].shape).astype(np.float32)).requires_grad_()
               for name in param.bottom]
    if param.type == "SoftmaxWithLoss":
        classes = net.blobs[param.bottom[0]].shape[1]
        labels = torch.from_numpy(rng.integers(0, classes, net.blobs[param.bottom[1]].shape))

        def forward() -> Any:
            return torch.nn.functional.cross_entropy(bottoms[0], labels)
        bottoms = bottoms[:1]
    else:
        def forward() -> Any:
            # In place as a layer may be, but not on what the gradient is taken by.
            return module.run_layer(param, [bottom * 1 for bottom in bottoms] if in_place else bottoms)[0]
        in_place = param.bottom[0] == param.top[0] and param.type == "ReLU"
    result = forward()
    gradient = torch.ones_like(result)
    wanted = [*bottoms, *(module.parts[key].parameters() if (key := param.name.replace(".", "_")) in module.parts
                          else ())]

    def run() -> None:
        with torch.no_grad():
            forward()

    return run, lambda: torch.autograd.grad(result, wanted, gradient, retain_graph=True)


def main() -> None:
    """Print a table, write it as CSV and draw it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(available_cores())
    opencl = make_ops("opencl")
    assert isinstance(opencl, OpenCLOps)
    limit = measure(opencl.context)
    print(f"Barista {barista.__version__}, {opencl.describe()}; PyTorch {torch.__version__}; Python "
          f"{platform.python_version()}, {platform.machine()}; limit {limit.bandwidth / 1e9:.0f} GB/s")
    print(f"{'network':18} {'layer':28} {'pass':8} {'opencl ms (quartiles)':>26} {'of the limit':>12} "
          f"{'cpu/opencl':>22} {'pytorch/opencl':>22}")
    rows = []
    for name in options.networks:
        nets = {backend: filled(name, backend) for backend in BACKENDS}
        module = TorchNet(nets["cpu"]).train()
        seen = set()
        for index, layer in enumerate(nets["opencl"].layers):
            blobs = [nets["opencl"].blobs[n] for n in [*layer.param.bottom, *layer.param.top]]
            key = (layer.type, *(blob.shape for blob in blobs))
            if layer.type in LEFT_OUT or key in seen:
                continue
            seen.add(key)
            passes = {backend: ours(net, index) for backend, net in nets.items()}
            passes["pytorch"] = theirs(nets["opencl"], module, index)
            moved = 4 * (sum(blob.count for blob in blobs) + sum(p.count for p in layer.blobs))
            for which, text in enumerate(("forward", "backward")):
                times = compare({key: calls[which] for key, calls in passes.items()}, options.rounds, turn_s=0.01)
                median, least = statistics.median(times["opencl"]), moved * (1 + which) / limit.bandwidth
                cells = [ratio(times[other], times["opencl"]) for other in ("cpu", "pytorch")]
                print(f"{name:18} {f'{layer.name} ({layer.type})':28} {text:8} {spread(times['opencl']):>26} "
                      f"{least / median:12.0%} "
                      + " ".join(f"{f'{middle:.2f} ({low:.2f} to {high:.2f})':>22}" for low, middle, high in cells),
                      flush=True)
                rows.append({"network": name, "layer": layer.name, "type": layer.type, "pass": text,
                             "limit_ms": least * 1e3,
                             **{f"{key}_ms": statistics.median(values) * 1e3 for key, values in times.items()},
                             "cpu_over_opencl": cells[0][1], "pytorch_over_opencl": cells[1][1]})
    if options.csv:
        write_csv(options.csv, rows)
    if options.plot:
        plot(rows, options.plot)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Bars of PyTorch's time over OpenCL's, a row for each layer and pass."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.5 + 0.2 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(range(len(rows)), [row["pytorch_over_opencl"] for row in rows])
    axes.set_yticks(range(len(rows)), [f"{row['network']} {row['layer']} {row['pass']}" for row in rows], size=6)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("PyTorch's time over OpenCL's")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
