"""Pictures of nets: the layout's promises, what stands in the boxes, and the files."""

from __future__ import annotations

import io
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import barista as caffe
from barista import draw
from barista.cli.main import main
from barista.errors import DataError, UnsupportedError
from barista.frontends.prototxt import parse_net, read_net
from barista.graph_layout import lay_out
from barista.net_spec import layers as L  # noqa: N812 (the name that scripts give it)
from barista.proto.caffe_pb2 import NetParameter
from barista.resources import find

# ---- layout -----------------------------------------------------------------------------------------------


@st.composite
def graphs(pick: st.DrawFn) -> tuple[list[tuple[float, float]], list[tuple[int, int]]]:
    """Boxes, and edges that lead from lower numbers to higher ones."""
    count = pick(st.integers(1, 9))
    boxes = [(pick(st.sampled_from([0.5, 1.0, 2.0])), pick(st.sampled_from([0.2, 1.0, 3.0]))) for _ in range(count)]
    edges = {(one, two) for two in range(count) for one in range(two) if pick(st.booleans()) and pick(st.booleans())}
    return boxes, sorted(edges)


@settings(max_examples=80, deadline=None)
@given(graphs())
def test_boxes_stand_apart_and_edges_lead_on(graph: tuple[list[tuple[float, float]], list[tuple[int, int]]]) -> None:
    boxes, edges = graph
    layout = lay_out(boxes, edges, 0.3, 0.2)
    for one, (place, (long, wide)) in enumerate(zip(layout.middles, boxes, strict=True)):
        assert long / 2 - 1e-9 <= place.along <= layout.length - long / 2 + 1e-9
        assert wide / 2 - 1e-9 <= place.across <= layout.width - wide / 2 + 1e-9
        for other, (far_long, far_wide) in zip(layout.middles[:one], boxes, strict=False):
            along = abs(place.along - other.along) - (long + far_long) / 2
            across = abs(place.across - other.across) - (wide + far_wide) / 2
            assert along >= 0.3 - 1e-9 or across >= 0.2 - 1e-9
    for (source, target), route in zip(edges, layout.routes, strict=True):
        assert (route[0], route[-1]) == (layout.middles[source], layout.middles[target])
        assert all(after.along >= before.along for before, after in itertools.pairwise(route))
        for point in route[1:-1]:  # no edge passes through a box
            for place, (long, wide) in zip(layout.middles, boxes, strict=True):
                assert abs(point.along - place.along) > long / 2 - 1e-9 or abs(point.across - place.across) > wide / 2


def test_a_row_is_straight_and_branches_do_not_cross() -> None:
    row = lay_out([(1, 1)] * 4, [(0, 1), (1, 2), (2, 3)], 0.5, 0.5)
    assert {place.across for place in row.middles} == {0.5}
    assert [place.along for place in row.middles] == [0.5, 2, 3.5, 5]
    # 0 feeds 1 and 2; their successors were numbered the other way round.
    branches = lay_out([(1, 1)] * 5, [(0, 1), (0, 2), (2, 3), (1, 4)], 0.5, 0.5).middles
    assert (branches[1].across < branches[2].across) == (branches[4].across < branches[3].across)


def test_a_source_stands_before_what_it_feeds() -> None:
    middles = lay_out([(1, 1)] * 4, [(0, 1), (1, 2), (3, 2)], 0.5, 0.5).middles
    assert middles[3].along == middles[1].along


def test_a_cycle_is_refused() -> None:
    with pytest.raises(ValueError, match="has a cycle"):
        lay_out([(1, 1)] * 2, [(0, 1), (1, 0)], 0.5, 0.5)


# ---- labels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "label"), [
    ('type: "Convolution" convolution_param { num_output: 8 kernel_size: 3 stride: 2 pad: 1 group: 2 dilation: 2 }',
     "kernel 3, stride 2, pad 1, dilation 2, group 2, outputs 8"),
    ('type: "Deconvolution" convolution_param { num_output: 8 kernel_h: 3 kernel_w: 5 stride: 1 }',
     "kernel 3x5, outputs 8"),
    ('type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride_h: 2 stride_w: 1 pad: 1 }',
     "AVE, kernel 3, stride 2x1, pad 1"),
    ('type: "Pooling" pooling_param { global_pooling: true }', "MAX, global"),
    ('type: "InnerProduct" inner_product_param { num_output: 10 }', "outputs 10"),
    ('type: "Eltwise" eltwise_param { operation: PROD }', "PROD"),
    ('type: "Dropout" dropout_param { dropout_ratio: 0.4 } include { phase: TRAIN }', "ratio 0.4, TRAIN only"),
    ('type: "Slice" slice_param { axis: 2 }', "axis 2"),
    ('type: "SoftmaxWithLoss" loss_weight: 0.3', "weight 0.3"),
    ('type: "Input" input_param { shape { dim: 1 dim: 3 } }', "1 x 3"),
    ('type: "Python" python_param { module: "mine" layer: "Odd" }', "mine.Odd"),
    ('type: "ReLU"', "")])
def test_numbers_of_layers(text: str, label: str) -> None:
    layer = parse_net(f'layer {{ name: "x" {text} }}').layer[0]
    assert draw.get_layer_label(layer) == "\n".join(["x", layer.type, *([label] if label else [])])


def test_rates() -> None:
    layer = parse_net('layer { name: "x" type: "Scale" param { lr_mult: 0 } param { lr_mult: 2.5 } }').layer[0]
    assert draw.get_layer_label(layer, display_lrm=True).endswith("lr_mult 0, 2.5")


def test_what_pycaffe_tells_of_a_layer() -> None:
    assert draw.get_pooling_types_dict() == {0: "MAX", 1: "AVE", 2: "STOCHASTIC"}
    data, conv, ip, relu = (parse_net(f"layer {{ name: 'x' {text} }}").layer[0] for text in (
        "type: 'Data' data_param { batch_size: 7 }", "type: 'Deconvolution' convolution_param { num_output: 3 }",
        "type: 'InnerProduct' inner_product_param { num_output: 4 } param { lr_mult: 0.5 }", "type: 'ReLU'"))
    assert [draw.get_edge_label(layer) for layer in (data, conv, ip, relu)] == ["Batch 7", "3", "4", '""']
    assert (draw.get_layer_lr_mult(conv), draw.get_layer_lr_mult(ip)) == ((1, 1), (0.5, 1))
    ip.param.add(lr_mult=0)
    assert draw.get_layer_lr_mult(ip) == (0.5, 0)
    ip.param.add()
    for layer, message in ((relu, "layer 'x' is of type ReLU"), (ip, "has 3 param entries; give at most two")):
        with pytest.raises(DataError, match=message):
            draw.get_layer_lr_mult(layer)


def test_types_of_one_kind_share_a_colour() -> None:
    colour = draw.choose_color_by_layertype
    assert colour("Convolution") == colour("Deconvolution") != colour("Pooling")
    assert colour("EuclideanLoss") == colour("MyOwnLoss") != colour("MyOwn")
    known = {name for _, names in draw._KINDS.values() for name in names}
    assert set(caffe.layer_type_list()) - known <= {
        "Axpy", "BatchReindex", "Binary", "Concat", "Crop", "DetectionOutput", "Eltwise", "Expand", "Filter", "Flatten",
        "HDF5Output", "Interp", "Pad", "Permute", "PriorBox", "Python", "Reduce", "Reduction", "Reshape", "Resize",
        "Silence", "Slice", "Split", "StridedSlice", "Take", "Tile",
    } | {name for name in caffe.layer_type_list() if name.endswith("Loss")}


# ---- pictures ---------------------------------------------------------------------------------------------


def texts(svg: bytes) -> list[str]:
    return re.findall(r"<text [^>]*>([^<]*)</text>", svg.decode())


def places(svg: bytes) -> dict[str, tuple[float, float]]:
    """Where each text is, the last of a name."""
    found = re.findall(r'<text [^>]*transform="translate\(([\d.]+) ([\d.]+)\)"[^>]*>([^<]*)</text>', svg.decode())
    if not found:
        found = re.findall(r'<text [^>]*?x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)</text>', svg.decode())
    return {name: (float(x), float(y)) for x, y, name in found}


def lenet() -> NetParameter:
    return read_net(find("prototxt", "lenet", "train_val.prototxt"))


@pytest.mark.parametrize(("rankdir", "axis", "sign"), [("LR", 0, 1), ("RL", 0, -1), ("TB", 1, 1), ("BT", 1, -1)])
def test_directions(rankdir: str, axis: int, sign: int) -> None:
    at = places(draw.draw_net(lenet(), rankdir, "svg"))
    row = [at[name][axis] * sign for name in ("data", "pool1", "Convolution", "pool2", "relu1", "accuracy")]
    assert row == sorted(row)
    assert len(set(row)) == len(row)


def test_phases() -> None:
    everything, train, test = (texts(draw.draw_net(lenet(), "LR", "svg", phase))
                               for phase in (None, caffe.TRAIN, caffe.TEST))
    assert everything.count("Data") == 2
    assert everything.count("label") == 1  # both phases' data layers make one blob
    assert train.count("Data") == test.count("Data") == 1
    assert "Accuracy" not in train
    assert "Accuracy" in test


def test_layers_in_place_stand_in_the_row() -> None:
    """Data, conv, its blob, a layer in place, and behind it what reads the blob then."""
    conv = L.Convolution(L.Input(), num_output=1, kernel_size=1, name="conv")
    net = L.Pooling(L.ReLU(conv, in_place=True, name="relu"), name="pool").to_proto()
    svg = draw.draw_net(net, "LR", "svg")
    at = places(svg)
    assert at["Convolution1"][0] < at["relu"][0] < at["pool"][0]
    assert svg.count(b"stroke-dasharray") == 1


def test_blobs_that_nobody_makes_and_names_that_come_again() -> None:
    net = parse_net("""layer { name: "one" type: "Power" bottom: "x" top: "y" }
                       layer { name: "two" type: "Power" bottom: "y" top: "x" }
                       layer { name: "$a_1$" type: "Concat" bottom: "x" bottom: "x" top: "z" }""")
    assert sorted(texts(draw.draw_net(net, "TB", "svg"))) == sorted(
        ["one", "two", "$a_1$", "Power", "Power", "Concat", "axis 1", "x", "x", "y", "z"])


def test_an_old_net_and_an_empty_one() -> None:
    old = NetParameter(name="old", input=["data"], input_dim=[1, 3, 4, 4])
    old.layers.add(name="conv", type="CONVOLUTION", bottom=["data"], top=["conv"])
    before = old.SerializeToString()
    assert "Convolution" in texts(draw.draw_net(old, "LR", "svg"))
    assert old.SerializeToString() == before
    assert texts(draw.draw_net(NetParameter(name="nothing"), "LR", "svg")) == ["nothing"]


def test_pictures_of_pixels(tmp_path: Path) -> None:
    picture = np.asarray(Image.open(io.BytesIO(draw.draw_net(lenet(), "TB"))).convert("RGB"))
    assert picture.shape[0] > picture.shape[1]
    blue = np.array([int(draw.choose_color_by_layertype("Convolution")[i:i + 2], 16) for i in (1, 3, 5)])
    assert (picture == blue).all(axis=2).sum() > 5000  # two boxes
    draw.draw_net_to_file(lenet(), tmp_path / "net.pdf")
    assert (tmp_path / "net.pdf").read_bytes().startswith(b"%PDF")


def test_the_largest_network_and_the_same_file_each_time() -> None:
    net = read_net(find("prototxt", "googlenet", "train_val.prototxt"))
    svg = draw.draw_net(net, "LR", "svg", caffe.TEST)
    assert {layer.name for layer in net.layer if not layer.include} <= set(texts(svg))
    assert draw.draw_net(lenet(), "LR", "svg") == draw.draw_net(lenet(), "LR", "svg")


def test_what_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no direction 'UP' to draw a net in; choose one of LR, TB, BT, RL"):
        draw.draw_net(lenet(), "UP")
    with pytest.raises(DataError, match=r"'dot' is no format of a picture; give one of .*pdf.*png"):
        draw.draw_net_to_file(lenet(), tmp_path / "net.dot")
    with pytest.raises(DataError, match="there is no folder"):
        draw.draw_net_to_file(lenet(), tmp_path / "nowhere" / "net.svg")
    with pytest.raises(UnsupportedError, match=r"draw_net_to_file\(net, 'net.svg'\) draws the net itself"):
        draw.get_pydot_graph(lenet(), "LR")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, out = str(find("prototxt", "lenet", "train_val.prototxt")), tmp_path / "net.svg"
    assert main(["draw_net", net, str(out)]) == 0
    assert out.read_bytes() == draw.draw_net(lenet(), "LR", "svg")
    assert main(["draw_net", "--rankdir", "BT", "--phase", "TEST", "--display_lrm", net, str(out)]) == 0
    assert out.read_bytes() == draw.draw_net(lenet(), "BT", "svg", caffe.TEST, True)
    assert main(["draw_net", net, str(tmp_path / "net.xyz")]) == 1
    assert "'xyz' is no format of a picture" in capsys.readouterr().err
