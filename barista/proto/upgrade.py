"""Upgrade of older nets and solvers to the form that the rest of Barista knows.

The steps and their order are Caffe's: V0 layers, transformation settings inside
data layers, V1 layers, inputs without a layer, learning rates of BatchNorm; for
solvers the type given as an enum.
"""

from __future__ import annotations

from barista.proto.caffe_pb2 import LayerParameter, NetParameter, ParamSpec, SolverParameter, V1LayerParameter
from barista.proto.upgrade_notes import UpgradeNotes, counted
from barista.proto.upgrade_v0 import copy_field, upgrade_v0_net

TYPE_OF_V1 = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
}

SOLVER_TYPE_OF = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}

_TRANSFORMS = ("scale", "mean_file", "crop_size", "mirror")
_V1_DATA_PARAMS = {
    V1LayerParameter.DATA: "data_param",
    V1LayerParameter.IMAGE_DATA: "image_data_param",
    V1LayerParameter.WINDOW_DATA: "window_data_param",
}
_DATA_PARAMS = {"Data": "data_param", "ImageData": "image_data_param"}
_OLD_INPUT_AXES = 4


def upgrade_net(net: NetParameter, source: str = "<net>") -> list[str]:
    """Upgrade `net` in place to the current form.

    Parameters
    ----------
    net : the net; after an error it may be upgraded in part
    source : its file, for log lines and errors

    Returns
    -------
    list of str
        what was upgraded or left out, in order; empty for a net in the current form.
        Each note is logged too, upgrades as INFO and what is left out as WARNING.

    Raises
    ------
    PrototxtError
        both ``layer`` and ``layers``, an unknown V0 type, or old inputs whose sizes do
        not fit their number. Caffe logs the first and goes on without ``layer``.
    """
    notes = UpgradeNotes(source)
    if net.layer and net.layers:
        raise notes.error(f"the net has both 'layer' ({len(net.layer)} times) and its older form 'layers' "
                          f"({len(net.layers)} times); keep the one form or the other")
    upgrade_v0_net(net, notes)
    _upgrade_transforms(net, notes)
    _upgrade_v1_layers(net, notes)
    _upgrade_input(net, notes)
    _upgrade_batch_norm(net, notes)
    return notes.texts


def upgrade_solver(solver: SolverParameter, source: str = "<solver>") -> list[str]:
    """Upgrade `solver` in place, and with it the nets that are written inside it.

    Caffe: leaves nets inside a solver as they are, so that old layers there are lost.

    Parameters
    ----------
    solver : the solver definition
    source : its file, for log lines and errors

    Returns
    -------
    list of str
        what was upgraded, as for `upgrade_net`

    Raises
    ------
    PrototxtError : both ``type`` and ``solver_type`` are given, or a net inside cannot be upgraded
    """
    notes = UpgradeNotes(source)
    if solver.HasField("solver_type"):
        old = SolverParameter.SolverType.Name(solver.solver_type)
        if solver.HasField("type"):
            raise notes.error(f"both type ({solver.type!r}) and the older solver_type ({old}) are given; "
                              "keep type and delete solver_type")
        solver.type = SOLVER_TYPE_OF[old]
        solver.ClearField("solver_type")
        notes.done(f"upgraded solver_type: {old} to type: {solver.type!r}")
    inside = [("net_param", solver.net_param)] if solver.HasField("net_param") else []
    if solver.HasField("train_net_param"):
        inside.append(("train_net_param", solver.train_net_param))
    inside += [(f"test_net_param {index}", net) for index, net in enumerate(solver.test_net_param)]
    for place, net in inside:
        notes.texts += [f"{place}: {text}" for text in upgrade_net(net, f"{source} ({place})")]
    return notes.texts


def _upgrade_transforms(net: NetParameter, notes: UpgradeNotes) -> None:
    """Move scale, mean_file, crop_size and mirror of V1 data layers to transform_param."""
    moved = 0
    for layer in net.layers:
        data = getattr(layer, _V1_DATA_PARAMS[layer.type]) if layer.type in _V1_DATA_PARAMS else None
        if data is None:
            continue
        old = [name for name in _TRANSFORMS if data.HasField(name)]
        for name in old:
            setattr(layer.transform_param, name, getattr(data, name))
            data.ClearField(name)
        moved += bool(old)
    if moved:
        notes.done(f"moved the transformation settings of {counted(moved, 'data layer')} to transform_param")
    for current in net.layer:
        # Caffe: current layers have these fields and never read them.
        name = _DATA_PARAMS.get(current.type, "")
        for unread in _TRANSFORMS if name else ():
            if getattr(current, name).HasField(unread):
                notes.warn(f"layer {current.name!r}: {name}.{unread} is not read, as in Caffe; "
                           f"write transform_param {{ {unread} }} instead")


def _upgrade_v1_layers(net: NetParameter, notes: UpgradeNotes) -> None:
    """Turn ``layers`` into ``layer``."""
    if not net.layers:
        return
    for old in net.layers:
        _upgrade_v1_layer(old, net.layer.add())
    notes.done(f"upgraded {counted(len(net.layers), 'layer')} from the V1 form")
    del net.layers[:]


def _upgrade_v1_layer(old: V1LayerParameter, new: LayerParameter) -> None:
    """Copy `old` into the empty layer `new`: fields of equal name, type and parameter lists."""
    for field, value in old.ListFields():
        if field.name == "type":
            new.type = TYPE_OF_V1[V1LayerParameter.LayerType.Name(old.type)]
        elif field.name == "param":
            for index, name in enumerate(old.param):
                _param(new, index).name = name
        elif field.name == "blob_share_mode":
            for index, mode in enumerate(old.blob_share_mode):
                copy_field(_param(new, index), "share_mode", mode)
        elif field.name == "blobs_lr":
            for index, rate in enumerate(old.blobs_lr):
                _param(new, index).lr_mult = rate
        elif field.name == "weight_decay":
            for index, decay in enumerate(old.weight_decay):
                _param(new, index).decay_mult = decay
        else:
            copy_field(new, field.name, value)


def _param(layer: LayerParameter, index: int) -> ParamSpec:
    """Return parameter specification `index` of `layer`, made with those before it if need be."""
    while len(layer.param) <= index:
        layer.param.add()
    return layer.param[index]


def _upgrade_input(net: NetParameter, notes: UpgradeNotes) -> None:
    """Turn input, input_dim and input_shape into an Input layer at the front."""
    if not net.input:
        return
    names = ", ".join(net.input)
    if net.input_shape:
        if len(net.input_shape) != len(net.input):
            raise notes.error(f"the net has {counted(len(net.input), 'input')} ({names}) but "
                              f"{counted(len(net.input_shape), 'input_shape')}; give one for each input")
        shapes = [list(shape.dim) for shape in net.input_shape]
        if net.input_dim:
            notes.warn("input_dim is left out, because input_shape is given too")
    else:
        if len(net.input_dim) not in (0, _OLD_INPUT_AXES * len(net.input)):
            raise notes.error(
                f"the net has {counted(len(net.input), 'input')} ({names}) but "
                f"{counted(len(net.input_dim), 'input_dim')}; give four for each input, "
                "or write an input_shape for each")
        shapes = [list(net.input_dim[first:first + _OLD_INPUT_AXES])
                  for first in range(0, len(net.input_dim), _OLD_INPUT_AXES)]
    if shapes:
        layer = LayerParameter(name="input", type="Input", top=net.input)
        for shape in shapes:
            layer.input_param.shape.add(dim=shape)
        net.layer.insert(0, layer)
        notes.done(f"upgraded {counted(len(shapes), 'input')} ({names}) to an Input layer")
    else:
        # Caffe: inputs without any size make no layer.
        notes.warn(f"inputs without sizes are left out: {names}; write a layer of type Input")
    for field in ("input", "input_dim", "input_shape"):
        net.ClearField(field)


def _upgrade_batch_norm(net: NetParameter, notes: UpgradeNotes) -> None:
    """Keep the solver away from the three statistics of BatchNorm layers that list them."""
    upgraded = 0
    for layer in net.layer:
        if layer.type != "BatchNorm" or len(layer.param) != 3:
            continue
        if all(p.HasField("lr_mult") and p.HasField("decay_mult") and p.lr_mult == p.decay_mult == 0
               for p in layer.param):
            continue
        for param in layer.param:
            param.lr_mult = 0
            param.decay_mult = 0
        upgraded += 1
    if upgraded:
        notes.done(f"set lr_mult and decay_mult of {counted(upgraded, 'BatchNorm layer')} to 0")
