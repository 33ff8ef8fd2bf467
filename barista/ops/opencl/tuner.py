"""Measuring which parameters of matrix products are fast on a device."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterator

from ...blob import Tensor
from ...gemm.shapes import ConvolutionGeometry, GemmShape
from .conv_unrolled import UnrolledForward, UnrolledGradInput, UnrolledGradWeight
from .device import Device
from .gemm import OpenCLGemm
from .tuning import GemmParameters, keep

# What is measured: products as (shape, trans_a, trans_b), and convolutions, whose three passes multiply too.
PRODUCTS = ((GemmShape(512, 512, 512), False, False), (GemmShape(384, 1352, 1152), False, False),
            (GemmShape(64, 4096, 576), False, False), (GemmShape(100, 500, 800), False, True),
            (GemmShape(500, 800, 100), True, False))
CONVOLUTIONS = (ConvolutionGeometry(64, 20, 50, (12, 12), (5, 5), (1, 1), (0, 0), (1, 1)),
                ConvolutionGeometry(32, 32, 32, (16, 16), (5, 5), (1, 1), (2, 2), (1, 1)),
                ConvolutionGeometry(32, 64, 64, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1)))
ROUNDS = 7
# A work is run as often as fills this time, to be longer than the clock's and the scheduler's grain.
TURN_S = 0.01
# What replaces the parameters in use must be this much faster, or chance would choose.
MARGIN = 0.97

Work = Callable[[], None]


def tune(device: Device) -> Iterator[str]:
    """Measure tiles, then chunks and strips for the fastest tile, and keep the fastest for later processes.

    Gives a line for each set of parameters: its time over that of those in use, the geometric mean over all works.
    """
    best = current = device.gemm
    yield f"in use: {current}"
    for stage in (_tiles(device), None):
        values = [best, *(stage if stage is not None else _chunks(device, best))]
        values = [value for index, value in enumerate(values) if value not in values[:index]]
        scores = _compare(device, values)
        for value, score in zip(values[1:], scores[1:], strict=True):
            yield f"{score:5.2f}  {value}"
        fastest = min(range(len(values)), key=scores.__getitem__)
        if scores[fastest] < MARGIN:
            best = values[fastest]
            yield f"faster: {best}"
    if best == current:
        yield "the parameters in use stay: nothing was faster by more than chance"
        return
    yield f"kept in {keep(device.context, device.dtype, best)}: {best}"


def _tiles(device: Device) -> list[GemmParameters]:
    """Tiles worth measuring: their sums, a row of vectors and one number fit 16 registers, or AVX-512's 32."""
    if device.context.is_cpu:
        found = [GemmParameters(rows, size, vectors, 256, 0, wide) for rows, size, vectors, wide in (
            (6, 32, 2, False), (4, 32, 3, False), (12, 64, 2, True), (8, 64, 3, True), (14, 64, 2, True),
            (6, 64, 4, True))]
        found = [dataclasses.replace(value, strip=192 // value.tile_n(device.dtype) * value.tile_n(device.dtype))
                 for value in found]
    else:
        found = [GemmParameters(rows, size, vectors, 256, 0)
                 for rows in (4, 8) for size in (16, 32) for vectors in (1, 2)]
    return [value for value in found if not value.problem(device.context, device.dtype)]


def _chunks(device: Device, best: GemmParameters) -> list[GemmParameters]:
    """Chunks and strips worth measuring for a tile."""
    tile = best.tile_n(device.dtype)
    found = [dataclasses.replace(best, chunk_k=rows, strip=max(1, columns // tile) * tile)
             for rows in (128, 256, 384) for columns in (96, 192, 256, 384)] if best.strip else []
    return [value for value in found if not value.problem(device.context, device.dtype)]


def _compare(device: Device, values: list[GemmParameters]) -> list[float]:
    """Time of each set of parameters over that of the first, which is among them."""
    devices = [Device(device.context, device.dtype, value) for value in values]
    sets = [_works(here) for here in devices]
    logarithms = [0.0] * len(values)
    for works in zip(*sets, strict=True):
        for work in works:
            work()  # builds, allocates and uploads
        device.context.finish()
        count = max(1, round(TURN_S / max(_seconds(devices[0], works[0], 1), 1e-6)))
        # The sets take turns, so that what else the machine does meets all of them.
        rounds = [[_seconds(here, work, count) for here, work in zip(devices, works, strict=True)]
                  for _ in range(ROUNDS)]
        for index in range(len(values)):
            logarithms[index] += math.log(statistics.median(times[index] / times[0] for times in rounds))
    return [math.exp(total / len(sets[0])) for total in logarithms]


def _seconds(device: Device, work: Work, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        work()
    device.context.finish()
    return (time.perf_counter() - start) / count


def _works(device: Device) -> list[Work]:
    """Everything that is measured, with the parameters of `device`."""
    works = []
    for shape, trans_a, trans_b in PRODUCTS:
        works.append(_product(OpenCLGemm(device, shape, trans_a, trans_b, packed=True), device, shape))
    for geometry in CONVOLUTIONS:
        works += _passes(device, geometry)
    return works


def _product(product: OpenCLGemm, device: Device, shape: GemmShape) -> Work:
    m, n, k = shape.m, shape.n, shape.k
    a, b, c = (Tensor((count,), device.dtype) for count in (m * k, k * n, m * n))
    return lambda: product.run(a, b, c)


def _passes(device: Device, geometry: ConvolutionGeometry) -> list[Work]:
    g, space = geometry, device.space
    x, w, y = (space.allocate(math.prod(shape), device.dtype) for shape in (g.x_shape, g.w_shape, g.y_shape))
    for array in (x, w, y):
        space.zero(array)
    forward, grad_weight = UnrolledForward(device, g), UnrolledGradWeight(device, g)
    grad_input = UnrolledGradInput(device, g)
    return [lambda: forward.run(x, w, None, y, False), lambda: grad_weight.run(x, y, w, True),
            lambda: grad_input.run(y, w, x)]
