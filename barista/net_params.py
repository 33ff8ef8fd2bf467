"""Parameters from elsewhere: sharing those of another net, copying those of a file."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from .blob import HOST, Blob
from .errors import ShapeError, SnapshotError
from .proto.blobs import blob_shape, blob_to_array, significant
from .proto.caffe_pb2 import BlobProto, NetParameter

log = logging.getLogger(__name__)

# Layer name to parameter blobs.
Params = Mapping[str, Sequence[Blob]]


def share_params(params: Params, others: Params, source: str) -> None:
    """Let `params` lie on the memory of `others`, layer by name.

    Raises
    ------
    ShapeError : a layer of the same name has parameters of other shapes in `source`
    """
    for name, blobs in params.items():
        if name not in others:
            continue
        _check_shapes(name, blobs, [other.shape for other in others[name]], source, ShapeError)
        for blob, other in zip(blobs, others[name], strict=True):
            blob.value.share(other.value)


def copy_params(params: Params, weights: NetParameter, source: str) -> None:
    """Copy the blobs of `weights` into `params`, layer by name; all are checked before one is copied.

    Caffe: layers that only one side has are left alone; HDF5 files leave a shared parameter out
    where its owner has it.

    Raises
    ------
    SnapshotError : no layer of the same name, or one whose parameters have other shapes
    """
    copies: list[tuple[Blob, BlobProto]] = []
    for layer in weights.layer:
        if not layer.blobs:
            continue
        if layer.name not in params:
            log.info("Ignoring source layer %s", layer.name, extra={"origin": "net.cpp:744"})
            continue
        blobs = params[layer.name]
        shapes = [blob_shape(proto) for proto in layer.blobs]
        for index, (blob, proto) in enumerate(zip(blobs, layer.blobs, strict=False)):
            if not _has_values(proto):
                shapes[index] = blob.shape
        _check_shapes(layer.name, blobs, shapes, source, SnapshotError)
        copies.extend(zip(blobs, layer.blobs, strict=True))
    if not copies and params:
        raise SnapshotError(f"no layer of {source} has the name of a layer with parameters of this net "
                            f"({', '.join(params)}): nothing would be copied; it belongs to another net")
    for blob, proto in copies:
        if _has_values(proto):
            blob.value.write(HOST)[...] = blob_to_array(proto).reshape(blob.shape)


def _has_values(proto: BlobProto) -> bool:
    return bool(proto.data or proto.double_data)


def _check_shapes(layer: str, blobs: Sequence[Blob], shapes: Sequence[tuple[int, ...]], source: str,
                  kind: type[ShapeError] | type[SnapshotError]) -> None:
    """Hold a layer's parameters against shapes from elsewhere.

    Caffe: old files give all shapes four axes; leading axes of size 1 do not count.
    """
    if len(blobs) != len(shapes):
        raise kind(f"layer {layer!r} has {len(blobs)} parameter blob(s), {source} has {len(shapes)} for it")
    for index, (blob, shape) in enumerate(zip(blobs, shapes, strict=True)):
        if significant(blob.shape) != significant(shape):
            raise kind(f"layer {layer!r}: parameter {index} has shape {blob.shape}, {source} has {tuple(shape)}; "
                       "rename the layer to leave it untouched")
