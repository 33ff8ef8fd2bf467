"""The parameters of a net: which of them a solver changes, those with a common name, and those from elsewhere."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence

from .blob import HOST, Blob
from .errors import NetError, ShapeError, SnapshotError
from .layers import Layer
from .named import Named
from .proto.blobs import blob_shape, blob_to_array, significant
from .proto.caffe_pb2 import BlobProto, NetParameter, ParamSpec

log = logging.getLogger(__name__)

# Layer name to parameter blobs.
Params = Mapping[str, Sequence[Blob]]


@dataclasses.dataclass
class Learnable:
    """A parameter that a solver may change; shared parameters appear once.

    Attributes
    ----------
    blob : value and gradient
    name : for messages, ``layer[index]``
    lr_mult, decay_mult : factors on the solver's rate and weight decay
    """

    blob: Blob
    name: str
    lr_mult: float
    decay_mult: float


@dataclasses.dataclass
class _Owner:
    """The first parameter of a shared name."""

    layer: str
    index: int
    blob: Blob
    learnable: Learnable
    spec: ParamSpec


class Parameters:
    """The parameters of the layers of one net, in order.

    Parameters
    ----------
    net : its name, for messages

    Attributes
    ----------
    by_layer : layer name to its parameter blobs
    learnable : those that a solver may change
    """

    def __init__(self, net: str) -> None:
        self.by_layer: dict[str, list[Blob]] = Named(f"net {net!r} has no layer with parameters of the name")
        self.learnable: list[Learnable] = []
        self._owners: dict[str, _Owner] = {}

    def add(self, layer: Layer) -> None:
        """Take in the parameters of the next layer, as its `param` entries say.

        Caffe: layers may have the same name; of those with parameters all weights that are read go to the first,
        which is refused here.

        Raises
        ------
        NetError, ShapeError : they do not fit the layer, or the parameter whose name they share
        """
        specs = list(layer.param.param)
        if len(specs) > len(layer.blobs):
            raise layer.error(f"has {len(layer.blobs)} parameter(s) and {len(specs)} param entries; take the rest out",
                              NetError)
        specs += [ParamSpec() for _ in range(len(layer.blobs) - len(specs))]
        if layer.blobs:
            if layer.name in self.by_layer:
                raise layer.error("another layer with parameters has this name, and files of weights know layers by "
                                  "their names alone; give it another", NetError)
            self.by_layer[layer.name] = layer.blobs
        for index, (blob, spec) in enumerate(zip(layer.blobs, specs, strict=True)):
            layer.param_propagate_down[index] = spec.lr_mult != 0
            if spec.name and spec.name in self._owners:
                self._share(layer, index, blob, spec)
                continue
            learnable = Learnable(blob, f"{layer.name}[{index}]", spec.lr_mult, spec.decay_mult)
            self.learnable.append(learnable)
            if spec.name:
                self._owners[spec.name] = _Owner(layer.name, index, blob, learnable, spec)

    def _share(self, layer: Layer, index: int, blob: Blob, spec: ParamSpec) -> None:
        """Let a parameter lie on the memory of the one that owns its name.

        Caffe: STRICT (the default) wants equal shapes, PERMISSIVE equal counts.
        """
        owner = self._owners[spec.name]
        whose = f"parameter {spec.name!r} is owned by {owner.layer}[{owner.index}] with shape {owner.blob.shape}"
        if spec.share_mode == ParamSpec.PERMISSIVE:
            if blob.count != owner.blob.count:
                raise layer.error(f"{whose} ({owner.blob.count} numbers); parameter {index} here has shape "
                                  f"{blob.shape} ({blob.count})")
        elif blob.shape != owner.blob.shape:
            raise layer.error(f"{whose}; parameter {index} here has shape {blob.shape}. Equal counts suffice with "
                              "share_mode: PERMISSIVE")
        for field in ("lr_mult", "decay_mult"):
            if not spec.HasField(field):
                continue
            if owner.spec.HasField(field) and getattr(owner.spec, field) != getattr(spec, field):
                raise layer.error(f"{whose} and {field} {getattr(owner.spec, field):g}; here it is "
                                  f"{getattr(spec, field):g}: give one value", NetError)
            setattr(owner.learnable, field, getattr(spec, field))
            setattr(owner.spec, field, getattr(spec, field))
        blob.value.share(owner.blob.value)
        blob.grad.share(owner.blob.grad)


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
