"""Resize: axes resampled, with all the ways that other formats know to find the neighbours of an element."""

from __future__ import annotations

import ctypes
import dataclasses
import math
from collections.abc import Sequence

from ..blob import MAX_COUNT, Tensor
from ..errors import NetError
from ..ops.base import Interpolation, LookupGeometry, Shape, Taps
from ..proto.caffe_pb2 import ResizeParameter as R
from .base import Bottoms, Layer, Tops, register


@dataclasses.dataclass(frozen=True)
class _Axis:
    """One axis that is resized.

    Parameters
    ----------
    axis, size, outputs : which it is, and its sizes in the bottom and in the top
    scale : of the top's coordinates by the bottom's
    roi : first and last place that are seen, 0 to 1
    """

    axis: int
    size: int
    outputs: int
    scale: float
    roi: tuple[float, float]

    def places(self, coordinates: int) -> list[float]:
        """Where in the bottom each element of the top lies."""
        last, reach = self.size - 1, self.size * self.scale - 1
        if coordinates == R.ALIGN_CORNERS:
            step, start = last / reach if reach else 0.0, 0.0
        elif coordinates == R.TF_CROP_AND_RESIZE:
            seen, start = (self.roi[1] - self.roi[0]) * last, self.roi[0] * last
            step, start = (seen / reach, start) if reach else (0.0, start + seen / 2)
        elif coordinates == R.ASYMMETRIC:
            step, start = 1 / self.scale, 0.0
        elif coordinates == R.PYTORCH_HALF_PIXEL and self.outputs == 1:
            step, start = 0.0, 0.0
        elif coordinates == R.TF_HALF_PIXEL:
            return [(output + 0.5) / self.scale for output in range(self.outputs)]
        else:
            # Sizes that are no multiples are cut evenly on both sides where it is to be symmetric.
            shift = self.size / 2 * (1 - self.outputs / (reach + 1)) if coordinates == R.HALF_PIXEL_SYMMETRIC else 0.0
            return [shift + (output + 0.5) / self.scale - 0.5 for output in range(self.outputs)]
        return [start + output * step for output in range(self.outputs)]

    def is_outside(self, place: float) -> bool:
        """Whether a place of TF_CROP_AND_RESIZE lies beyond the bottom."""
        return not 0 <= place <= self.size - 1


def _neighbours(place: float, scale: float, param: R) -> tuple[int, list[float]]:
    """The first neighbour of a place, and the weights of all from there on."""
    if param.mode == R.NEAREST:
        nearest = {R.ROUND_PREFER_FLOOR: math.ceil(place - 0.5), R.ROUND_PREFER_CEIL: math.floor(place + 0.5),
                   R.FLOOR: math.floor(place), R.CEIL: math.ceil(place)}
        return nearest[param.rounding], [1.0]
    first = math.floor(place)
    ratio = place - first
    # How far a neighbour lies, in steps of the top where it shrinks and the filter is to widen.
    narrow = min(scale, 1.0) if param.antialias else 1.0
    reach = 1 if param.mode == R.LINEAR else 2
    start = math.floor(-reach / narrow) + 1
    distances = [abs(step - ratio) * narrow for step in range(start, 2 - start)]
    weigh = _linear if param.mode == R.LINEAR else lambda distance: _cubic(distance, param.cubic_coeff_a)
    weights = [weigh(distance) for distance in distances]
    total = sum(weights) if param.antialias else 1.0
    return first + start, [weight / total for weight in weights]


def _linear(distance: float) -> float:
    return max(1 - distance, 0.0)


def _cubic(distance: float, a: float) -> float:
    """Keys' kernel (1981)."""
    if distance <= 1:
        return ((a + 2) * distance - (a + 3)) * distance * distance + 1
    return ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a if distance < 2 else 0.0


def _taps(axis: _Axis, param: R) -> Taps:
    """How an axis is resampled."""
    indices: list[Shape] = []
    weights: list[tuple[float, ...]] = []
    for place in axis.places(param.coordinates):
        first, shares = _neighbours(place, axis.scale, param)
        places = range(first, first + len(shares))
        if param.coordinates == R.TF_CROP_AND_RESIZE and axis.is_outside(place):
            shares = [0.0] * len(shares)
        elif param.exclude_outside:
            inside = [share if 0 <= index < axis.size else 0.0 for index, share in zip(places, shares, strict=True)]
            total = sum(inside)
            # Where all lie outside, the border's element is left.
            shares = [share / total for share in inside] if total else shares
        indices.append(tuple(min(max(index, 0), axis.size - 1) for index in places))
        weights.append(tuple(shares))
    return Taps(axis.size, tuple(indices), tuple(weights))


def _same(size: int) -> Taps:
    """An axis that stays as it is."""
    return Taps(size, tuple((index,) for index in range(size)), ((1.0,),) * size)


@register("Resize")
class Resize(Layer):
    """Some axes resampled: elements of the top are the nearest of the bottom, or linear or cubic means of neighbours.

    `size` gives the top's sizes of the axes named, `scale` what they are of the bottom's (rounded down); where both are
    given, `scale` says how far elements lie apart.  Neighbours beyond the border are the outermost elements, or with
    `exclude_outside` do not count.  With TF_CROP_AND_RESIZE what lies outside is `extrapolation_value`.
    """

    def setup(self, bottom: Bottoms, top: Tops) -> None:
        param = self.param.resize_param
        named, numbers = len(param.axis), (len(param.scale), len(param.size))
        if not named or any(number not in (0, named) for number in numbers) or not any(numbers):
            raise self.error(f"has {named} axes, {numbers[0]} scales and {numbers[1]} sizes; give a scale or a size "
                             "for each axis", NetError)
        if any(not 0 < scale < math.inf for scale in param.scale) or any(size < 1 for size in param.size):
            raise self.error(f"scales {list(param.scale)} must be numbers above 0, and sizes {list(param.size)} 1 or "
                             "more", NetError)
        if param.coordinates == R.TF_CROP_AND_RESIZE and not len(param.roi_begin) == len(param.roi_end) == named:
            raise self.error(f"has {len(param.roi_begin)} numbers in roi_begin and {len(param.roi_end)} in roi_end; "
                             f"TF_CROP_AND_RESIZE needs one for each of the {named} axes", NetError)

    def _axes(self, bottom: Bottoms) -> list[_Axis]:
        param, shape = self.param.resize_param, bottom[0].shape
        axes = []
        for index, given in enumerate(param.axis):
            axis = self.axis(bottom[0], given)
            size = shape[axis]
            # The product is a float32, as the scale is: 10 times 0.7 is 7.
            wanted = param.size[index] if param.size else ctypes.c_float(size * param.scale[index]).value
            outputs = math.floor(min(wanted, MAX_COUNT + 1))
            if size < 1 or outputs < 1:
                raise self.error(f"cannot resize axis {axis} of the bottom {shape} to {outputs} elements; both must "
                                 "have 1 or more")
            scale = param.scale[index] if param.scale else outputs / size
            roi = (param.roi_begin[index], param.roi_end[index]) if param.roi_begin else (0.0, 1.0)
            axes.append(_Axis(axis, size, outputs, scale, roi))
        if len({axis.axis for axis in axes}) < len(axes):
            raise self.error(f"axes {list(param.axis)} name one axis of the bottom {shape} twice", NetError)
        return sorted(axes, key=lambda axis: axis.axis)

    def reshape(self, bottom: Bottoms, top: Tops) -> None:
        if top[0] is bottom[0]:
            raise self.error("cannot work in place; give the top a name of its own", NetError)
        param, shape = self.param.resize_param, bottom[0].shape
        axes = self._axes(bottom)
        outputs = {axis.axis: axis.outputs for axis in axes}
        sizes = tuple(outputs.get(axis, size) for axis, size in enumerate(shape))
        top[0].reshape(*sizes)
        taps = {axis.axis: _taps(axis, param) for axis in axes}
        taps = {axis: tap for axis, tap in taps.items() if tap != _same(shape[axis])}
        self._steps = self._plan(shape, taps)
        self._fill = None
        if param.coordinates == R.TF_CROP_AND_RESIZE and param.extrapolation_value:
            tables: list[Sequence[int]] = [range(size) for size in sizes]
            for axis in axes:
                tables[axis.axis] = [-1 if axis.is_outside(place) else index
                                     for index, place in enumerate(axis.places(param.coordinates))]
            self._fill = self.ops.lookup(LookupGeometry(sizes, tuple(tables), param.extrapolation_value))
        # What lies between one step and the next; the filling comes last.
        between = [self.scratch(f"step {index}", step_shape) for index, (_, step_shape) in enumerate(self._steps)]
        self._between: list[Tensor] = between if self._fill is not None else between[:-1]
        if not self._steps and self._fill is None:
            self._copy = self.ops.elementwise("y = x", ("x", "y"), bottom[0].count)

    def _plan(self, shape: Shape, taps: dict[int, Taps]) -> list[tuple[Interpolation, Shape]]:
        """Interpolations one after the other, with the shapes that they give: an axis each, the last two together."""
        steps: list[tuple[Interpolation, Shape]] = []
        sizes, last = list(shape), len(shape) - 1
        for axis, rows in taps.items():
            if axis == last and last - 1 in taps:
                continue
            planes = math.prod(sizes[:axis])
            columns = _same(math.prod(sizes[axis + 1:]))
            sizes[axis] = rows.outputs
            if axis == last - 1 and last in taps:
                columns = taps[last]
                sizes[last] = columns.outputs
            elif axis == last:
                rows, columns = _same(1), rows
            steps.append((self.ops.interpolation(planes, rows, columns), tuple(sizes)))
        return steps

    def forward(self, bottom: Bottoms, top: Tops) -> None:
        if not self._steps and self._fill is None:
            self._copy.run({"x": bottom[0].value, "y": top[0].value})
            return
        places = self._places(bottom[0].value, top[0].value)
        for (step, _), source, target in zip(self._steps, places, places[1:], strict=False):
            step.forward(source, target)
        if self._fill is not None:
            self._fill.forward(places[-2], places[-1])

    def _places(self, first: Tensor, last: Tensor) -> list[Tensor]:
        """The tensors between which the steps work."""
        return [first, *self._between, last]

    def backward_needs(self) -> tuple[bool, bool]:
        return False, False

    def backward(self, top: Tops, propagate_down: Sequence[bool], bottom: Bottoms) -> None:
        if not propagate_down[0]:
            return
        if not self._steps and self._fill is None:
            self._copy.run({"x": top[0].grad, "y": bottom[0].grad})
            return
        places = self._places(bottom[0].grad, top[0].grad)
        if self._fill is not None:
            self._fill.backward(places[-1], places[-2])
        for index in reversed(range(len(self._steps))):
            self._steps[index][0].backward(places[index + 1], places[index])
