"""Nets written in Python: names, parameters, and that what comes out is a net."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import barista as caffe
from barista.errors import NetError
from barista.net_spec import NetSpec, Top, assign_proto, param_name_dict, to_proto
from barista.net_spec import layers as L  # noqa: N812 (the name that scripts give it)
from barista.net_spec import params as P  # noqa: N812
from barista.proto.caffe_pb2 import LayerParameter


def little() -> NetSpec:
    n = NetSpec()
    n.data, n.label = L.DummyData(shape=[{"dim": [4, 1, 6, 6]}, {"dim": 4}], ntop=2)
    n.conv = L.Convolution(n.data, kernel_size=3, num_output=2, weight_filler={"type": "xavier"},
                           param=[{"lr_mult": 1}, {"lr_mult": 2, "decay_mult": 0}])
    n.relu = L.ReLU(n.conv, in_place=True)
    n.pool = L.Pooling(n.relu, pool=P.Pooling.AVE, kernel_h=2, kernel_w=4)
    n.ip = L.InnerProduct(n.pool, num_output=3, weight_filler={"type": "gaussian", "std": 0.1})
    n.loss = L.SoftmaxWithLoss(n.ip, n.label, loss_weight=2)
    n.acc = L.Accuracy(n.ip, n.label, top_k=2, include={"phase": caffe.TEST})
    return n


def test_named_layers() -> None:
    net = little().to_proto()
    assert [layer.name for layer in net.layer] == ["data", "conv", "relu", "pool", "ip", "loss", "acc"]
    assert [list(layer.top) for layer in net.layer] == [
        ["data", "label"], ["conv"], ["conv"], ["pool"], ["ip"], ["loss"], ["acc"]]
    assert list(net.layer[3].bottom) == ["conv"]  # what stands in place keeps its blob's name
    assert [(spec.lr_mult, spec.decay_mult) for spec in net.layer[1].param] == [(1, 1), (2, 0)]
    assert net.layer[1].convolution_param.weight_filler.type == "xavier"
    assert net.layer[3].pooling_param.pool == P.Pooling.AVE
    assert list(net.layer[5].loss_weight) == [2]
    assert net.layer[6].accuracy_param.top_k == 2
    assert [rule.phase for rule in net.layer[6].include] == [caffe.TEST]


def test_it_computes() -> None:
    net = caffe.Net(little().to_proto(), caffe.TEST)
    assert sorted(net.forward()) == ["acc", "loss"]
    assert net.blobs["pool"].data.shape == (4, 2, 3, 1)


def test_names_by_type_and_number() -> None:
    one, two = L.Input(shape={"dim": [1, 2]}, ntop=2)
    inner = L.InnerProduct(L.InnerProduct(one, num_output=1), num_output=1)
    net = to_proto(inner, L.Sigmoid(two))
    assert [layer.name for layer in net.layer] == ["Input1", "InnerProduct1", "InnerProduct2", "Sigmoid1"]
    assert list(net.layer[0].top) == ["Input1", "Input2"]
    assert list(net.layer[3].bottom) == ["Input2"]
    assert [layer.name for layer in inner.to_proto().layer] == ["Input1", "InnerProduct1", "InnerProduct2"]


def test_only_what_is_needed_in_the_order_of_need() -> None:
    n = NetSpec()
    data = L.Input()
    n.late = L.Power(L.ReLU(data))
    n.unused = L.AbsVal(data)
    del n.unused
    n["data/x"] = data
    assert [layer.name for layer in n.to_proto().layer] == ["data/x", "ReLU1", "late"]
    assert "data/x" in n
    assert "unused" not in n
    assert list(n.tops) == ["late", "data/x"]


def test_a_thousand_layers_in_a_row() -> None:
    top = L.Input()
    for _ in range(1500):
        top = L.ReLU(top)
    assert len(to_proto(top).layer) == 1501


def test_layers_without_tops() -> None:
    n = NetSpec()
    n.a, n.b = L.DummyData(shape={"dim": 3}, ntop=2)
    n.hush = L.Silence(n.a, ntop=0)
    n.hush2 = L.Silence(n.b, ntop=0)
    net = n.to_proto()
    assert [(layer.name, list(layer.bottom), list(layer.top)) for layer in net.layer[1:]] == [
        ("hush", ["a"], []), ("hush2", ["b"], [])]
    assert to_proto(L.Silence(L.Input(), ntop=0)).layer[1].name == "Silence1"
    assert caffe.Net(net, caffe.TEST).forward() == {}


def test_every_parameter_message_has_a_type() -> None:
    names = param_name_dict()
    assert names["Convolution"] == "convolution_param"
    assert names["Normalize"] == "norm_param"
    assert names["Parameter"] == "parameter_param"
    assert len(names) == sum(field.name.endswith("_param") for field in LayerParameter.DESCRIPTOR.fields)


@pytest.mark.parametrize(("kind", "key", "value", "where"), [
    ("Deconvolution", "num_output", 3, "convolution_param"), ("LSTM", "num_output", 3, "recurrent_param"),
    ("SoftmaxWithLoss", "ignore_label", 3, "loss_param"), ("SoftmaxWithLoss", "axis", 3, "softmax_param"),
    ("ReLU6", "negative_slope", 3, "relu_param"), ("Normalize", "across_spatial", 0, "norm_param"),
    ("Python", "param_str", "x", "python_param"), ("DetectionOutput", "num_classes", 3, "detection_output_param")])
def test_parameters_of_related_types(kind: str, key: str, value: object, where: str) -> None:
    layer = to_proto(getattr(L, kind)(**{key: value})).layer[0]
    assert getattr(getattr(layer, where), key) == value


def test_values() -> None:
    data = L.DummyData(shape=[{"dim": np.array([2, 3])}], data_filler=({"type": "constant", "value": np.float32(0.5)},))
    layer = to_proto(L.Pooling(data, pool="STOCHASTIC", kernel_size=np.int64(2))).layer
    assert list(layer[0].dummy_data_param.shape[0].dim) == [2, 3]
    assert layer[0].dummy_data_param.data_filler[0].value == 0.5
    assert layer[1].pooling_param.pool == P.Pooling.STOCHASTIC
    assert layer[1].pooling_param.kernel_size == 2
    again = to_proto(L.Pooling(data, pooling_param=layer[1].pooling_param, propagate_down=False)).layer[1]
    assert again.pooling_param == layer[1].pooling_param
    assert list(again.propagate_down) == [False]


def test_an_empty_message_is_there() -> None:
    layer = LayerParameter()
    assign_proto(layer, "relu_param", {})
    assert layer.HasField("relu_param")


def test_types_nobody_knows_are_kept() -> None:
    layer = to_proto(*L.OfMyOwn(name="mine", loss_weight=[1, 0], ntop=2)).layer[0]
    assert (layer.type, layer.name, list(layer.top)) == ("OfMyOwn", "mine", ["OfMyOwn1", "OfMyOwn2"])


def test_specs_can_be_copied() -> None:
    n = little()
    assert copy.deepcopy(n).to_proto() == n.to_proto()


def test_wrong_fields() -> None:
    data = L.Input()
    for top, message in (
            (L.Convolution(data, kernal_size=3),
             r"^Convolution1 \(Convolution\): ConvolutionParameter has no field 'kernal_size'; did you mean 'kernel_"),
            (L.Pooling(data, pool="MAXIMUM"),
             "the field 'pool' cannot hold 'MAXIMUM': choose one of MAX, AVE, STOCHASTIC"),
            (L.InnerProduct(data, num_output="ten"), "InnerProductParameter: the field 'num_output' cannot hold 'ten'"),
            (L.InnerProduct(data, weight_filler="xavier"),
             r"the field 'weight_filler' cannot hold 'xavier': write dict\(type='xavier'\)$"),
            (L.Input(shape=3), r"the field 'shape' cannot hold 3: write dict\(\.\.\.\) with fields of BlobShape: dim$"),
            (L.Convolutoin(data, num_output=3), "'num_output'; nor are there parameters of 'Convolutoin': did you mean "
                                                r"'Convolution' or 'Deconvolution'\?$"),
            (L.OfMyOwn(data, size=3), "LayerParameter has no field 'size'$")):
        with pytest.raises(NetError, match=message):
            top.to_proto()


def test_wrong_inputs_and_names() -> None:
    pair = L.DummyData(ntop=2)
    with pytest.raises(TypeError, match=r"^Concat input 1 is not a Top \(type is <class 'tuple'>\)$"):
        L.Concat(pair[0], pair)
    with pytest.raises(NetError, match=r"ReLU: in_place needs a bottom for each of its 1 top\(s\); it has 0"):
        L.ReLU(in_place=True)
    with pytest.raises(TypeError, match=r"to_proto takes tops of layers, not .*; write to_proto\(\*tops\) for several"):
        to_proto(pair)
    n = NetSpec()
    with pytest.raises(TypeError, match="'data' is to be a top of a layer, not <class 'tuple'>"):
        n.data = pair
    n.data = pair[0]
    assert isinstance(n.data, Top)
    for error in (NetError, AttributeError):
        with pytest.raises(error, match=r"^the net has no top 'dta'; did you mean 'data'\?$"):
            _ = n.dta
    with pytest.raises(KeyError):
        del n["dta"]
    for call, message in ((lambda: P.Poolin.MAX, r"no parameters of 'Poolin'; did you mean 'Pooling' or 'PoolingNd'\?"),
                          (lambda: P.Pooling.MAXX, r"^PoolingParameter has no value 'MAXX'; did you mean 'MAX'\?$"),
                          (lambda: P.Pooling.X, "no value 'X'; choose one of MAX, AVE, STOCHASTIC"),
                          (lambda: P.BatchNorm.MAX, "BatchNormParameter has no value 'MAX'; it defines none")):
        with pytest.raises(AttributeError, match=message):
            call()
    assert P.Pooling.PoolMethod.Name(P.Pooling.AVE) == "AVE"
