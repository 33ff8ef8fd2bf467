"""``barista summary``: what a network is made of, and what memory a batch needs, before anything runs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from ..frontends.prototxt import read_solver
from ..net import Net
from ..proto.caffe_pb2 import TRAIN
from ..solvers.rules import make_rule
from .arguments import Parser, add_compute
from .compute import open_ops
from .memory import Memory, batch_size, held_by_layers, memory_of, mib
from .operations import operations
from .planning import add_planning, open_for_shapes, planning_definition

DESCRIPTION = """Show a network as a table: the shapes, parameters, multiply-accumulates and memory of each layer, and
what a batch needs of memory in all, on the backend that would compute. Nothing is computed or measured; with
--input-shape no database is opened either."""

EXAMPLES = """  barista summary --model train_val.prototxt
  barista summary --model train_val.prototxt --input-shape 3,227,227 --batch 64 --solver solver.prototxt
  barista summary --model train_val.prototxt --backend opencl
  barista summary --model train_val.prototxt --phase TEST"""

COLUMNS = ("layer", "type", "output", "parameters", "MMAC", "step MMAC", "MiB", "workspace MiB")


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    add_planning(parser, phase=None)
    parser.add_argument("--solver", default=None, metavar="FILE",
                        help="the solver (prototxt), whose history then counts as memory too; its solver_mode "
                             "decides on the backend where --backend does not")
    add_compute(parser)


def run(args: argparse.Namespace) -> None:
    """Print the table of one network."""
    solver = None if args.solver is None else read_solver(args.solver,
                                                          ignore_unknown_fields=args.ignore_unknown_fields)
    definition = planning_definition(args)
    # Read before --input-shape makes Input layers of those that read images.
    types = {layer.name: layer.type for layer in definition.layer}
    net = open_for_shapes(args, definition, open_ops(args, "caffe.cpp:197", solver, measure=False))
    if args.phase is None and net.phase != TRAIN:
        print("A deploy net (inputs and no loss): counted in the phase TEST; --phase TRAIN counts gradients too.\n")
    held = held_by_layers(net)
    print(table([COLUMNS, *(row(net, index, held, types) for index in range(len(net.layers)))]))
    print()
    print("\n".join(totals(net, memory_of(net, 0 if solver is None else make_rule(solver).moments))))


def row(net: Net, index: int, held: Mapping[str, int], types: Mapping[str, str]) -> tuple[str, ...]:
    """A layer's cells; what lies on other blobs' memory (in place, Split, Flatten) takes none.

    Parameters
    ----------
    held : what layers and their primitives hold, by name
    types : of the layers as the file has them, by name
    """
    layer = net.layers[index]
    names = net.uses()[index].tops
    tops = [net.blobs[name] for name in names]
    own = {name: net.blobs[name].count for name in names if name not in layer.param.bottom}
    count = 0 if layer.shares_value else sum(own.values())
    learnt = sum(blob.count for blob in layer.blobs)
    forward, step = operations(net, index)
    return (layer.name, types.get(layer.name, layer.type),
            " ".join(" x ".join(map(str, blob.shape)) or "1" for blob in tops[:1]) +
            (f" (and {len(tops) - 1} more)" if len(tops) > 1 else ""),
            f"{learnt:,}" if learnt else "", mega(forward) if forward else "",
            mega(step) if forward and net.phase == TRAIN else "",
            mib(count * net.ops.dtype.itemsize) if count else "", mib(held[layer.name]) if held[layer.name] else "")


def mega(number: int) -> str:
    """Operations in millions."""
    return f"{number / 1e6:,.2f}"


def totals(net: Net, memory: Memory) -> list[str]:
    """The lines below the table."""
    learnt = sum(item.blob.count for item in net.learnable)
    forward, step = (sum(counts) for counts in zip(*(operations(net, index) for index in range(len(net.layers))),
                                                   strict=True))
    batch = batch_size(net)
    lines = [("parameters", f"{learnt:,} ({mib(memory.parameters)} MiB)"),
             ("forward pass", f"{mega(forward)} MMAC")]
    if net.phase == TRAIN:
        lines.append(("step of training", f"{mega(step)} MMAC, forward and backward"))
    if memory.parameter_gradients:
        lines.append(("gradients of parameters", f"{mib(memory.parameter_gradients)} MiB"))
    if memory.history:
        lines.append(("history of the solver", f"{mib(memory.history)} MiB"))
    lines += [("blobs", f"{mib(memory.values)} MiB of values" + (
                  f", {mib(memory.gradients)} MiB of gradients" if memory.gradients else "")),
              ("blobs that take turns", f"save {mib(memory.saved)} MiB of these in barista train and test"),
              (f"workspace on {net.ops.name}", f"{mib(memory.held)} MiB that layers hold, and {mib(memory.shared)} MiB "
                                               "that they use in turn"),
              (f"a batch{'' if batch is None else f' of {batch}'} needs", f"{mib(memory.total)} MiB")]
    width = max(len(name) for name, _ in lines)
    return [f"{name:<{width}}  {text}" for name, text in lines]


def table(rows: list[tuple[str, ...]]) -> str:
    """Aligned columns, words to the left and numbers to the right, a line under the names; none that is empty."""
    kept = [column for column in range(len(COLUMNS)) if any(row[column] for row in rows[1:])]
    widths = {column: max(len(row[column]) for row in rows) for column in kept}
    lines = ["  ".join(row[column].ljust(width) if column < 3 else row[column].rjust(width)
                       for column, width in widths.items()).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
