"""What each layer and pass spends in which stage: tiling, transfers, kernels, untiling (thesis, Fig. 4.5)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from ..net import Net
from ..ops.base import StageSeconds

# Order of the columns. `processor` is a whole pass there, or what it does beside a device: enqueuing, waiting.
ORDER = ("loading", "im2col", "tiling", "write", "kernel", "read", "untiling", "processor")
TITLES = {"write": "host to device", "read": "device to host"}
# What a layer does in one direction beside the passes that its op set measures.
REST = {"forward": "forward rest", "backward": "backward rest"}


class Stages:
    """Times layers of a net, pass by pass, and what they spend in which stage.

    Where the op set measures its stages itself, these count, and what the layer does beside them (biases, copies) has
    a row of its own on the processor, so that a layer's rows add up to its time.  On another device the stages are what
    its queue spent copying to it and from it and in kernels; on the processor there is one.
    """

    def __init__(self, net: Net) -> None:
        self._net = net
        self._seconds: StageSeconds = {}
        net.ops.measure()
        self._take()  # what came before does not count

    def timed_ms(self, run_layers: Callable[[int, int], None], layer: int, direction: str,
                 last: int) -> float:
        """Milliseconds that one pass of one layer takes, its end waited for.

        Parameters
        ----------
        run_layers : the net's forward_pass or backward_pass
        layer : which one
        direction : ``forward`` or ``backward``
        last : the last layer that runs with it, which has no row of its own
        """
        ops = self._net.ops
        start = time.perf_counter()
        run_layers(layer, last)
        ops.finish()
        lapse_s = time.perf_counter() - start
        measured, queue = self._take()
        measured_s = sum(seconds for stages in measured.values() for seconds in stages.values())
        row = (self._net.layer_names[layer], REST[direction] if measured else direction)
        measured[row] = {**queue, "processor": max(lapse_s - measured_s - sum(queue.values()), 0.0)}
        for key, stages in measured.items():
            total = self._seconds.setdefault(key, {})
            for stage, seconds in stages.items():
                total[stage] = total.get(stage, 0.0) + seconds
        return 1e3 * lapse_s

    def _take(self) -> tuple[StageSeconds, dict[str, float]]:
        return self._net.ops.take_stages(), self._net.ops.take_queue()

    def average(self, iterations: int) -> StageSeconds:
        """Seconds of one of `iterations`, layers in the net's order and passes in that of running."""
        order = {name: index for index, name in enumerate(self._net.layer_names)}
        return {key: {stage: seconds / iterations for stage, seconds in self._seconds[key].items()}
                for key in sorted(self._seconds, key=lambda key: order.get(key[0], len(order)))}


def table(stages: StageSeconds) -> Iterator[str]:
    """The stages in milliseconds, a line for each layer and pass, aligned; then each stage's total and its share."""
    columns = present(stages)
    totals = {stage: sum(seconds.get(stage, 0.0) for seconds in stages.values()) for stage in columns}
    whole_s = sum(totals.values())
    rows = [["layer", "pass", *(TITLES.get(stage, stage) for stage in columns), "sum"]]
    rows += [[layer, pass_, *(f"{1e3 * seconds.get(stage, 0.0):.4g}" if stage in seconds else "-"
                              for stage in columns), f"{1e3 * sum(seconds.values()):.4g}"]
             for (layer, pass_), seconds in [*stages.items(), (("total", ""), totals)]]
    rows.append(["share", "", *(f"{100 * seconds / whole_s if whole_s else 0:.1f} %"
                                for seconds in [*totals.values(), whole_s])])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    yield "Average time of each layer and pass by stage, in ms (stages that overlap are each counted in full):"
    for row in rows:
        yield "  ".join(cell.ljust(width) if column < 2 else cell.rjust(width)
                        for column, (cell, width) in enumerate(zip(row, widths, strict=True)))


def present(stages: StageSeconds) -> list[str]:
    """The stages that occur, in order."""
    found = {stage for seconds in stages.values() for stage in seconds}
    return [stage for stage in ORDER if stage in found]
