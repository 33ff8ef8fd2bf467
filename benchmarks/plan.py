"""How near the selector's plan comes to the best plan that measuring everything finds.

For each network every candidate of every pass is measured on this machine (`cli.measure`: medians of runs that take
turns), and so is the loading of each bitstream.  From these times follows the best plan, and what the plan that was
made from a calibration alone would take.  Then both plans are executed: iterations of the net on the FPGA backend, in
turns, of which the convolutions count.

Run: python benchmarks/plan.py [--tiles 16,16,64 32,32,64 8,16,64] [--runs 7] [--calibration FILE] [NETWORK ...]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from barista.cli.arguments import Parser
from barista.cli.calibrate import calibrate, geometries
from barista.cli.measure import measure
from barista.cli.planning import add_planning, net_workloads, open_planning_net
from barista.compose import make_ops
from barista.gemm.tiles import TileSizes
from barista.hardware.board import EMULATED, load_board
from barista.hardware.library import Library
from barista.latency import calibration
from barista.latency.engine_model import EngineFigures
from barista.latency.workload import Workload
from barista.net import Net
from barista.ops.fpga import FpgaOps
from barista.resources import find
from barista.runtime.bitstream_build import build
from barista.runtime.context import Context
from barista.schedule.costs import CostTable, calibrated_costs
from barista.schedule.schedule import CPU, FPGA, OPENCL, Schedule
from barista.schedule.selector import Candidate, Key, Plan, evaluate, key_of, select

IMAGES = {"lenet": "1,28,28", "cifar10_full": "3,32,32", "cifar10_quick": "3,32,32", "resnet20_cifar10": "3,32,32"}
TILES = ["16,16,64", "32,32,64", "8,16,64"]


def planning_net(network: str) -> Net:
    """A network that ships, with its own batch size."""
    parser = Parser("", "", "")
    add_planning(parser)
    model = str(find("prototxt", network, "train_val.prototxt"))
    return open_planning_net(parser.read(["--model", model, "--input-shape", IMAGES[network]]))


def measured_costs(workloads: Sequence[Workload], library: Library, runs: int) -> CostTable:
    """What each pass took on each engine, and what loading took."""
    different = list({key_of(workload): workload for workload in workloads}.values())
    engines = {CPU: make_ops("cpu"), OPENCL: make_ops("opencl")}
    engines |= {name: make_ops("fpga", bitstream=str(one.path)) for name, one in library.bitstreams.items()}
    tasks = [(name, workload) for workload in different for name in engines]
    found = measure([(engines[name], workload) for name, workload in tasks], runs)
    candidates: dict[Key, list[Candidate]] = {}
    for (name, workload), one in zip(tasks, found, strict=True):
        way = Candidate(name, one.total_s) if name in (CPU, OPENCL) else Candidate(FPGA, one.total_s, name)
        candidates.setdefault(key_of(workload), []).append(way)
    loads_s = {}
    for name, ops in engines.items():
        if isinstance(ops, FpgaOps):
            loads_s[name] = statistics.median(_load_s(ops, name) for _ in range(runs))
    return CostTable(candidates, loads_s)


def _load_s(ops: FpgaOps, name: str) -> float:
    """Seconds of putting a bitstream onto the device once more."""
    ops.loader.current = ""
    before = ops.loader.load_s
    ops.loader.use(name)
    return ops.loader.load_s - before


def iterations_s(schedules: Mapping[str, Schedule], network: str, library: Library, runs: int) -> dict[str, float]:
    """Median seconds that the convolutions of an iteration take under each schedule, the iterations taking turns."""
    nets = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, schedule in schedules.items():
            path = Path(folder) / "schedule.json"
            schedule.save(path)
            ops = make_ops("fpga", bitstream=str(library.folder), schedule=str(path))
            nets[name] = Net(planning_net(network).param, 0, ops=ops)
    taken: dict[str, list[float]] = {name: [] for name in nets}
    for turn in range(runs + 1):
        for name, net in nets.items():
            lapse_s = _iteration_s(net)
            if turn:
                taken[name].append(lapse_s)
    return {name: statistics.median(lapses) for name, lapses in taken.items()}


def _iteration_s(net: Net) -> float:
    """Seconds of the convolutions of one iteration."""
    convolutions = {index for index, layer in enumerate(net.layers) if layer.param.type == "Convolution"}
    total_s = 0.0
    for run_layers, order in ((net.forward_pass, range(len(net.layers))),
                              (net.backward_pass, reversed(range(len(net.layers))))):
        for index in order:
            start = time.perf_counter()
            run_layers(index, index)
            total_s += (time.perf_counter() - start) * (index in convolutions)
    return total_s


def priced(plan: Plan, workloads: Sequence[Workload], costs: CostTable) -> float:
    """Seconds of an iteration under a plan at measured costs."""
    chosen = {}
    for choice in plan.choices:
        key = key_of(choice.workload)
        chosen[key] = next(way for way in costs.candidates[key] if way.name == choice.candidate.name)
    return evaluate(workloads, chosen, costs.reconfiguration_s).total_s


def compare(network: str, library: Library, figures: EngineFigures, runs: int) -> None:
    """Print what both plans of a network take, by the measured costs and executed."""
    net = planning_net(network)
    workloads = net_workloads(net)
    manifests = {name: one.manifest for name, one in library.bitstreams.items()}
    predicted = calibrated_costs(workloads, manifests, figures)
    plan = select(workloads, predicted.candidates, predicted.reconfiguration_s)
    costs = measured_costs(workloads, library, runs)
    best = select(workloads, costs.candidates, costs.reconfiguration_s)
    batch = workloads[0].geometry.batch
    print(f"\n{net.name}, batch {batch}")
    for ours, theirs in zip(plan.choices, best.choices, strict=True):
        ways = {way.name: way.seconds for way in costs.candidates[key_of(ours.workload)]}
        print(f"  {ours.workload.name:20} planned {ours.candidate.name} "
              f"{1e3 * ours.candidate.seconds:.3g} ms (measured {1e3 * ways[ours.candidate.name]:.3g}), "
              f"best {theirs.candidate.name} {1e3 * theirs.candidate.seconds:.3g} ms")
    ours_s = priced(plan, workloads, costs)
    print(f"  at measured costs: plan {1e3 * ours_s:.4g} ms (predicted {1e3 * plan.total_s:.4g}), "
          f"best {1e3 * best.total_s:.4g} ms: {ours_s / best.total_s:.3f} times")
    run = iterations_s({"plan": plan.schedule(net.name, batch), "best": best.schedule(net.name, batch)}, network,
                       library, 3 * runs)
    print(f"  executed: plan {1e3 * run['plan']:.4g} ms, best {1e3 * run['best']:.4g} ms: "
          f"{run['plan'] / run['best']:.3f} times")


def main() -> None:
    """Build, calibrate, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["lenet", "cifar10_full"], metavar="NETWORK")
    parser.add_argument("--tiles", nargs="+", default=TILES, metavar="TR,TC,TP")
    parser.add_argument("--runs", type=int, default=7, metavar="N", help="runs whose medians count (default 7)")
    parser.add_argument("--calibration", metavar="FILE", help="calibration to plan from (default: a new one)")
    parser.add_argument("--keep", metavar="FILE", help="where to keep the new calibration")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        context = Context()
        for tiles in args.tiles:
            build(context, folder, TileSizes.parse(tiles), "fp32", load_board(EMULATED), "fast")
        library = Library(Path(folder))
        figures = (calibration.load(args.calibration) if args.calibration
                   else calibrate(context, None, library, geometries())[0])
        if args.keep:
            calibration.save(figures, args.keep)
        for network in args.networks:
            compare(network, library, figures, args.runs)


if __name__ == "__main__":
    main()
