"""Peak memory of training steps, Barista beside PyTorch on the CPU, each in a process of its own.

What counts is the peak of the resident memory over some steps of SGD with momentum, less what the process had after
its imports: libraries differ by hundreds of megabytes before anything is computed, which is shown beside it.

Run: python benchmarks/memory.py [--csv FILE] [NETWORK ...]
Needs PyTorch (pip install torch); Linux, since it reads /proc.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path

NAMES = ("lenet", "cifar10_full", "resnet20_cifar10", "alexnet", "googlenet")
CONTENDERS = ("opencl", "cpu", "pytorch")
STEPS = 3


def resident_mb(field: str) -> float:
    """A field of /proc/self/status, ``VmRSS`` (now) or ``VmHWM`` (the peak), in MB of 10^6 bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return float(line.split()[1]) * 1024 / 1e6
    raise SystemExit(f"/proc/self/status has no {field}; this script needs Linux")


def alone(contender: str, name: str) -> None:
    """Run the steps of one contender in this process and print its two figures."""
    import numpy as np
    from train import NETWORKS, barista_step, torch_step

    if contender != "pytorch":
        from barista.compose import make_ops
        make_ops(contender)  # the driver's own memory belongs to the imports
    imported = resident_mb("VmRSS")
    batch, shape, classes, _ = NETWORKS[name]
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, *shape), np.float32)
    labels = rng.integers(0, classes, batch)
    step = torch_step(name, images, labels) if contender == "pytorch" else barista_step(name, contender, images, labels)
    for _ in range(STEPS):
        step()
    print(imported, resident_mb("VmHWM"))


def main() -> None:
    """Print a table, and write it as CSV where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NAMES), metavar="NETWORK", help=", ".join(NAMES))
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--alone", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        alone(options.alone, options.networks[0])
        return
    print(f"{'network':18} {'contender':10} {'steps MB':>9} {'after imports MB':>17} {'of PyTorch':>11}")
    rows = []
    for name in options.networks:
        peaks = {}
        for contender in CONTENDERS:
            said = subprocess.run([sys.executable, __file__, "--alone", contender, name], check=True,
                                  capture_output=True, text=True).stdout.split()
            imported, peak = map(float, said[-2:])
            peaks[contender] = (imported, peak - imported)
        for contender, (imported, own) in peaks.items():
            share = own / peaks["pytorch"][1]
            print(f"{name:18} {contender:10} {own:9.0f} {imported:17.0f} {share:11.2f}", flush=True)
            rows.append([name, contender, f"{own:.1f}", f"{imported:.1f}", f"{share:.3f}"])
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["network", "contender", "steps_mb", "after_imports_mb", "of_pytorch"])
            writer.writerows(rows)


if __name__ == "__main__":
    main()
