"""A net that only computes, made one that trains: data layers before it, a loss behind it.

Everything here works on definitions, with their weights in the layers' blobs; nothing is computed.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Sequence

from .errors import NetError, nearest
from .proto.caffe_pb2 import TEST, TRAIN, LayerParameter, NetParameter, NetStateRule

logger = logging.getLogger(__name__)

# Layers that give probabilities, by the loss that takes what they are made of.
_PROBABILITIES = {"SoftmaxWithLoss": ("Softmax", "LogSoftmax"), "SigmoidCrossEntropyLoss": ("Sigmoid",)}
# Layers whose number of outputs is the number of classes, and where that stands.
_CLASSIFIERS = {"InnerProduct": "inner_product_param", "Convolution": "convolution_param"}


@dataclasses.dataclass(frozen=True)
class Head:
    """What is learnt.

    Attributes
    ----------
    loss : type of the loss layer
    bottom : the blob that it looks at; None takes the model's output, or what its Softmax is made of
    classes : outputs of the last layer with weights, which is then learnt anew; None keeps it
    learning_rate : of a layer that is learnt anew, as a multiple of the others'
    """

    loss: str = "SoftmaxWithLoss"
    bottom: str | None = None
    classes: int | None = None
    learning_rate: float = 10.0


def training_net(model: NetParameter, outputs: Sequence[str], data: NetParameter, head: Head) -> NetParameter:
    """Return a net of the layers of `data`, of those of `model` that the loss needs, and of the loss.

    Parameters
    ----------
    model : layers with their weights, beginning with Input layers
    outputs : the blobs that the model is there for
    data : layers that give the model's inputs by their names (a model with one input takes the first top of all), and
        the labels. Layers that read blobs of the model come behind it; a loss among them is the loss
    head : the loss that is added where `data` has none

    Raises
    ------
    NetError : what is to be joined does not fit
    """
    before, behind = _split(data)
    net = NetParameter(name=model.name)
    net.layer.extend(before)
    given = _tops(before)
    layers = _fed(model, given)
    own_loss = any(_is_loss(layer) for layer in behind)
    if own_loss:
        made = _tops(layers)
        wanted = [name for layer in behind for name in layer.bottom if name in made]
        ends = wanted or list(outputs)
    else:
        ends = [_bottom(layers, outputs, head)]
    layers = _needed(layers, ends)
    if head.classes is not None:
        _renew(layers, ends[0], head)
    net.layer.extend(layers)
    net.layer.extend(behind)
    known = _tops(net.layer)
    for layer in behind:
        if missing := [name for name in layer.bottom if name not in known]:
            raise NetError(f"{layer.name} ({layer.type}) needs the blob {missing[0]!r}, which neither the data "
                           f"layers nor "
                           f"the model make; {nearest(missing[0], known) or 'the model ends with ' + ', '.join(ends)}")
    if not own_loss:
        _add_loss(net, model, _label(before, layers), ends[0], head)
    names = [layer.name for layer in layers]
    if twice := [layer.name for layer in (*before, *behind) if layer.name in names]:
        raise NetError(f"the layer {twice[0]!r} is in the model and in the net with the data layers; rename it in "
                       f"the latter")
    return net


def database_layers(top: str, sources: Iterable[tuple[int, LayerParameter]]) -> NetParameter:
    """Return data layers, one for each phase, with the tops `top` and ``label``.

    Parameters
    ----------
    sources : phases, and what the layer of each says beside its name, tops and phase
    """
    net = NetParameter()
    for phase, source in sources:
        layer = net.layer.add()
        layer.CopyFrom(source)
        layer.name = f"{top}_{'train' if phase == TRAIN else 'test'}"
        layer.top[:] = [top, "label" if top != "label" else "labels"]
        layer.include.add(phase=phase)
    return net


# ---- data -------------------------------------------------------------------------------------------------


def _split(data: NetParameter) -> tuple[list[LayerParameter], list[LayerParameter]]:
    """Layers that read only each other, and those that read something else too."""
    before: list[LayerParameter] = []
    behind: list[LayerParameter] = []
    for layer in data.layer:
        (before if set(layer.bottom) <= _tops(before) and not _is_loss(layer) else behind).append(layer)
    if not before:
        raise NetError("there are no data layers: give --data, or a net with data layers in the solver's field net")
    return before, behind


def _fed(model: NetParameter, given: set[str]) -> list[LayerParameter]:
    """The model's layers without its inputs, which are read from blobs that data layers give."""
    inputs = [name for layer in model.layer if layer.type == "Input" for name in layer.top]
    layers = [_copy(layer) for layer in model.layer if layer.type != "Input"]
    missing = [name for name in inputs if name not in given]
    if not missing:
        return layers
    if len(inputs) > 1:
        raise NetError(f"the model's inputs are {', '.join(inputs)}; no data layer has a top {missing[0]!r}. Name "
                       "the tops of data layers as the inputs")
    return layers


def _copy(layer: LayerParameter) -> LayerParameter:
    copy = LayerParameter()
    copy.CopyFrom(layer)
    return copy


def rename_input(model: NetParameter, data: NetParameter) -> None:
    """Let the one input of a model be the first blob that data layers give, where none has its name.

    Changes `model`; a model of several inputs stays as it is.
    """
    inputs = [name for layer in model.layer if layer.type == "Input" for name in layer.top]
    tops = [name for layer in data.layer if not layer.bottom for name in layer.top]
    if len(inputs) != 1 or not tops or inputs[0] in tops:
        return
    old, new = inputs[0], tops[0]
    if new in _tops(layer for layer in model.layer if layer.type != "Input"):
        raise NetError(f"the model has a blob {new!r} of its own; name the first top of the data layers {old!r}, as "
                       "its input")
    logger.info("The model's input %s is read from the blob %s of the data layers", old, new)
    for layer in model.layer:
        layer.top[:] = [new if name == old else name for name in layer.top]
        layer.bottom[:] = [new if name == old else name for name in layer.bottom]


def _label(before: Sequence[LayerParameter], layers: Sequence[LayerParameter]) -> str:
    """The blob of the data layers that holds what is to be learnt."""
    read = {name for layer in layers for name in layer.bottom}
    tops = [name for layer in before for name in layer.top if name not in read]
    labels = [name for name in tops if name.startswith("label")] or list(dict.fromkeys(tops))
    if not labels:
        raise NetError("the data layers give no labels; let them have a second top, named label")
    return labels[0]


# ---- the loss ---------------------------------------------------------------------------------------------


def _is_loss(layer: LayerParameter) -> bool:
    return "Loss" in layer.type or any(layer.loss_weight)


def _tops(layers: Iterable[LayerParameter]) -> set[str]:
    return {name for layer in layers for name in layer.top}


def _bottom(layers: Sequence[LayerParameter], outputs: Sequence[str], head: Head) -> str:
    """The blob that the loss looks at."""
    known = _tops(layers)
    if head.bottom is not None:
        if head.bottom not in known:
            raise NetError(f"--loss-bottom {head.bottom}: the model has no such blob; "
                           f"{nearest(head.bottom, known) or 'it ends with ' + ', '.join(outputs)}")
        return head.bottom
    if len(outputs) != 1:
        raise NetError(f"the model has {len(outputs)} outputs, {', '.join(outputs)}: say which one is learnt, with "
                       "--loss-bottom NAME")
    makers = {name: layer for layer in layers for name in layer.top}
    maker = makers.get(outputs[0])
    while maker is not None and maker.type in ("Split", "Reshape", "Flatten") and maker.bottom[0] in makers and \
            makers[maker.bottom[0]].type in (*_PROBABILITIES.get(head.loss, ()), "Split"):
        maker = makers[maker.bottom[0]]
    if maker is not None and maker.type in _PROBABILITIES.get(head.loss, ()):
        logger.info("%s looks at %s, of which %s makes the model's output %s", head.loss, maker.bottom[0], maker.type,
                    outputs[0])
        return maker.bottom[0]
    return outputs[0]


def _unused(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _needed(layers: Sequence[LayerParameter], ends: Sequence[str]) -> list[LayerParameter]:
    """The layers that blobs depend on. Those behind them would only be computed in vain, and their blobs logged."""
    wanted, kept = set(ends), []
    for layer in reversed(layers):
        if wanted.intersection(layer.top):
            kept.append(layer)
            wanted.update(layer.bottom)
    kept.reverse()
    if idle := [name for layer in kept for name in layer.top if name not in wanted]:
        kept.append(LayerParameter(name=_unused("idle", {layer.name for layer in kept}), type="Silence", bottom=idle))
    return kept


def _renew(layers: Sequence[LayerParameter], end: str, head: Head) -> None:
    """Give the last layer with weights another number of outputs, and forget its weights."""
    assert head.classes is not None
    makers = {name: layer for layer in layers for name in layer.top}
    layer = makers.get(end)
    while layer is not None and not layer.blobs and len(layer.bottom) == 1:
        layer = makers.get(layer.bottom[0])
    if layer is None or layer.type not in _CLASSIFIERS:
        what = f"{layer.name} ({layer.type})" if layer is not None else "the data"
        raise NetError(f"--classes replaces an InnerProduct or a Convolution; before the loss stands {what}. Choose "
                       "another blob with --loss-bottom, or write the net by hand (barista convert)")
    param = getattr(layer, _CLASSIFIERS[layer.type])
    logger.info("Layer %s (%s) is learnt anew, with %d outputs instead of %d", layer.name, layer.type, head.classes,
                param.num_output)
    param.num_output = head.classes
    param.weight_filler.Clear()
    param.weight_filler.type = "xavier"
    layer.ClearField("blobs")
    # Another name, so that no file of weights gives it the old ones.
    layer.name = f"{layer.name}_{head.classes}_classes"
    rates = [param.lr_mult for param in layer.param] + [1.0, 1.0]
    decays = [param.decay_mult for param in layer.param] + [1.0, 1.0]
    layer.ClearField("param")
    for rate, decay in list(zip(rates, decays, strict=True))[:2 if param.bias_term else 1]:
        layer.param.add(lr_mult=rate * head.learning_rate, decay_mult=decay)


def _add_loss(net: NetParameter, model: NetParameter, label: str, bottom: str, head: Head) -> None:
    """Add the loss, and for classes the accuracy in the phase TEST."""
    taken = _tops(net.layer) | {layer.name for layer in net.layer}
    name = _unused("loss", taken)
    loss = net.layer.add(name=name, type=head.loss, bottom=[bottom, label], top=[name])
    if head.loss != "SoftmaxWithLoss":
        return
    name = _unused("accuracy", taken)
    accuracy = net.layer.add(name=name, type="Accuracy", bottom=[bottom, label], top=[name],
                             include=[NetStateRule(phase=TEST)])
    softmax = next((layer for layer in model.layer if layer.type == "Softmax" and bottom in layer.bottom), None)
    if softmax is not None and softmax.softmax_param.axis != 1:
        loss.softmax_param.axis = accuracy.accuracy_param.axis = softmax.softmax_param.axis
