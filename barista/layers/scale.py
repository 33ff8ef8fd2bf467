"""Scale, Bias and Axpy: a tensor multiplied by, or added to, a smaller one."""

from __future__ import annotations

from collections.abc import Sequence

from ..blob import Blob
from ..errors import NetError
from ..ops.base import AxisGeometry
from ..proto.caffe_pb2 import BiasParameter, FillerParameter, ScaleParameter
from .base import Bottoms, Count, Layer, Tops, exactly, register


class _BroadcastLayer(Layer):
    """The smaller tensor covers `num_axes` axes of the bottom from `axis` on; it is a parameter or a second bottom."""

    bottoms = Count(1, 2)

    def operand_shape(self, bottom: Bottoms, param: ScaleParameter | BiasParameter) -> tuple[int, ...]:
        """The shape that the parameter must have (for one bottom)."""
        shape = bottom[0].shape
        if param.num_axes < -1:
            raise self.error(f"num_axes={param.num_axes}; give -1 (all from axis on), 0 (a scalar) or more", NetError)
        axis = self.axis(bottom[0], param.axis) if shape and param.num_axes else 0
        end = len(shape) if param.num_axes == -1 else axis + param.num_axes
        if end > len(shape):
            raise self.error(f"axis={param.axis} with num_axes={param.num_axes} reaches axis {end - 1}; "
                             f"the bottom has {len(shape)} axes, shape {shape}")
        return shape[axis:end]

    def geometry(self, bottom: Bottoms, operand: Blob, param: ScaleParameter | BiasParameter) -> AxisGeometry:
        """Fold the bottom around the operand's axes, after checking that they match."""
        shape = bottom[0].shape
        axis = 0 if not operand.shape else self.axis(bottom[0], param.axis)
        axes = len(operand.shape)
        if shape[axis:axis + axes] != operand.shape:
            raise self.error(f"axes {axis} to {axis + axes - 1} of the bottom {shape} must equal the shape "
                             f"{operand.shape} of the {'second bottom' if len(bottom) > 1 else 'parameter'}")
        return AxisGeometry(1, 1, bottom[0].count) if not axes else AxisGeometry.of(shape, axis, axes)


@register("Bias")
class Bias(_BroadcastLayer):
    """y = x + b."""

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.bias_param
        if len(bottom) == 1:
            self.add_param(self.operand_shape(bottom, param), param.filler)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        operand = bottom[1] if len(bottom) > 1 else self.blobs[0]
        self._broadcast = self.ops.broadcast(self.geometry(bottom, operand, self.param.bias_param))
        top[0].reshape(*bottom[0].shape)
        self._copy = self.ops.elementwise("y = x", ("x", "y"), bottom[0].count)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        operand = bottom[1] if len(bottom) > 1 else self.blobs[0]
        self._broadcast.add(bottom[0].value, operand.value, top[0].value)

    def backward_needs(self) -> tuple[bool, bool]:
        return False, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if len(bottom) > 1:
            if propagate_down[1]:
                bottom[1].grad.clear()  # what a bottom had is overwritten
                self._broadcast.sum(top[0].grad, bottom[1].grad)
        elif self.param_propagate_down[0]:
            self._broadcast.sum(top[0].grad, self.blobs[0].grad)
        if propagate_down[0] and bottom[0] is not top[0]:
            self._copy.run({"x": top[0].grad, "y": bottom[0].grad})


@register("Scale")
class Scale(_BroadcastLayer):
    """y = x * s (+ b).

    Caffe: in place it keeps a copy of x for the gradient of s; the scale's filler is 1 by default.
    """

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.scale_param
        if len(bottom) == 1:
            filler = param.filler if param.HasField("filler") else FillerParameter(type="constant", value=1)
            shape = self.operand_shape(bottom, param)
            self.add_param(shape, filler)
        else:
            shape = bottom[1].shape
        self.bias = self.add_param(shape, param.bias_filler) if param.bias_term else None

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        operand = bottom[1] if len(bottom) > 1 else self.blobs[0]
        self._broadcast = self.ops.broadcast(self.geometry(bottom, operand, self.param.scale_param))
        self._saved = self.scratch("saved", bottom[0].shape) if bottom[0] is top[0] else None
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        operand = bottom[1] if len(bottom) > 1 else self.blobs[0]
        bias = self.bias.value if self.bias is not None else None
        self._broadcast.multiply(bottom[0].value, operand.value, top[0].value, bias, self._saved)

    def backward_needs(self) -> tuple[bool, bool]:
        # A second bottom is what the gradient of the first is multiplied by.
        return len(self.param.bottom) > 1 or (self._saved is None and self.param_propagate_down[0]), False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        x = self._saved if self._saved is not None else bottom[0].value
        dbias = self.bias.grad if self.bias is not None and self.param_propagate_down[-1] else None
        operand = bottom[1] if len(bottom) > 1 else self.blobs[0]
        wanted = propagate_down[1] if len(bottom) > 1 else self.param_propagate_down[0]
        if len(bottom) > 1 and wanted:
            operand.grad.clear()  # what a bottom had is overwritten
        dx = bottom[0].grad if propagate_down[0] else None
        self._broadcast.gradients(top[0].grad, x, operand.value, dx, operand.grad if wanted else None, dbias)


@register("Axpy")
class Axpy(Layer):
    """a * x + y of the bottoms a, x and y, with one number of a for each channel of each image.

    A type of Caffe's forks (Hu et al. 2018, squeeze and excitation).  a is (N, C), or (N, C, 1, 1).
    """

    bottoms = exactly(3)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        a, x, y = (blob.shape for blob in bottom)
        if top[0] is bottom[0]:
            raise self.error("cannot work in place; give the top a name of its own", NetError)
        if len(x) < 2 or a[:2] != x[:2] or any(size != 1 for size in a[2:]):
            raise self.error(f"the first bottom needs shape {x[:2]}, or that with axes of size 1 behind it, to go with "
                             f"the second (N, C, ...) of shape {x}; got {a}")
        if x != y:
            raise self.error(f"the second and third bottom must have one shape; got {x} and {y}")
        top[0].reshape(*x)
        self._scale = self.ops.broadcast(AxisGeometry(1, bottom[0].count, bottom[1].count // max(bottom[0].count, 1)))
        self._add = self.ops.elementwise("z = z + y", ("y", "z"), bottom[1].count)
        self._copy = self.ops.elementwise("y = x", ("x", "y"), bottom[1].count)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        a, x, y = bottom
        self._scale.multiply(x.value, a.value, top[0].value)
        self._add.run({"y": y.value, "z": top[0].value})

    def backward_needs(self) -> tuple[bool, bool]:
        return True, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        a, x, y = bottom
        if propagate_down[0]:
            a.grad.clear()  # what a bottom had is overwritten
        if propagate_down[0] or propagate_down[1]:
            self._scale.gradients(top[0].grad, x.value, a.value, x.grad if propagate_down[1] else None,
                                  a.grad if propagate_down[0] else None, None)
        if propagate_down[2]:
            self._copy.run({"x": top[0].grad, "y": y.grad})
