"""What convolutions do to one another on one design of FPGPT's array: the design is built for the largest of them.

Its line buffer, and with it every read of INP, is as long as the longest needs; so is every read of KERN in
grad_weight (thesis, sections 5.3.6, A.1.1 and A.2).  Each memory takes the blocks of the most demanding one; a design
for both kinds of passes has KERN's and OUT's memories of both.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from ..errors import UnsupportedError
from ..gemm.shapes import ConvolutionGeometry, Pass
from ..latency.conv_model import BINDING, Compiled, ConvAssumptions, conv_latency
from ..latency.conv_roles import conv_roles
from ..latency.resources import BRAM18, URAM, conv_blocks, inp_blocks
from ..latency.workload import Workload
from .rows import Row
from .space import Limits
from .table import Floats, Integers

# A convolution of one word: its one read of INP takes what a read of any compiled length takes.
_PROBE = ConvolutionGeometry(1, 1, 1, (1, 1), (1, 1), (1, 1), (0, 0), (1, 1))


@dataclasses.dataclass(frozen=True)
class _Alone:
    """One workload on all columns, built for it alone.

    Parameters
    ----------
    rest : cycles of the slowest component that does not depend on others
    inp_reads, kern_reads : how often INP and KERN are read; 0 for KERN where it does not depend on others
    z, z_channel : words of INP at hand at once, and read at once
    kern_words, kern_read : words of KERN read at once, and the cycles of it
    kern, out : blocks of the two memories, (kinds of block, columns)
    transfers_s, launch_s : what goes before and after the kernel
    """

    rest: Integers
    inp_reads: Integers
    kern_reads: int
    z: Integers
    z_channel: Integers
    kern_words: int
    kern_read: int
    kern: Integers
    out: Integers
    transfers_s: float
    launch_s: float


class ConvSharing:
    """Costs of rows on designs that are built for all of them; see `table.Sharing`.

    INP's construction is counted as if each convolution had its own line buffer: a longer one is never slower where
    it counts, and costs stay what they are alone, or more.

    Parameters
    ----------
    rows : what runs
    points : (columns, 2), X and Y
    assumptions : of the latency model
    limits : what memories may take
    factor : cost of a second
    done : called after each workload

    Raises
    ------
    UnsupportedError : the equations as printed, under which INP's construction depends on the line buffer
    """

    def __init__(self, rows: Sequence[Row], points: Integers, assumptions: ConvAssumptions, limits: Limits,
                 factor: float = 1.0, done: Callable[[], object] = lambda: None) -> None:
        if assumptions.reading != "corrected":
            raise UnsupportedError(f"exploration: reading {assumptions.reading!r} says nothing of designs that several "
                                   "convolutions share; explore with 'corrected'")
        self._points, self._assumptions, self._limits, self._factor = points, assumptions, limits, factor
        longest = max(math.prod(conv_roles(part.geometry, part.pass_).inp) for row in rows for part in row.workloads)
        self._inp_read = np.concatenate([[0], read_cycles(np.arange(1, longest + 1), assumptions)])
        self._sums_up = np.array([part.pass_ is Pass.GRAD_WEIGHT for row in rows for part in row.workloads])
        found = []
        for row in rows:
            for part in row.workloads:
                found.append(self._alone(part))
                done()
        sizes = [len(row.workloads) for row in rows]
        self._parts = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
        self._rest, self._inp_reads, self._z, self._z_channel, self._kern, self._out = (
            np.stack([getattr(alone, name) for alone in found])
            for name in ("rest", "inp_reads", "z", "z_channel", "kern", "out"))
        self._kern_reads, self._kern_words, self._kern_read, self._transfers_s, self._launch_s = (
            np.array([getattr(alone, name) for alone in found])
            for name in ("kern_reads", "kern_words", "kern_read", "transfers_s", "launch_s"))

    def only(self, rows: Iterable[int]) -> ConvSharing:
        """The same for some of the rows, numbered anew."""
        found = copy.copy(self)
        found._parts = [self._parts[row] for row in rows]
        return found

    def costs(self, members: Sequence[int], columns: slice | Integers) -> Floats:
        """Costs (members, columns); infinite where memories do not fit."""
        sizes = [len(self._parts[row]) for row in members]
        parts = np.concatenate([self._parts[row] for row in members])
        at = (parts, columns) if isinstance(columns, slice) else (parts[:, None], columns)
        z, z_channel = self._z[at].max(axis=0), self._z_channel[at].max(axis=0)
        cycles = np.maximum(self._rest[at], self._inp_reads[at] * self._inp_read[z_channel])
        kern = self._kern_reads[parts] * self._kern_read[parts[self._kern_words[parts].argmax()]]
        cycles = np.maximum(cycles, kern[:, None])
        kernel_s, around_s = cycles / self._assumptions.clock_hz, self._transfers_s[parts][:, None]
        seconds = np.maximum(kernel_s, around_s) if self._assumptions.overlap else kernel_s + around_s
        costs = np.add.reduceat(seconds + self._launch_s[parts][:, None], np.cumsum([0, *sizes[:-1]]), axis=0)
        return np.where(self._fit(parts, z, z_channel, columns), self._factor * costs, np.inf)

    def _fit(self, parts: Integers, z: Integers, z_channel: Integers,
             columns: slice | Integers) -> npt.NDArray[np.bool_]:
        """Whether the memories fit, for each of the columns."""
        memories = [np.stack([inp_blocks(z, z_channel, self._assumptions, ram) for ram in (BRAM18, URAM)])]
        for blocks in (self._kern, self._out):
            memories.append(sum((blocks[some][:, :, columns].max(axis=0)
                                 for some in (parts[self._sums_up[parts]], parts[~self._sums_up[parts]]) if some.size),
                                np.zeros((2, 1), np.int64)))
        return self._limits.hold(*([memory[kind] for memory in memories] for kind in (0, 1)))

    def _alone(self, part: Workload) -> _Alone:
        x, y = self._points.T
        found = conv_latency(part.geometry, part.pass_, x, y, self._assumptions)
        blocks = [conv_blocks(part.geometry, part.pass_, x, y, self._assumptions, ram) for ram in (BRAM18, URAM)]
        sums_up, words = part.pass_ is Pass.GRAD_WEIGHT, conv_roles(part.geometry, part.pass_).kern_words
        others = [name for name in BINDING if name != "inp_ddr" and not (name == "kern_ddr" and sums_up)]
        kern_read = int(read_cycles(np.array([words]), self._assumptions)[0])
        return _Alone(
            np.max(np.stack([found.components[name] for name in others]), axis=0),
            found.components["inp_ddr"] // self._inp_read[found.z_channel],
            int(found.components["kern_ddr"].flat[0]) // kern_read if sums_up else 0,
            found.z, found.z_channel, words if sums_up else 0, kern_read,
            np.stack([kind.kern for kind in blocks]), np.stack([kind.out for kind in blocks]),
            float(found.host_to_device_s.flat[0] + found.device_to_host_s.flat[0]), float(found.launch_s.flat[0]))


def read_cycles(words: Integers, assumptions: ConvAssumptions) -> Integers:
    """Cycles of one read of so many words, as the latency model has them."""
    one = np.ones_like(words)
    found = conv_latency(_PROBE, Pass.FORWARD, one, one, assumptions, Compiled(z_channel=words))
    return np.asarray(found.components["inp_ddr"])
