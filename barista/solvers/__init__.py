"""Solvers: `get_solver` makes one of a prototxt file or message, `Solver` trains."""

from __future__ import annotations

import os
from typing import Any

from ..ops.base import OpSet
from ..proto.caffe_pb2 import SolverParameter
from .actions import Action, SignalHandler
from .definition import read_definition
from .rate import LearningRate
from .solver import Solver

__all__ = ["Action", "AdaDeltaSolver", "AdaGradSolver", "AdamSolver", "LearningRate", "NesterovSolver",
           "RMSPropSolver", "SGDSolver", "SignalHandler", "Solver", "get_solver"]


class SGDSolver(Solver):
    """Stochastic gradient descent with momentum, whatever the field type says."""

    type = "SGD"


class NesterovSolver(Solver):
    """Nesterov's accelerated gradient, whatever the field type says."""

    type = "Nesterov"


class AdaGradSolver(Solver):
    """AdaGrad, whatever the field type says."""

    type = "AdaGrad"


class RMSPropSolver(Solver):
    """RMSProp, whatever the field type says."""

    type = "RMSProp"


class AdaDeltaSolver(Solver):
    """AdaDelta, whatever the field type says."""

    type = "AdaDelta"


class AdamSolver(Solver):
    """Adam, whatever the field type says."""

    type = "Adam"


CLASSES: dict[str, type[Solver]] = {
    "SGD": SGDSolver, "Nesterov": NesterovSolver, "AdaGrad": AdaGradSolver, "RMSProp": RMSPropSolver,
    "AdaDelta": AdaDeltaSolver, "Adam": AdamSolver}


def get_solver(param: SolverParameter | str | os.PathLike[str], *, ops: OpSet | None = None,
               ignore_unknown_fields: bool = False, folder: str | None = None, plan_memory: bool = False,
               **overrides: Any) -> Solver:
    """Make the solver that a prototxt file or message defines, of the class that its type names (pycaffe).

    Parameters
    ----------
    param : the definition, or the path of its file
    ops : the op set of all nets; None takes that of the current mode
    ignore_unknown_fields : skip what a fork added to the files, with a warning
    folder : where files are looked for before the current folder; None takes that of the solver's file
    plan_memory : let blobs of a net take turns on memory (see `Net`)
    overrides : fields of the definition to replace, such as ``max_iter=100``; None clears one
    """
    definition, folder = read_definition(param, overrides, ignore_unknown_fields, folder)
    # `Solver` itself refuses a type that there is not.
    make = CLASSES.get(definition.type, Solver)
    return make(definition, ops=ops, ignore_unknown_fields=ignore_unknown_fields, folder=folder,
                plan_memory=plan_memory)
