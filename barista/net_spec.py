"""Networks written in Python: ``caffe.NetSpec``, ``caffe.layers``, ``caffe.params`` and ``caffe.to_proto``.

Calling a layer type makes its tops, naming them in a `NetSpec` names blobs and layers, and ``to_proto`` gives the
definition::

    n = caffe.NetSpec()
    n.data, n.label = L.Data(source="train_lmdb", backend=P.Data.LMDB, batch_size=64, ntop=2)
    n.ip = L.InnerProduct(n.data, num_output=10, weight_filler=dict(type="xavier"))
    n.loss = L.SoftmaxWithLoss(n.ip, n.label)
    text = str(n.to_proto())

Arguments are fields: first of the type's own parameters (``num_output``), then of the layer (``param``, ``include``,
``loss_weight``); whole messages (``transform_param=dict(scale=0.5)``) may be given too.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import NetError, nearest
from .proto import caffe_pb2
from .proto.caffe_pb2 import LayerParameter, NetParameter

if TYPE_CHECKING:
    from google.protobuf.message import Message

# A field of a message; protobuf's Python and C implementations have classes of their own for it.
FieldDescriptor = Any

# Types whose parameters are another type's, by the field of the layer that holds them.
_BORROWED = {
    "Deconvolution": ("convolution_param",),
    "EuclideanLoss": ("loss_param",),
    "Im2col": ("convolution_param",),
    "InfogainLoss": ("infogain_loss_param", "loss_param"),
    "LSTM": ("recurrent_param",),
    "LogSoftmax": ("softmax_param",),
    "MultinomialLogisticLoss": ("loss_param",),
    "RNN": ("recurrent_param",),
    "ReLU6": ("relu_param",),
    "SigmoidCrossEntropyLoss": ("loss_param",),
    "SoftmaxWithLoss": ("softmax_param", "loss_param"),
}


def param_name_dict() -> dict[str, str]:
    """Layer type to the field of a layer that holds the type's own parameters: Convolution to convolution_param."""
    fields: Iterable[FieldDescriptor] = LayerParameter.DESCRIPTOR.fields
    return {field.message_type.name.removesuffix("Parameter"): field.name
            for field in fields if field.name.endswith("_param")}


_OWN_PARAM = param_name_dict()
_LAYER_FIELDS = frozenset(LayerParameter.DESCRIPTOR.fields_by_name)


def assign_proto(proto: Message, name: str, value: Any) -> None:
    """Set a field of a message from plain Python values.

    Parameters
    ----------
    proto : the message
    name : the field
    value : a number, text or the name of an enum's value; a mapping for a message; for a repeated field one such thing
        or several, which are added to those that are there

    Raises
    ------
    NetError : there is no such field, or it cannot hold the value
    """
    field: FieldDescriptor = proto.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        hint = nearest(name, proto.DESCRIPTOR.fields_by_name)
        raise NetError(f"{proto.DESCRIPTOR.name} has no field {name!r}" + (f"; {hint}" if hint else ""))
    try:
        if not hasattr(getattr(proto, name), "extend"):
            _assign_one(proto, field, value)
            return
        for item in _several(value):
            if field.message_type is not None:
                _fill(getattr(proto, name).add(), item)
            else:
                getattr(proto, name).append(_plain(field, item))
    except NetError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise NetError(f"{proto.DESCRIPTOR.name}: the field {name!r} cannot hold {value!r}: {error}") from error


def _assign_one(proto: Message, field: FieldDescriptor, value: Any) -> None:
    if field.message_type is not None:
        getattr(proto, field.name).SetInParent()
        _fill(getattr(proto, field.name), value)
    else:
        setattr(proto, field.name, _plain(field, value))


def _fill(proto: Message, value: Any) -> None:
    """Give a message the fields of a mapping, or those of another message of its kind."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            assign_proto(proto, key, item)
    elif not isinstance(value, type(proto)):
        fields: Mapping[str, FieldDescriptor] = proto.DESCRIPTOR.fields_by_name
        named = isinstance(value, str) and "type" in fields
        raise ValueError(f"write dict(type={value!r})" if named else f"write dict(...) with fields of "
                         f"{proto.DESCRIPTOR.name}: {', '.join(fields)}")
    else:
        proto.CopyFrom(value)


def _several(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list | tuple | range | np.ndarray) else (value,)


def _plain(field: FieldDescriptor, value: Any) -> Any:
    """A value as protocol buffers take it: NumPy's numbers as Python's, names of an enum as its numbers."""
    if isinstance(value, np.generic):
        value = value.item()
    if field.enum_type is not None and isinstance(value, str):
        known = field.enum_type.values_by_name
        if value not in known:
            raise ValueError(f"choose one of {', '.join(known)}")
        return known[value].number
    return value


class Top:
    """One output of a layer.

    Attributes
    ----------
    fn : the layer, a `Function`
    n : which of its tops this is
    """

    def __init__(self, fn: Function, n: int) -> None:
        self.fn, self.n = fn, n

    def to_proto(self) -> NetParameter:
        """The net that ends in this top; blobs and layers get names by type and number (``Convolution1``)."""
        return to_proto(self)

    def _to_proto(self, net: _Writer) -> None:
        net.add(self.fn)


class Function:
    """A layer: its type, the tops that go in, its parameters, and the tops that come out.

    Parameters
    ----------
    type_name : the layer's type; one that Barista does not know is kept as it is
    inputs : tops of other layers
    params : fields of the definition, and ``ntop`` (number of tops, 1 where it is not said) and ``in_place`` (the tops
        are the bottoms)

    Attributes
    ----------
    tops : the outputs
    params : the fields, without ``ntop`` and ``in_place``

    Raises
    ------
    TypeError : an input is no top
    """

    def __init__(self, type_name: str, inputs: Iterable[Any], params: Mapping[str, Any]) -> None:
        self.type_name = type_name
        self.inputs: tuple[Top, ...] = tuple(inputs)
        for index, given in enumerate(self.inputs):
            if not isinstance(given, Top):
                raise TypeError(f"{type_name} input {index} is not a Top (type is {type(given)})")
        self.params = dict(params)
        self.ntop: int = self.params.pop("ntop", 1)
        self.in_place: bool = self.params.pop("in_place", False)
        if self.in_place and len(self.inputs) < self.ntop:
            raise NetError(f"{type_name}: in_place needs a bottom for each of its {self.ntop} top(s); "
                           f"it has {len(self.inputs)}")
        self.tops = tuple(Top(self, n) for n in range(self.ntop))

    def _to_proto(self, net: _Writer) -> None:
        net.add(self)


class _Writer:
    """Layers in the order in which they are needed, and names for those that got none.

    Parameters
    ----------
    names : tops and functions to the names that somebody gave them
    """

    def __init__(self, names: Mapping[Top | Function, str]) -> None:
        self._names = dict(names)
        self._counts: Counter[str] = Counter()
        self._layers: OrderedDict[Function, LayerParameter] = OrderedDict()

    def add(self, last: Function) -> None:
        """Add a layer behind all that it needs; deep nets must not meet Python's limit of recursion."""
        ahead = [last]
        while ahead:
            fn = ahead[-1]
            missing = [top.fn for top in fn.inputs if top.fn not in self._layers]
            if fn in self._layers:
                ahead.pop()
            elif missing:
                ahead += reversed(missing)
            else:
                self._layers[fn] = self._layer(fn)

    def net(self) -> NetParameter:
        """What was added."""
        return NetParameter(layer=self._layers.values())

    def _layer(self, fn: Function) -> LayerParameter:
        bottoms = [self._layers[top.fn].top[top.n] for top in fn.inputs]
        # A layer in place makes no blob of its own: its tops' names name the layer alone.
        tops = bottoms[:fn.ntop] if fn.in_place else [self._name(top, fn) for top in fn.tops]
        name = self._name(fn.tops[0] if fn.ntop else fn, fn)
        layer = LayerParameter(type=fn.type_name, bottom=bottoms, top=tops, name=name)
        for key, value in fn.params.items():
            try:
                assign_proto(self._message(layer, key), key, value)
            except NetError as error:
                # The layer's own fields are asked where a type has no parameters, as a misspelt one.
                types = {*_OWN_PARAM, *_BORROWED}
                hint = "" if fn.type_name in types or key in _LAYER_FIELDS else nearest(fn.type_name, types)
                raise NetError(f"{name} ({fn.type_name}): {error}" + (
                    f"; nor are there parameters of {fn.type_name!r}: {hint}" if hint else "")) from None
        return layer

    def _name(self, thing: Top | Function, fn: Function) -> str:
        if thing not in self._names:
            self._counts[fn.type_name] += 1
            self._names[thing] = f"{fn.type_name}{self._counts[fn.type_name]}"
        return self._names[thing]

    @staticmethod
    def _message(layer: LayerParameter, key: str) -> Message:
        """The part of a layer that has a field: its type's own parameters, or else the layer itself."""
        fields: Mapping[str, FieldDescriptor] = LayerParameter.DESCRIPTOR.fields_by_name
        if key.endswith("param") and key in fields:
            return layer
        own = (_OWN_PARAM[layer.type],) if layer.type in _OWN_PARAM else ()
        holders = [holder for holder in own + _BORROWED.get(layer.type, ())
                   if key in fields[holder].message_type.fields_by_name]
        if holders:
            return getattr(layer, holders[0])
        if own and key not in fields:
            return getattr(layer, own[0])  # which then says what it has instead
        return layer


def to_proto(*tops: Top | Function) -> NetParameter:
    """The net that makes all these tops, its blobs and layers named by type and number."""
    net = _Writer({})
    for top in tops:
        if not isinstance(top, Top | Function):
            raise TypeError(f"to_proto takes tops of layers, not {type(top)}; write to_proto(*tops) for several")
        top._to_proto(net)
    return net.net()


class NoTopError(NetError, AttributeError, KeyError):
    """A `NetSpec` has no top of this name."""

    __str__ = Exception.__str__  # KeyError would put the message in quotes


class NetSpec:
    """A net whose tops are named by assigning them: ``n.conv1 = L.Convolution(n.data, ...)`` or ``n["conv1"] = ...``.

    Attributes
    ----------
    tops : name to top, in the order of assignment
    """

    tops: OrderedDict[str, Top | Function]

    def __init__(self) -> None:
        super().__setattr__("tops", OrderedDict())

    def __setattr__(self, name: str, value: Top | Function) -> None:
        self[name] = value

    def __getattr__(self, name: str) -> Any:
        # Copying asks an object that is not set up yet.
        if name.startswith("__") or name == "tops":
            raise AttributeError(name)
        return self[name]

    def __delattr__(self, name: str) -> None:
        del self[name]

    def __setitem__(self, name: str, value: Top | Function) -> None:
        if not isinstance(value, Top | Function):
            raise TypeError(f"{name!r} is to be a top of a layer, not {type(value)}; a layer with several tops "
                            "(ntop) needs as many names")
        self.tops[name] = value

    def __getitem__(self, name: str) -> Any:
        if name not in self.tops:
            raise NoTopError(f"the net has no top {name!r}; "
                             f"{nearest(name, self.tops) or 'it has ' + (', '.join(self.tops) or 'none')}")
        return self.tops[name]

    def __delitem__(self, name: str) -> None:
        self[name]
        del self.tops[name]

    def __contains__(self, name: object) -> bool:
        return name in self.tops

    def to_proto(self) -> NetParameter:
        """The definition: every layer that a named top needs, those without a name named by type and number."""
        net = _Writer({top: name for name, top in self.tops.items()})
        for top in self.tops.values():
            top._to_proto(net)
        return net.net()


class Layers:
    """``caffe.layers``: an attribute for each type of layer, a function that makes its tops."""

    def __getattr__(self, type_name: str) -> Any:
        if type_name.startswith("__"):
            raise AttributeError(type_name)

        def make(*inputs: Top, **params: Any) -> Any:
            fn = Function(type_name, inputs, params)
            return fn if fn.ntop == 0 else fn.tops[0] if fn.ntop == 1 else fn.tops

        make.__name__ = make.__qualname__ = type_name
        make.__doc__ = f"Make a layer of type {type_name}: its top, its tops, or with ntop=0 the layer."
        return make


class Values:
    """What the message of a type's parameters defines: the values of its enumerations.

    Parameters
    ----------
    message : the class of the message

    Raises
    ------
    AttributeError : on an unknown name
    """

    def __init__(self, message: type[Message]) -> None:
        self._message = message

    def __getattr__(self, name: str) -> Any:
        # Copying asks an object that is not set up yet.
        if name.startswith("__") or name == "_message":
            raise AttributeError(name)
        try:
            return getattr(self._message, name)
        except AttributeError:
            kinds: Iterable[Any] = self._message.DESCRIPTOR.enum_types
            values = [value.name for kind in kinds for value in kind.values]
            known = nearest(name, values) or (f"choose one of {', '.join(values)}" if values else "it defines none")
            raise AttributeError(f"{self._message.DESCRIPTOR.name} has no value {name!r}; {known}") from None


class Parameters:
    """``caffe.params``: the values of enumerations, such as ``P.Pooling.MAX``."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        message = getattr(caffe_pb2, f"{name}Parameter", None)
        if message is None:
            hint = nearest(name, _OWN_PARAM)
            raise AttributeError(f"there are no parameters of {name!r}" + (f"; {hint}" if hint else ""))
        return Values(message)


layers = Layers()
params = Parameters()
