"""Convolution and Deconvolution over any number of spatial axes, and Im2col, the columns that they multiply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ..blob import Blob
from ..errors import NetError
from ..gemm.shapes import ConvolutionGeometry, Pass, Shape
from ..ops.base import AxisGeometry
from .base import Bottoms, Count, Layer, Tops, register

_DIRECTIONS = ("h", "w")


class _Windows(Layer):
    """The windows that a convolution_param describes.

    Where there are no spatial axes a window of one element stands in for what they would describe.
    """

    least_axes: ClassVar[int] = 0

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.convolution_param
        self._axis = self.axis(bottom[0], param.axis)
        axes = self._axes = len(bottom[0].shape) - self._axis - 1
        if axes < self.least_axes:
            raise self.error(f"needs spatial axes behind channel axis {self._axis}; bottom has shape {bottom[0].shape}")
        self._kernel = self._spatial("kernel_size", "kernel", axes, None) or (1,)
        self._stride = self._spatial("stride", "stride", axes, 1) or (1,)
        self._pad = self._spatial("pad", "pad", axes, 0) or (0,)
        self._dilation = self._spatial("dilation", None, axes, 1) or (1,)
        for name, values in (("kernel_size", self._kernel), ("stride", self._stride), ("dilation", self._dilation)):
            if min(values) < 1:
                raise self.error(f"{name} is {values}; each must be 1 or more", NetError)
        self._channels = bottom[0].shape[self._axis]

    def _spatial(self, field: str, stem: str | None, axes: int, default: int | None) -> Shape:
        """One number an axis, from the repeated field or from its _h and _w twins."""
        param = self.param.convolution_param
        values = list(getattr(param, field))
        twins = [f"{stem}_{d}" for d in _DIRECTIONS] if stem is not None else []
        given = [t for t in twins if param.HasField(t)]
        if given:
            if values:
                raise self.error(f"gives both {field} and {given[0]}; give one of them", NetError)
            if axes != 2:
                raise self.error(f"{given[0]} is for 2 spatial axes; the bottom has {axes}: use {field}", NetError)
            if len(given) == 1 and default is None:
                raise self.error(f"gives {given[0]} alone; give both {twins[0]} and {twins[1]}", NetError)
            return tuple(getattr(param, t) if param.HasField(t) else int(default or 0) for t in twins)
        if not values:
            if default is None and axes:
                raise self.error(f"{field} is missing", NetError)
            return (default or 0,) * axes
        if len(values) not in (1, axes):
            raise self.error(f"{field} has {len(values)} entries; give 1 or one for each of the {axes} spatial axes")
        return tuple(values) * (axes if len(values) == 1 else 1)

    def _check_axes(self, shape: Shape) -> None:
        if len(shape) != self._axis + 1 + self._axes:
            raise self.error(f"was set up for channels on axis {self._axis} and {self._axes} spatial axes; the "
                             f"bottom now has shape {shape}")
        if 0 in shape[self._axis:]:
            raise self.error(f"the bottom has shape {shape}, with a size of 0: there is nothing to convolve")

    def _check_fits(self, geometry: ConvolutionGeometry) -> None:
        for axis, (size, pad, extent) in enumerate(zip(geometry.input, self._pad, geometry.extent, strict=True)):
            if extent > size + 2 * pad:
                name = f"kernel_{_DIRECTIONS[axis]}" if len(self._kernel) == 2 else f"kernel_size[{axis}]"
                raise self.error(f"{name}={self._kernel[axis]} (extent {extent} with dilation {self._dilation[axis]}) "
                                 f"exceeds the padded size {size + 2 * pad} ({size} + 2*{pad}); "
                                 "lower the kernel or raise the padding")


class _BaseConvolution(_Windows):
    """Parameters that Convolution and Deconvolution share; every bottom gets a top of its own.

    Caffe: weights have shape (num_output, C/group, *kernel), for a Deconvolution
    (C, num_output/group, *kernel).  Without spatial axes it is an InnerProduct of the channels, whatever kernel_size
    says.
    """

    bottoms = Count(1)
    tops = Count(1)
    equal_bottoms_and_tops = True
    transposed: ClassVar[bool]
    # Passes of the convolution that are the layer's forward pass and its gradient of a bottom.
    passes_of_layer: ClassVar[tuple[Pass, Pass]]

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        super().setup(bottom, top)
        param = self.param.convolution_param
        self._outputs = param.num_output
        self._group = param.group
        if self._outputs < 1:
            raise self.error("num_output is missing; give 1 or more", NetError)
        if self._group < 1 or self._channels % self._group or self._outputs % self._group:
            raise self.error(f"group={self._group} must divide both the {self._channels} input channels and "
                             f"num_output={self._outputs}")
        outer, inner = (self._channels, self._outputs) if self.transposed else (self._outputs, self._channels)
        self.weight = self.add_param((outer, inner // self._group, *self._kernel[:self._axes]), param.weight_filler)
        self.bias = self.add_param((self._outputs,), param.bias_filler) if param.bias_term else None
        if len(self.param.blobs) > len(self.blobs):
            raise self.error(f"the definition carries {len(self.param.blobs)} parameter blobs; "
                             f"this layer has {len(self.blobs)}", NetError)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        first = bottom[0].shape
        for blob in bottom:
            if blob.shape != first:
                raise self.error(f"all bottoms must have one shape; got {first} and {blob.shape}")
        self._check_axes(first)
        if first[self._axis] != self._channels:
            raise self.error(f"was set up for {self._channels} channels on axis {self._axis}; the bottom now has shape "
                             f"{first}")
        batch = AxisGeometry.of(first, self._axis).outer
        # A Filter may let no image through: then nothing runs, and no gradient is added.
        self._empty = batch == 0
        geometry = self._geometry(max(batch, 1), first[self._axis + 1:] or (1,))
        sizes = geometry.input if self.transposed else geometry.output
        for blob in top:
            blob.reshape(*first[:self._axis], self._outputs, *sizes[:self._axes])
        self.geometry = geometry
        if not self._empty:
            self._convolution = self.ops.convolution(geometry)
        self._bias = self.ops.broadcast(AxisGeometry.of(top[0].shape, self._axis)) if self.bias is not None else None

    def passes(self, backward: bool, propagate_down: Sequence[bool]) -> frozenset[Pass]:
        forward, grad_input = self.passes_of_layer
        run = {forward}
        if backward and self.param_propagate_down[0]:
            run.add(Pass.GRAD_WEIGHT)
        if backward and any(propagate_down):
            run.add(grad_input)
        return frozenset(run)

    def backward_needs(self) -> tuple[bool, bool]:
        return self.param_propagate_down[0], False

    def _geometry(self, batch: int, spatial: Shape) -> ConvolutionGeometry:
        raise NotImplementedError

    def _grad_bias(self, top: Blob) -> None:
        if self._bias is not None and self.bias is not None and self.param_propagate_down[1]:
            self._bias.sum(top.grad, self.bias.grad)


@register("Convolution")
class Convolution(_BaseConvolution):
    """y(N, D, *O) = x(N, C, *I) * w(D, C/group, *k) + b(D)."""

    transposed = False
    can_rectify = True
    passes_of_layer = (Pass.FORWARD, Pass.GRAD_INPUT)

    def _geometry(self, batch: int, spatial: Shape) -> ConvolutionGeometry:
        geometry = ConvolutionGeometry(batch, self._channels, self._outputs, spatial, self._kernel, self._stride,
                                       self._pad, self._dilation, self._group)
        self._check_fits(geometry)
        return geometry

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._run_forward(bottom, top, rectify=False)

    def forward_rectified(self, bottom: Bottoms, top: Tops) -> None:
        self._run_forward(bottom, top, rectify=True)

    def _run_forward(self, bottom: Bottoms, top: Tops, rectify: bool) -> None:
        if self._empty:
            return
        bias = self.bias.value if self.bias is not None else None
        for x, y in zip(bottom, top, strict=True):
            self._convolution.forward(x.value, self.weight.value, bias, y.value, rectify)

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if self._empty:
            return
        for x, y, wanted in zip(bottom, top, propagate_down, strict=True):
            self._grad_bias(y)
            if self.param_propagate_down[0]:
                self._convolution.grad_weight(x.value, y.grad, self.weight.grad)
            if wanted:
                self._convolution.grad_input(y.grad, self.weight.value, x.grad)


@register("Deconvolution")
class Deconvolution(_BaseConvolution):
    """The transpose of a convolution: its forward pass is a convolution's grad_input, and the reverse."""

    transposed = True
    passes_of_layer = (Pass.GRAD_INPUT, Pass.FORWARD)

    def _geometry(self, batch: int, spatial: Shape) -> ConvolutionGeometry:
        sizes = tuple(s * (i - 1) + d * (k - 1) + 1 - 2 * p for i, s, d, k, p in
                      zip(spatial, self._stride, self._dilation, self._kernel, self._pad, strict=True))
        if min(sizes) < 1:
            raise self.error(f"pad={self._pad} leaves an output of {sizes} from an input of {spatial}; lower pad")
        return ConvolutionGeometry(batch, self._outputs, self._channels, sizes, self._kernel, self._stride,
                                   self._pad, self._dilation, self._group)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        if self._empty:
            return
        for x, y in zip(bottom, top, strict=True):
            self._convolution.grad_input(x.value, self.weight.value, y.value)
            if self._bias is not None and self.bias is not None:
                self._bias.add(y.value, self.bias.value, y.value)

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if self._empty:
            return
        for x, y, wanted in zip(bottom, top, propagate_down, strict=True):
            self._grad_bias(y)
            if self.param_propagate_down[0]:
                self._convolution.grad_weight(y.grad, x.value, self.weight.grad)
            if wanted:
                self._convolution.forward(y.grad, self.weight.value, None, x.grad)


@register("Im2col")
class Im2col(_Windows):
    """y(N, C * prod(k), *O) from x(N, C, *I): what each window of a convolution sees, 0 in the padding.

    Caffe: of the convolution_param it takes kernel, stride, pad, dilation and axis; the axes before it are as many
    images.
    """

    least_axes = 1

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        shape = bottom[0].shape
        self._check_axes(shape)
        around = AxisGeometry.of(shape, self._axis)
        geometry = ConvolutionGeometry(around.outer, around.axis, 1, shape[self._axis + 1:], self._kernel, self._stride,
                                       self._pad, self._dilation)
        self._check_fits(geometry)
        top[0].reshape(*shape[:self._axis], geometry.depth, *geometry.output)
        self._unfold = self.ops.unfold(geometry)

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        self._unfold.forward(bottom[0].value, top[0].value)

    def backward_needs(self) -> tuple[bool, bool]:
        return False, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if propagate_down[0]:
            self._unfold.backward(top[0].grad, bottom[0].grad)
