"""An operator of a Caffe2 net, and its arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from barista.errors import NetError, UnsupportedError
from barista.proto.caffe2_pb2 import Argument, OperatorDef

# Arguments that say how to compute and not what, or that no inference reads.
WITHOUT_EFFECT = frozenset({
    "allow_broadcast_fastmath", "allow_fastmath", "algo", "cudnn_exhaustive_search", "cudnn_state", "engine",
    "exhaustive_search", "device_id", "float16_compute", "fp16_compute", "enable_tensor_core", "init_params", "inplace",
    "momentum", "num_batches", "no_bias", "quantize_groupwise", "shared_buffer", "use_cudnn", "ws_nbytes_limit",
    "__onnx_node_name"})


class Operator:
    """One operator: its type, blobs and arguments, and its name for messages.

    Parameters
    ----------
    message : as it stands in the net
    index : its place there

    Raises
    ------
    NetError : an argument is given twice, or the operator writes nothing
    """

    def __init__(self, message: OperatorDef, index: int) -> None:
        self.type = message.type
        self.inputs, self.outputs = list(message.input), list(message.output)
        self.random_seed = message.device_option.random_seed
        self.label = f"operator {message.name or next(iter(message.output), '') or index!r} ({message.type})"
        if not message.output:
            raise NetError(f"{self.label}, number {index} of its net, has no output")
        self._arguments: dict[str, Argument] = {}
        for argument in message.arg:
            if self._arguments.setdefault(argument.name, argument) != argument:
                raise NetError(f"{self.label}: the argument {argument.name!r} is given twice, with different values")
        self._read: set[str] = set()

    def error(self, why: str) -> NetError:
        """An error that names this operator."""
        return NetError(f"{self.label}: {why}")

    def unsupported(self, why: str) -> UnsupportedError:
        """An error for what is well formed but cannot be said; the importer gathers these."""
        return UnsupportedError(f"{self.label}: {why}")

    def unread(self) -> list[str]:
        """Arguments that nothing has asked for, without those that have no effect."""
        return sorted(self._arguments.keys() - self._read - WITHOUT_EFFECT)

    def has(self, name: str) -> bool:
        """Whether an argument is given."""
        self._read.add(name)
        return name in self._arguments

    def integer(self, name: str, default: int = 0) -> int:
        """A whole number. Raises NetError where the argument is none."""
        argument = self._argument(name)
        if argument is None:
            return default
        if argument.HasField("i"):
            return argument.i
        if argument.HasField("f") and argument.f.is_integer() and abs(argument.f) < 2**63:
            return int(argument.f)
        raise self.error(f"the argument {name!r} must be a whole number")

    def real(self, name: str, default: float = 0.0) -> float:
        """A number. Raises NetError where the argument is none."""
        argument = self._argument(name)
        if argument is None:
            return default
        if argument.HasField("f") or argument.HasField("i"):
            return argument.f if argument.HasField("f") else float(argument.i)
        raise self.error(f"the argument {name!r} must be a number")

    def is_whole(self, name: str) -> bool:
        """Whether an argument's value stands in the field of whole numbers."""
        return self.has(name) and self._arguments[name].HasField("i")

    def text(self, name: str, default: str = "") -> str:
        """A string. Raises NetError where the argument is none."""
        argument = self._argument(name)
        if argument is None:
            return default
        if not argument.HasField("s"):
            raise self.error(f"the argument {name!r} must be a string")
        return argument.s.decode("utf-8", "replace")

    def integers(self, name: str) -> list[int]:
        """Whole numbers, none where the argument is not given."""
        argument = self._argument(name)
        if argument is None:
            return []
        if argument.floats or argument.strings:
            raise self.error(f"the argument {name!r} must hold whole numbers")
        return list(argument.ints) or ([argument.i] if argument.HasField("i") else [])

    def numbers(self, name: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Many numbers as a flat array of `dtype`. Raises NetError where the argument holds something else."""
        argument = self._argument(name)
        if argument is None:
            raise self.error(f"needs the argument {name!r}, which is missing")
        whole = np.dtype(dtype).kind in "iu"
        if argument.strings or argument.HasField("s") or (whole and argument.floats):
            raise self.error(f"the argument {name!r} must hold {'whole ' * whole}numbers")
        if argument.floats:
            return _floats(argument).astype(dtype, copy=False)
        values = np.fromiter(argument.ints, np.int64, len(argument.ints))
        if whole and values.size and not (np.iinfo(dtype).min <= values.min() and values.max() <= np.iinfo(dtype).max):
            raise self.error(f"the argument {name!r} holds numbers from {values.min()} to {values.max()}, which "
                             f"{np.dtype(dtype)} does not")
        return values.astype(dtype)

    def count(self, name: str) -> int:
        """How many numbers an argument holds."""
        argument = self._argument(name)
        return 0 if argument is None else max(len(argument.floats), len(argument.ints))

    def _argument(self, name: str) -> Argument | None:
        self._read.add(name)
        return self._arguments.get(name)


def _floats(argument: Argument) -> npt.NDArray[np.float32]:
    """The floats of an argument from the bytes that they are in a file.

    Each is five bytes there, of which the first is the field's key; an object of Python's for each takes much longer.
    """
    alone = Argument()
    alone.floats.MergeFrom(argument.floats)
    records = np.frombuffer(alone.SerializeToString(), np.uint8).reshape(-1, 5)
    return np.ascontiguousarray(records[:, 1:]).view("<f4").reshape(-1).astype(np.float32, copy=False)
