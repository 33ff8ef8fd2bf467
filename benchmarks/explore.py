"""How long explorations take, and how much better few designs are than those of the thesis's heuristic.

The latency and the memory of one convolution on all 12,424 sizes of FPGPT's array; then every network that ships on
both arrays: the table, the heuristic at all its limits, and the search, each with its seconds.

Run: python benchmarks/explore.py [--counts 1 2 4 8] [--kinds gemm conv] [NETWORK ...]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

from barista.cli.arguments import Parser
from barista.cli.planning import add_planning, net_workloads, open_planning_net
from barista.errors import UnsupportedError
from barista.hardware.board import load_board
from barista.latency.conv_model import ConvAssumptions, conv_latency
from barista.latency.gemm_model import GemmAssumptions
from barista.latency.networks import network_workloads
from barista.latency.resources import conv_blocks
from barista.latency.workload import Workload
from barista.resources import find
from barista.schedule.explore import Explorer, Space, conv_space, gemm_space
from barista.schedule.merge import LIMITS
from barista.schedule.rows import rows_of
from barista.schedule.space import Grid, Limits

BOARD = load_board("u250")
IMAGES = {"lenet": "1,28,28", "cifar10_quick": "3,32,32", "cifar10_full": "3,32,32", "resnet20_cifar10": "3,32,32",
          "alexnet": "3,227,227", "squeezenet_1_1": "3,227,227", "googlenet": "3,224,224", "vgg16": "3,224,224"}
RUNS = 5


def workloads_of(network: str) -> list[Workload]:
    """The passes of a network that ships, at its own batch size."""
    parser = Parser("explore", "", "")
    add_planning(parser)
    model = str(find("prototxt", network, "train_val.prototxt"))
    return net_workloads(open_planning_net(parser.read(["--model", model, "--input-shape", IMAGES[network]])))


def seconds_of(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def space_of(workloads: list[Workload], kind: str) -> Space:
    """The space of a kind of array on its default grid and limits; for gemm, transfers and products of the thesis."""
    rows, points = rows_of(workloads), Grid.parse(kind).points()
    if kind == "gemm":
        return gemm_space(rows, points, Limits.of(BOARD, "card"), GemmAssumptions.of(BOARD), 9, products="image")
    return conv_space(rows, points, Limits.of(BOARD, "region"), ConvAssumptions.of(BOARD), 9)


def one_layer() -> None:
    """The 12,424 sizes for the reduction before the 5x5 convolution of inception 3b, pass by pass."""
    x, y = Grid.parse("conv").points().T
    assumptions = ConvAssumptions.of(BOARD)

    def evaluate(workload: Workload) -> None:
        conv_latency(workload.geometry, workload.pass_, x, y, assumptions)
        conv_blocks(workload.geometry, workload.pass_, x, y, assumptions)

    for workload in network_workloads("googlenet", 256):
        if workload.layer == "inception_3b/5x5_reduce":
            seconds = statistics.median(seconds_of(partial(evaluate, workload)) for _ in range(RUNS))
            print(f"{workload.name}: latency and memory of {len(x):,} designs in {1e3 * seconds:.1f} ms")


def explore(network: str, kind: str, counts: list[int]) -> None:
    """One network on one array."""
    workloads = workloads_of(network)
    start = time.perf_counter()
    space = space_of(workloads, kind)
    table_s = time.perf_counter() - start
    explorer = Explorer(space)
    rows, columns = space.table.costs.shape
    print(f"{network} {kind}: {len(workloads)} passes, {rows} different, {columns:,} designs: table {table_s:.2f} s")
    own = explorer.own
    print(f"  {len(own.groups):3} designs  each its own: {1e3 * own.cost:12,.1f} ms")
    for count in counts:
        start = time.perf_counter()
        try:
            choice = explorer.best_set(count)
        except UnsupportedError as error:
            print(f"  {count:3} designs  {str(error).partition(',')[0]}")
            continue
        seconds = time.perf_counter() - start
        ours, thesis = choice.found, choice.thesis
        said = "none" if thesis is None else (f"{1e3 * thesis.cost:12,.1f} ms with {len(thesis.groups)}, ours "
                                              f"{1 - ours.grouping.cost / thesis.cost:6.1%} less")
        first = f" with the heuristic's {len(LIMITS)} limits" if count == counts[0] else ""
        print(f"  {count:3} designs  ours {1e3 * ours.grouping.cost:12,.1f} ms, at most {ours.gap:6.2%} above the "
              f"best; thesis {said}; {seconds:.2f} s{first}")
    for limit in (0.0, 0.1, 0.5):
        start = time.perf_counter()
        choice = explorer.within(limit)
        seconds = time.perf_counter() - start
        assert choice.thesis is not None
        print(f"  penalty of {limit:4.0%}: ours {len(choice.found.grouping.groups):3} designs, "
              f"{1e3 * choice.found.grouping.cost:12,.1f} ms; thesis {len(choice.thesis.groups):3}, "
              f"{1e3 * choice.thesis.cost:12,.1f} ms; {seconds:.2f} s")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", default=list(IMAGES))
    parser.add_argument("--counts", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--kinds", nargs="+", choices=("gemm", "conv"), default=["gemm", "conv"])
    args = parser.parse_args()
    one_layer()
    for network in args.networks:
        for kind in args.kinds:
            explore(network, kind, args.counts)


if __name__ == "__main__":
    main()
