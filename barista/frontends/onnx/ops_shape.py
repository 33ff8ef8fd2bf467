"""Operators that lay elements out anew, cut, join and repeat them, or pick some."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from barista.errors import UnsupportedError

from .converter import Array, Converter, handler
from .layout import permute, reshape
from .node import Node

# Where a slice to the very first element backwards ends.
BEFORE_ALL = -(2**63)


@handler("Identity", "Constant", "ConstantOfShape")
def _identity(converter: Converter, node: Node) -> None:
    """A constant is folded; it comes here where its shape is computed when the net runs."""
    if node.op != "Identity":
        converter.need(node, 0, "the shape")
        converter.unsupported(node, "its value is no tensor of numbers")
    converter.alias(node.output(0), node.input(0))


@handler("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(converter: Converter, node: Node) -> None:
    """All of these name another shape for the same elements, which inference has computed."""
    x, y = node.input(0), node.output(0)
    if node.op != "Flatten" and node.input(1):
        converter.need(node, 1, "the new shape" if node.op == "Reshape" else "the axes")
    before = converter.shape(x)
    if node.op == "Reshape" and node.version < 5:
        converter.set_shape(y, _old_shape(converter, node, before), converter.dtype(x))
    after = converter.shape(y)
    if node.op == "Flatten" and node.attr("axis") == 1 and len(before) > 1:
        if len(before) == 2:
            converter.alias(y, x)
        else:
            converter.layer("Flatten", [x], [y], flatten_param={"axis": 1})
        return
    reshape(converter, x, y, before, after)


def _old_shape(converter: Converter, node: Node, before: Sequence[int]) -> list[int]:
    """The shape that an attribute says; ONNX's inference does not look at it."""
    shape = [before[index] if size == 0 and index < len(before) else size for index, size in
             enumerate(node.attr("shape") or [])]
    known = math.prod(size for size in shape if size != -1)
    if shape.count(-1) > 1 or min(shape, default=1) < -1 or (-1 in shape and not known):
        converter.unsupported(node, f"shape {node.attr('shape')} cannot be worked out for an input of shape {before}")
    return [math.prod(before) // known if size == -1 else size for size in shape]


@handler("Transpose")
def _transpose(converter: Converter, node: Node) -> None:
    axes = len(converter.shape(node.input(0)))
    permute(converter, node.input(0), node.output(0), node.attr("perm") or list(range(axes))[::-1])


@handler("Concat")
def _concat(converter: Converter, node: Node) -> None:
    axis = node.attr("axis", 1)
    # What has no elements joins nothing.
    inputs = [name for name in node.inputs if math.prod(converter.shape(name))] or node.inputs[:1]
    if len(inputs) == 1:
        converter.alias(node.output(0), inputs[0])
        return
    converter.layer("Concat", inputs, [node.output(0)], concat_param={"axis": axis})


@handler("Split")
def _split(converter: Converter, node: Node) -> None:
    x, outputs = node.input(0), node.outputs
    shape = converter.shape(x)
    axis = node.attr("axis", 0) % len(shape)
    size, count = shape[axis], len(outputs)
    if node.input(1):
        parts = converter.need(node, 1, "the sizes of the parts").tolist()
    elif node.attr("split"):
        parts = node.attr("split")
    else:
        largest = -(-size // count)
        parts = [max(0, min(largest, size - index * largest)) for index in range(count)]
    if len(parts) != count or sum(parts) != size or min(parts) < 0:
        converter.unsupported(node, f"parts of {parts} do not make up {count} outputs of the size {size} of axis "
                                    f"{axis}")
    if count == 1:
        converter.alias(outputs[0], x)
    elif min(parts) > 0:
        points = list(itertools.accumulate(parts))[:-1]
        equal = len(set(parts)) == 1
        converter.layer("Slice", [x], outputs, slice_param={"axis": axis, "slice_point": [] if equal else points})
    else:
        for name, start, part in zip(outputs, itertools.accumulate([0, *parts]), parts, strict=False):
            if name:
                cut(converter, x, name, axis, start, start + part)
    for name, part in zip(outputs, parts, strict=True):
        if name:
            converter.set_shape(name, (*shape[:axis], part, *shape[axis + 1:]), converter.dtype(x))


def cut(converter: Converter, x: str, y: str, axis: int, start: int, end: int, step: int = 1) -> None:
    """Let `y` be a slice of `x` along one axis."""
    converter.layer("StridedSlice", [x], [y], strided_slice_param={
        "axis": [axis], "start": [start], "end": [end], "step": [step]})


@handler("Slice")
def _slice(converter: Converter, node: Node) -> None:
    x, y = node.input(0), node.output(0)
    shape = converter.shape(x)
    if node.version < 10:
        starts, ends, axes = node.attr("starts"), node.attr("ends"), node.attr("axes")
        steps = None
    else:
        starts, ends = (converter.need(node, index, f"the {what}").tolist()
                        for index, what in ((1, "starts"), (2, "ends")))
        axes, steps = (converter.need(node, index, f"the {what}").tolist() if node.input(index) else None
                       for index, what in ((3, "axes"), (4, "steps")))
    axes = [axis % len(shape) for axis in (range(len(starts)) if axes is None else axes)]
    steps = steps or [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or len(set(axes)) < len(axes) or 0 in steps:
        converter.unsupported(node, f"starts {starts}, ends {ends}, axes {axes} and steps {steps} do not fit together")
    ranges = [slice(start, end if step > 0 or end >= -shape[axis] else None, step).indices(shape[axis])
              for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)]
    sizes = list(shape)
    for axis, places in zip(axes, ranges, strict=True):
        sizes[axis] = len(range(*places))
    chosen = [index for index, (axis, places) in enumerate(zip(axes, ranges, strict=True))
              if places != (0, shape[axis], 1)]
    converter.set_shape(y, sizes, converter.dtype(x))
    if not chosen:
        converter.alias(y, x)
        return
    pick = {name: [values[index] for index in chosen]
            for name, values in (("axis", axes), ("start", starts), ("end", ends), ("step", steps))}
    converter.layer("StridedSlice", [x], [y], strided_slice_param=pick)


@handler("Pad")
def _pad(converter: Converter, node: Node) -> None:
    x, y = node.input(0), node.output(0)
    shape = converter.shape(x)
    if node.version < 11:
        pads, value = node.attr("pads") or node.attr("paddings"), node.attr("value") or 0.0
    else:
        pads = converter.need(node, 1, "the pads").tolist()
        value = float(converter.need(node, 2, "the value").reshape(())) if node.input(2) else 0.0
    axes = [axis % len(shape) for axis in converter.need(node, 3, "the axes").tolist()] if node.input(3) else list(
        range(len(shape)))
    if len(pads) != 2 * len(axes):
        converter.unsupported(node, f"has {len(pads)} pads for {len(axes)} axes; two are needed for each")
    begin, end = [0] * len(shape), [0] * len(shape)
    for index, axis in enumerate(axes):
        begin[axis], end[axis] = pads[index], pads[len(axes) + index]
    converter.set_shape(y, [size + b + e for size, b, e in zip(shape, begin, end, strict=True)], converter.dtype(x))
    if not any(begin) and not any(end):
        converter.alias(y, x)
        return
    mode = node.attr("mode", "constant")
    if mode not in ("constant", "reflect", "edge", "wrap"):
        converter.unsupported(node, f"mode {mode!r} is none of ONNX's: constant, reflect, edge, wrap")
    converter.layer("Pad", [x], [y], pad_param={"mode": mode.upper(), "begin": begin, "end": end, "value": value})


@handler("Tile")
def _tile(converter: Converter, node: Node) -> None:
    x, y = node.input(0), node.output(0)
    shape = converter.shape(x)
    if node.version < 6:
        repeats = [1] * len(shape)
        tiles, axis = (int(converter.need(node, index, f"the {what}").reshape(()))
                       for index, what in ((1, "tiles"), (2, "axis")))
        repeats[axis] = tiles
    else:
        repeats = converter.need(node, 1, "the repeats").tolist()
    if len(repeats) != len(shape) or min(repeats, default=1) < 0:
        converter.unsupported(node, f"repeats {repeats} do not fit the shape {shape}")
    if 0 in repeats:
        cut_all = [axis for axis, count in enumerate(repeats) if not count]
        converter.layer("StridedSlice", [x], [y], strided_slice_param={
            "axis": cut_all, "start": [0] * len(cut_all), "end": [0] * len(cut_all), "step": [1] * len(cut_all)})
        return
    steps = [(axis, count) for axis, count in enumerate(repeats) if count > 1]
    for index, (axis, count) in enumerate(steps, start=1):
        result = y if index == len(steps) else converter.fresh(f"{y}_{axis}")
        converter.layer("Tile", [x], [result], tile_param={"axis": axis, "tiles": count})
        x = result
    if not steps:
        converter.alias(y, x)
    converter.set_shape(y, [size * count for size, count in zip(shape, repeats, strict=True)], converter.dtype(x))


@handler("Expand")
def _expand(converter: Converter, node: Node) -> None:
    x, y = node.input(0), node.output(0)
    wanted = converter.need(node, 1, "the shape").tolist()
    shape = converter.shape(x)
    result = np.broadcast_shapes(shape, tuple(wanted))
    converter.set_shape(y, result, converter.dtype(x))
    if result == shape:
        converter.alias(y, x)
    else:
        converter.layer("Expand", [x], [y], expand_param={"shape": wanted})


@handler("Gather")
def _gather(converter: Converter, node: Node) -> None:
    x, indices, y = node.input(0), node.input(1), node.output(0)
    shape = converter.shape(x)
    axis = node.attr("axis", 0) % len(shape)
    table = converter.constant(x)
    if table is not None and converter.constant(indices) is None and axis == 0 and table.dtype.kind == "f":
        _embed(converter, table, indices, y)
        return
    index = converter.need(node, 1, "the indices")
    if index.size and not -shape[axis] <= int(index.min()) <= int(index.max()) < shape[axis]:
        converter.unsupported(node, f"indices {index.min()} to {index.max()} lie outside of the size {shape[axis]} of "
                                    f"axis {axis}")
    param = {"axis": axis, "index": index.reshape(-1).tolist()}
    param |= {"shape": list(index.shape)} if index.ndim else {"scalar": True}
    converter.layer("Take", [x], [y], take_param=param)


def _embed(converter: Converter, table: Array, indices: str, y: str) -> None:
    """Rows of a constant table by indices that are computed."""
    rows, width = table.shape[0], math.prod(table.shape[1:])
    shape = converter.shape(indices)
    flat = y if table.ndim == 2 else converter.fresh(f"{y}_rows")
    converter.layer("Embed", [indices], [flat], blobs=[table.reshape(rows, width)], embed_param={
        "num_output": width, "input_dim": rows, "bias_term": False})
    if table.ndim != 2:
        converter.set_shape(flat, (*shape, width), table.dtype)
        reshape(converter, flat, y, (*shape, width), (*shape, *table.shape[1:]))


@handler("DepthToSpace", "SpaceToDepth")
def _depth_to_space(converter: Converter, node: Node) -> None:
    x, y = node.input(0), node.output(0)
    block = node.attr("blocksize")
    n, c, h, w = converter.shape(x)
    split, turned = converter.fresh(f"{y}_blocks"), converter.fresh(f"{y}_turned")
    if node.op == "SpaceToDepth":
        parts = (n, c, h // block, block, w // block, block)
        order = (0, 1, 3, 5, 2, 4) if node.attr("mode", "DCR") == "CRD" else (0, 3, 5, 1, 2, 4)
        after = (n, c * block * block, h // block, w // block)
    else:
        columns_first = node.attr("mode", "DCR") == "CRD"
        parts = (n, c // block**2, block, block, h, w) if columns_first else (n, block, block, c // block**2, h, w)
        order = (0, 1, 4, 2, 5, 3) if columns_first else (0, 3, 4, 1, 5, 2)
        after = (n, c // block**2, h * block, w * block)
    reshape(converter, x, split, (n, c, h, w), parts)
    permute(converter, split, turned, order)
    reshape(converter, turned, y, tuple(parts[axis] for axis in order), after)


# ---- images in other sizes --------------------------------------------------------------------------------


@handler("Upsample", "Resize")
def _resize(converter: Converter, node: Node) -> None:
    x, y = node.input(0), node.output(0)
    shape = converter.shape(x)
    axes, scales, sizes = _resize_sizes(converter, node, shape)
    result = list(shape)
    for axis, scale, size in zip(axes, scales, sizes, strict=True):
        result[axis] = math.floor(shape[axis] * scale) if size is None else size
    converter.set_shape(y, result, converter.dtype(x))
    newer = node.op == "Resize" and node.version >= 11
    coordinates = node.attr("coordinate_transformation_mode", "half_pixel") if newer else "asymmetric"
    crop = coordinates == "tf_crop_and_resize"
    kept = [index for index, axis in enumerate(axes) if crop or scales[index] != 1 or result[axis] != shape[axis]]
    if not kept:
        converter.alias(y, x)
        return
    mode = {"nearest": "NEAREST", "linear": "LINEAR", "bilinear": "LINEAR", "cubic": "CUBIC"}.get(
        node.attr("mode", "nearest"))
    if mode is None:
        converter.unsupported(node, f"mode {node.attr('mode')!r}; known are nearest, linear and cubic")
    param = {"mode": mode, "axis": [axes[i] for i in kept], "scale": [scales[i] for i in kept],
             "size": [result[axes[i]] for i in kept], "coordinates": coordinates.upper(),
             "rounding": (node.attr("nearest_mode", "round_prefer_floor") if newer else "floor").upper()}
    if newer:
        param |= {"cubic_coeff_a": node.attr("cubic_coeff_a", -0.75), "antialias": bool(node.attr("antialias", 0)),
                  "exclude_outside": bool(node.attr("exclude_outside", 0))}
    if crop:
        roi = converter.need(node, 1, "the region").astype(float).tolist()
        begin, end = roi[:len(axes)], roi[len(axes):]
        param |= {"roi_begin": [begin[i] for i in kept], "roi_end": [end[i] for i in kept],
                  "extrapolation_value": node.attr("extrapolation_value", 0.0)}
    converter.layer("Resize", [x], [y], resize_param=param)


def _resize_sizes(converter: Converter, node: Node, shape: Sequence[int]) -> tuple[list[int], list[float],
                                                                                  list[int | None]]:
    """Axes, their scales, and their sizes where those are given."""
    axes = [axis % len(shape) for axis in node.attr("axes") or range(len(shape))]
    none: list[int | None] = [None] * len(axes)
    if node.op == "Upsample" and node.version < 7:
        return axes, [1.0] * (len(axes) - 2) + [node.attr("height_scale"), node.attr("width_scale")], none
    if node.op == "Upsample" and node.version < 9:
        return axes, list(node.attr("scales")), none
    at = 1 if node.op == "Upsample" or node.version < 11 else 2
    if node.input(at) and converter.shape(node.input(at)) != (0,):
        scales = [float(scale) for scale in converter.need(node, at, "the scales")]
        if len(scales) != len(axes) or min(scales, default=1) <= 0:
            converter.unsupported(node, f"scales {scales} do not fit the {len(axes)} axes that are resized")
        return axes, scales, none
    sizes = [int(size) for size in converter.need(node, 3, "the sizes")]
    if len(sizes) != len(axes):
        raise UnsupportedError(f"sizes {sizes} do not fit the {len(axes)} axes that are resized")
    scales = [size / shape[axis] for axis, size in zip(axes, sizes, strict=True)]
    policy = node.attr("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        scale = (min if policy == "not_larger" else max)(scales)
        scales = [scale] * len(axes)
        sizes = [math.floor(scale * shape[axis] + 0.5) for axis in axes]
    return axes, scales, list(sizes)
