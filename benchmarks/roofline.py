"""The roofline of an OpenCL device: how many multiply-adds and how many bytes a second it can do at most.

Both are measured by kernels of ours (``roofline.cl``): multiply-adds in registers with nothing to wait for, the best
of several widths, and a copy of an array far larger than the caches, read and written bytes counted.

Run: python benchmarks/roofline.py [--device NAME]
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from barista.ops.opencl.tuning import AVX512_FLAGS
from barista.runtime.context import Context
from barista.runtime.kernel import Kernel
from barista.runtime.programs import Source
from barista.runtime.space import OpenCLSpace

ROUNDS = 9
# Work of one measurement: long enough to hide the launch.
MULTIPLY_ADDS = 2e9
COPIED_BYTES = 256 << 20
RUN = 1 << 16  # elements that a work-item copies


@dataclasses.dataclass(frozen=True)
class Roofline:
    """What a device can do at most.

    Attributes
    ----------
    flops : multiplications and additions a second
    bandwidth : bytes a second, read and written ones together
    """

    flops: float
    bandwidth: float

    def least_seconds(self, flops: float, nbytes: float) -> float:
        """Seconds below which work of so many operations and bytes cannot be done."""
        return max(flops / self.flops, nbytes / self.bandwidth)


def measure(context: Context) -> Roofline:
    """Measure the device of a context, in about two seconds."""
    return Roofline(max(_flops(context, vector, sums, avx512) for vector, sums, avx512 in _widths(context)),
                    max(_bandwidth(context, streamed) for streamed in _stores(context)))


def _stores(context: Context) -> tuple[int, ...]:
    """Kinds of stores worth trying: through the caches, and on a CPU past them."""
    return (0, 1) if context.is_cpu else (0,)


def _widths(context: Context) -> list[tuple[int, int, int]]:
    """(elements of a vector, sums side by side, whether AVX-512) worth trying."""
    widths = [(4, 8, 0), (8, 12, 0)]
    return widths + [(16, 12, 1), (16, 24, 1)] if context.processor_flags >= AVX512_FLAGS else widths


def _kernel(context: Context, name: str, signature: str, macros: dict[str, object], heavy: bool) -> Kernel:
    source = Path(__file__).with_name("roofline.cl").read_text(encoding="utf-8")
    return Kernel(context, Source.of("roofline.cl", source, macros), name, signature,
                  np.dtype(np.float32), heavy)


def _flops(context: Context, vector: int, sums: int, avx512: int) -> float:
    macros: dict[str, object] = {"VECTOR": vector, "SUMS": sums, "AVX512": avx512}
    kernel = _kernel(context, "peak", "bri", macros, heavy=True)
    items = context.device.max_compute_units * (4 if context.is_cpu else 1024)
    rounds = max(1, round(MULTIPLY_ADDS / (items * vector * sums)))
    result = OpenCLSpace(context).allocate(items, np.dtype(np.float32))
    return 2.0 * items * rounds * sums * vector / _seconds(context, lambda: kernel.run(items, result, 0.0, rounds))


def _bandwidth(context: Context, streamed: int) -> float:
    kernel = _kernel(context, "copy", "bbi", {"STREAMED": streamed}, heavy=True)
    space, count = OpenCLSpace(context), COPIED_BYTES // 4
    source, target = (space.allocate(count, np.dtype(np.float32)) for _ in range(2))
    space.zero(source)
    return 2.0 * COPIED_BYTES / _seconds(context, lambda: kernel.run(count // RUN, source, target, RUN))


def _seconds(context: Context, run: Callable[[], None]) -> float:
    """Seconds of the fastest call, the wait for the device included: what else a machine does is no limit of it."""
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        run()
        context.finish()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def main() -> None:
    """Print the limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", help="which OpenCL device: a number or a part of its name")
    options = parser.parse_args()
    context = Context(options.device)
    print(context.describe())
    for vector, sums, avx512 in _widths(context):
        print(f"{_flops(context, vector, sums, avx512) / 1e9:7.1f} GFLOP/s  {sums} sums of {vector} floats"
              f"{', AVX-512' if avx512 else ''}")
    for streamed in _stores(context):
        print(f"{_bandwidth(context, streamed) / 1e9:7.1f} GB/s     copy of {COPIED_BYTES >> 20} MiB, read and written "
              f"bytes{', stores past the caches' if streamed else ''}")


if __name__ == "__main__":
    main()
