"""The update of all parameters: clip, scale, regularise and apply a rule, in one pass over each."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from ..blob import Tensor
from ..net import Learnable
from ..ops.base import Elementwise, OpSet
from ..proto.caffe_pb2 import SolverParameter
from .rules import make_rule, program

log = logging.getLogger(__name__)


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
        self._primitives: list[Elementwise] = []
        scaled = param.iter_size > 1 or param.clip_gradients >= 0
        for item in self._learnable:
            decayed = param.weight_decay * item.decay_mult != 0
            source = program(self._rule, param.regularization_type if decayed else None, scaled)
            tensors = ("w", "g", "h", "h2")[:2 + self._rule.moments]
            self._primitives.append(ops.elementwise(source, tensors, item.blob.count))
        self._scaled = scaled

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
        count = len(self._learnable)
        for index, (item, primitive) in enumerate(zip(self._learnable, self._primitives, strict=True)):
            tensors = {"w": item.blob.value, "g": item.blob.grad, "h": self.history[index]}
            if self._rule.moments == 2:
                tensors["h2"] = self.history[count + index]
            own = dict(scalars, rate=rate * item.lr_mult)
            decay = self._param.weight_decay * item.decay_mult
            if decay:
                own["decay"] = decay
            primitive.run(tensors, **own)

    def _clip(self) -> float:
        """The factor that brings the gradients of all parameters together to the norm allowed."""
        limit = self._param.clip_gradients
        if limit < 0:
            return 1.0
        norm = math.sqrt(sum(self._ops.sum_squares(item.blob.grad) for item in self._learnable))
        if not norm > limit:
            return 1.0
        log.info("Gradient clipping: scaling down gradients (L2 norm %g > %g) by scale factor %g",
                 norm, limit, limit / norm)
        return limit / norm
