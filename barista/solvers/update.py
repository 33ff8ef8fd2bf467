"""The update of all parameters: clip, scale, regularise and apply a rule, in one pass over each."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from ..blob import Tensor
from ..net import Learnable
from ..ops.base import ElementwiseGroup, OpSet
from ..proto.caffe_pb2 import SolverParameter
from .rules import make_rule, program

log = logging.getLogger(__name__)

# Parameters that are updated alike: lr_mult, decay_mult, and whether their gradients stand for zeros.
Likeness = tuple[float, float, bool]


class Update:
    """Changes parameters by their gradients.

    Attributes
    ----------
    history : what the rule remembers, in the order of Caffe's solverstate: the first moments of all
        parameters, then the second moments of all
    names : of which parameter each of them is, for messages
    """

    def __init__(self, learnable: Sequence[Learnable], param: SolverParameter, ops: OpSet) -> None:
        self._param = param
        self._ops = ops
        self._learnable = list(learnable)
        self._rule = make_rule(param)
        moments = range(self._rule.moments)
        self.history = [Tensor(item.blob.shape, item.blob.dtype) for _ in moments for item in self._learnable]
        self.names = [item.name for _ in moments for item in self._learnable]
        self._tensors = []
        for index, item in enumerate(self._learnable):
            remembered = self.history[index::len(self._learnable)]
            self._tensors.append({"w": item.blob.value, "g": item.blob.grad,
                                  **dict(zip(("h", "h2"), remembered, strict=False))})
        self._scaled = param.iter_size > 1 or param.clip_gradients >= 0
        self._groups: dict[tuple[Likeness, tuple[int, ...]], ElementwiseGroup] = {}

    def run(self, rate: float, iteration: int) -> None:
        """Update all parameters.

        Parameters
        ----------
        rate : the solver's learning rate
        iteration : counted from 0; Adam corrects its moments by it
        """
        scalars = self._rule.scalars(self._param, iteration)
        if self._scaled:
            # Caffe: clips the sum over iter_size batches, then divides it.
            scalars["scale"] = self._clip() / self._param.iter_size
        alike: dict[Likeness, list[int]] = {}
        for index, item in enumerate(self._learnable):
            zero = item.blob.grad.memory.is_zero
            if zero and item.lr_mult == 0 and self._rule.rests and self._tensors[index]["h"].memory.is_zero:
                continue  # a fixed parameter, such as the sums of BatchNorm
            likeness = (item.lr_mult, item.decay_mult, zero)
            alike.setdefault(likeness, []).append(index)
        for likeness, members in alike.items():
            lr_mult, decay_mult, _ = likeness
            self._group(likeness, tuple(members)).run([self._tensors[index] for index in members], **scalars,
                                                      rate=rate * lr_mult, decay=self._param.weight_decay * decay_mult)

    def _group(self, likeness: Likeness, members: tuple[int, ...]) -> ElementwiseGroup:
        """The program of parameters that are updated alike, made when it is first wanted."""
        group = self._groups.get((likeness, members))
        if group is None:
            _, decay_mult, zero = likeness
            decayed = self._param.weight_decay * decay_mult != 0
            source = program(self._rule, self._param.regularization_type if decayed else None, self._scaled, zero)
            group = self._groups[likeness, members] = self._ops.elementwise_group(
                source, ("w", "g", "h", "h2")[:2 + self._rule.moments],
                [self._learnable[index].blob.count for index in members])
        return group

    def _clip(self) -> float:
        """The factor that brings the gradients of all parameters together to the norm allowed."""
        limit = self._param.clip_gradients
        if limit < 0:
            return 1.0
        norm = math.sqrt(self._ops.sum_squares([item.blob.grad for item in self._learnable]))
        if not norm > limit:
            return 1.0
        log.info("Gradient clipping: scaling down gradients (L2 norm %g > %g) by scale factor %g",
                 norm, limit, limit / norm)
        return limit / norm
