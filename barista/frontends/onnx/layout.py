"""What several families of operators need: values in other shapes, and the sizes that broadcasting gives."""

from __future__ import annotations

from collections.abc import Sequence

from barista.errors import UnsupportedError

from .converter import Converter

Shape = tuple[int, ...]


def reshape(converter: Converter, x: str, y: str, before: Shape, after: Shape) -> None:
    """Lay the elements of `x` out anew as `y`.

    Leading sizes that stay are not written down, so that a batch may change.
    """
    if before == after:
        converter.alias(y, x)
        return
    same = 0
    while same < min(len(before), len(after)) and before[same] == after[same]:
        same += 1
    dims = [0] * same + list(after[same:])
    if not same and 0 not in after and after and before[:1] != (1,):
        # The first axis takes what is left, which lets a batch within it change.
        dims[0] = -1
    if 0 in after[same:]:
        dims = _empty(before, after)
    converter.layer("Reshape", [x], [y], reshape_param={"shape": {"dim": dims}})
    converter.set_shape(y, after, converter.dtype(x))


def _empty(before: Shape, after: Shape) -> list[int]:
    """Sizes of a Reshape layer to a shape without elements: 0 there copies a size, and does where that is 0."""
    if all(size or (index < len(before) and not before[index]) for index, size in enumerate(after)):
        return list(after)
    # A 0 that stands elsewhere: -1 makes it, where it is the only one.
    if after.count(0) > 1:
        raise UnsupportedError(f"no layer turns the empty shape {before} into {after}")
    return [size if size else -1 for size in after]


def permute(converter: Converter, x: str, y: str, order: Sequence[int]) -> None:
    """Let the axes of `x` stand in another order in `y`."""
    if list(order) == list(range(len(order))):
        converter.alias(y, x)
        return
    shape, dtype = converter.shape(x), converter.dtype(x)
    converter.layer("Permute", [x], [y], permute_param={"order": list(order)})
    converter.set_shape(y, [shape[axis] for axis in order], dtype)
