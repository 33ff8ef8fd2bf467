"""From V0 to V1: the oldest layers, whose settings of all types stood in one message.

A V0 layer is a ``V1LayerParameter`` that holds its bottoms, its tops and a
``V0LayerParameter`` (field ``layer``) with the rest.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Any

from google.protobuf.message import Message

from barista.errors import nearest
from barista.proto.caffe_pb2 import NetParameter, V0LayerParameter, V1LayerParameter
from barista.proto.upgrade_notes import UpgradeNotes, counted

V1_TYPE_OF = {
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}

_WEIGHTED = {"conv": "convolution_param", "innerproduct": "inner_product_param"}
_WINDOWED = {"conv": "convolution_param", "pool": "pooling_param"}
_BATCHED = {"data": "data_param", "hdf5_data": "hdf5_data_param", "images": "image_data_param",
            "window_data": "window_data_param"}

# Where each setting goes: its new name and, by V0 type, the message that holds it.
# A setting of a type that is not listed had no effect.
_PLACES: dict[str, tuple[str, dict[str, str]]] = {
    "num_output": ("num_output", _WEIGHTED),
    "biasterm": ("bias_term", _WEIGHTED),
    "weight_filler": ("weight_filler", _WEIGHTED),
    "bias_filler": ("bias_filler", _WEIGHTED),
    "pad": ("pad", _WINDOWED),
    "kernelsize": ("kernel_size", _WINDOWED),
    "group": ("group", {"conv": "convolution_param"}),
    "stride": ("stride", _WINDOWED),
    "pool": ("pool", {"pool": "pooling_param"}),
    "dropout_ratio": ("dropout_ratio", {"dropout": "dropout_param"}),
    "local_size": ("local_size", {"lrn": "lrn_param"}),
    "alpha": ("alpha", {"lrn": "lrn_param"}),
    "beta": ("beta", {"lrn": "lrn_param"}),
    "k": ("k", {"lrn": "lrn_param"}),
    "source": ("source", {**_BATCHED, "infogain_loss": "infogain_loss_param"}),
    "batchsize": ("batch_size", _BATCHED),
    "rand_skip": ("rand_skip", {"data": "data_param", "images": "image_data_param"}),
    "shuffle_images": ("shuffle", {"images": "image_data_param"}),
    "new_height": ("new_height", {"images": "image_data_param"}),
    "new_width": ("new_width", {"images": "image_data_param"}),
    "concat_dim": ("concat_dim", {"concat": "concat_param"}),
    "det_fg_threshold": ("fg_threshold", {"window_data": "window_data_param"}),
    "det_bg_threshold": ("bg_threshold", {"window_data": "window_data_param"}),
    "det_fg_fraction": ("fg_fraction", {"window_data": "window_data_param"}),
    "det_context_pad": ("context_pad", {"window_data": "window_data_param"}),
    "det_crop_mode": ("crop_mode", {"window_data": "window_data_param"}),
}
# These go to transform_param whatever the type, as in Caffe.
_TRANSFORMS = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}
_KEPT = ("name", "blobs", "blobs_lr", "weight_decay")


def upgrade_v0_net(net: NetParameter, notes: UpgradeNotes) -> None:
    """Turn the V0 layers of `net`, if there are any, into V1 layers; merge padding layers.

    Raises
    ------
    PrototxtError : an unknown layer type or bottom blob, or a padding layer where none can be
    """
    count = sum(layer.HasField("layer") for layer in net.layers)
    if not count:
        return
    merged = _merge_padding(net, notes)
    for layer in net.layers:
        if layer.HasField("layer"):
            _upgrade_layer(layer, notes)
    text = f"upgraded {counted(count, 'layer')} from the V0 form to the V1 form"
    if merged:
        text += f"; {counted(merged, 'padding layer')} became the pad of what follows"
    notes.done(text)


def copy_field(message: Message, name: str, value: Any) -> None:
    """Set field `name` of `message`: append to, extend, copy or assign, as its kind asks for."""
    current = getattr(message, name)
    if isinstance(current, MutableSequence):
        current.extend(value if isinstance(value, MutableSequence) else [value])
    elif isinstance(current, Message):
        current.CopyFrom(value)
    else:
        setattr(message, name, value)


def _merge_padding(net: NetParameter, notes: UpgradeNotes) -> int:
    """Give the pad of each padding layer to the layers that read it; return how many there were."""
    makers: dict[str, V1LayerParameter | None] = {name: None for name in net.input}
    for layer in net.layers:
        name = _name(layer)
        for index, bottom in enumerate(layer.bottom):
            if bottom not in makers:
                raise notes.error(f"layer {name!r}: no layer before it has the top {bottom!r} that it reads; "
                                  f"{nearest(bottom, makers) or 'give the layers in order'}")
            maker = makers[bottom]
            if maker is None or maker.layer.type != "padding":
                continue
            padding = _name(maker)
            if layer.layer.type not in _WINDOWED:
                raise notes.error(f"layer {name!r} of type {layer.layer.type!r} reads the padding layer "
                                  f"{padding!r}; only conv and pool can take over its padding")
            if (len(layer.bottom), len(maker.bottom), len(maker.top)) != (1, 1, 1):
                raise notes.error(
                    f"layer {name!r} cannot take over the padding of {padding!r}: both need a single bottom "
                    f"(they have {len(layer.bottom)} and {len(maker.bottom)}) and {padding!r} a single top "
                    f"(it has {len(maker.top)})")
            if layer.layer.pad not in (0, maker.layer.pad):
                notes.warn(f"layer {name!r}: pad {maker.layer.pad} of the padding layer {padding!r} replaces "
                           f"its own pad {layer.layer.pad}, as in Caffe")
            layer.layer.pad = maker.layer.pad
            layer.bottom[index] = maker.bottom[0]
        makers.update((top, layer) for top in layer.top)
    kept = [layer for layer in net.layers if layer.layer.type != "padding"]
    merged = len(net.layers) - len(kept)
    if merged:
        shell = NetParameter(layers=kept)
        del net.layers[:]
        net.layers.extend(shell.layers)
    return merged


def _upgrade_layer(layer: V1LayerParameter, notes: UpgradeNotes) -> None:
    """Spread the V0 settings of `layer` over its V1 fields."""
    old = V0LayerParameter()
    old.CopyFrom(layer.layer)
    layer.ClearField("layer")
    if old.HasField("type"):
        if old.type not in V1_TYPE_OF:
            hint = nearest(old.type, V1_TYPE_OF) or "known are " + ", ".join(sorted(V1_TYPE_OF))
            raise notes.error(f"layer {old.name!r}: {old.type!r} is not a V0 layer type; {hint}")
        copy_field(layer, "type", V1LayerParameter.LayerType.Value(V1_TYPE_OF[old.type]))
    for field, value in old.ListFields():
        try:
            _place(layer, old, field.name, value, notes)
        except ValueError as error:
            raise notes.error(f"layer {old.name!r}: {field.name} cannot be {value}: {error}") from error


def _place(layer: V1LayerParameter, old: V0LayerParameter, name: str, value: object,
           notes: UpgradeNotes) -> None:
    """Put the V0 setting `name` of `old` where the V1 form has it."""
    new_name, messages = _PLACES.get(name, (name, {}))
    if name == "type":
        return
    if name in _KEPT:
        copy_field(layer, name, value)
    elif name in _TRANSFORMS:
        copy_field(layer.transform_param, _TRANSFORMS[name], value)
    elif name == "hdf5_output_param" and old.type == "hdf5_output":
        layer.hdf5_output_param.CopyFrom(old.hdf5_output_param)
    elif old.type in messages:
        copy_field(getattr(layer, messages[old.type]), new_name, value)
    else:
        notes.warn(f"layer {old.name!r}: {name} has no meaning for the type {old.type!r} and is left out")


def _name(layer: V1LayerParameter) -> str:
    return layer.layer.name or layer.name
