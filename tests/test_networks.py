"""The networks that ship: known sizes, one story told by the three files of a folder and the README."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator

import pytest

from barista.frontends.prototxt import read_net, read_solver
from barista.net import Net
from barista.proto.caffe_pb2 import TEST, TRAIN, LayerParameter, NetParameter, SolverParameter
from barista.resources import find


@dataclasses.dataclass(frozen=True)
class Known:
    """What is known of a network from elsewhere.

    Attributes
    ----------
    parameters, multiply_accumulates : of the network that classifies
    image : C, H, W of a stored image
    scores : shape of an image's probabilities
    test_images : size of the test set
    auxiliary : parameters that exist while training only
    statistics : numbers that BatchNorm measures
    """

    parameters: int
    multiply_accumulates: int
    image: tuple[int, int, int]
    scores: tuple[int, ...]
    test_images: int
    auxiliary: int = 0
    statistics: int = 0


# Parameters as the well-known caffemodels have them; multiply-accumulates counted without Barista's help.
KNOWN = {
    "lenet": Known(431_080, 2_293_000, (1, 28, 28), (10,), 10_000),
    "lenet_digits": Known(431_080, 2_293_000, (1, 28, 28), (10,), 360),
    "cifar10_quick": Known(145_578, 12_354_176, (3, 32, 32), (10,), 10_000),
    "cifar10_full": Known(89_578, 12_298_240, (3, 32, 32), (10,), 10_000),
    "resnet20_cifar10": Known(272_474, 40_813_184, (3, 32, 32), (10,), 10_000, statistics=1_589),
    "alexnet": Known(60_965_224, 724_406_816, (3, 256, 256), (1000,), 50_000),
    "googlenet": Known(6_998_552, 1_582_671_872, (3, 256, 256), (1000,), 50_000, auxiliary=6_379_728),
    "squeezenet_1_1": Known(1_235_496, 387_747_520, (3, 256, 256), (1000, 1, 1), 50_000),
    "vgg16": Known(138_357_544, 15_470_264_320, (3, 256, 256), (1000,), 50_000),
}

# Filling the weights of these takes seconds.
SLOW_TO_FILL = ("alexnet", "googlenet", "vgg16")

every_network = pytest.mark.parametrize("folder", KNOWN)
every_network_filled = pytest.mark.parametrize("folder", [
    pytest.param(folder, marks=pytest.mark.slow if folder in SLOW_TO_FILL else ()) for folder in KNOWN])


def definition(folder: str, file: str) -> NetParameter:
    return read_net(find("prototxt", folder, file))


def solver(folder: str) -> SolverParameter:
    return read_solver(find("prototxt", folder, "solver.prototxt"))


def in_phase(layer: LayerParameter, phase: int) -> bool:
    """Whether the layer is there in a phase, for networks that only use `include { phase }`."""
    assert not layer.exclude
    return not layer.include or any(rule.phase == phase for rule in layer.include)


def data_layer(net: NetParameter, phase: int) -> LayerParameter:
    (layer,) = (layer for layer in net.layer if layer.type == "Data" and in_phase(layer, phase))
    return layer


def classifier(folder: str) -> Net:
    """The deploy network with a batch of one."""
    net = definition(folder, "deploy.prototxt")
    net.layer[0].input_param.shape[0].dim[0] = 1
    return Net(net, TEST)


def without_databases(folder: str, phase: int) -> Net:
    """The training network with a batch of one from an Input of the shape that its Data layer gives."""
    net = definition(folder, "train_val.prototxt")
    layer = data_layer(net, phase)
    channels, height, width = KNOWN[folder].image
    crop = layer.transform_param.crop_size
    assert crop <= min(height, width)
    layer.type = "Input"
    layer.input_param.shape.add(dim=[1, channels, crop or height, crop or width])
    layer.input_param.shape.add(dim=[1])
    return Net(net, phase)


def types(net: Net) -> dict[str, str]:
    return {layer.name: layer.type for layer in net.layers}


def parameter_count(net: Net, *, statistics: bool = False) -> int:
    """How many numbers training learns, or how many BatchNorm measures."""
    kinds = types(net)
    return sum(blob.count for name, blobs in net.params.items() for blob in blobs
               if (kinds[name] == "BatchNorm") == statistics)


def weight_layers(net: Net) -> list[str]:
    return [name for name, kind in types(net).items() if kind in ("Convolution", "InnerProduct")]


def multiply_accumulates(net: Net) -> int:
    """Products of weights and inputs in a forward pass of one image, zeros of the padding included."""
    # Every output position uses all weights once; an inner product has one position, and prod(()) is 1.
    positions = {name: math.prod(net.blobs[name].shape[2:]) for name in weight_layers(net)}
    return sum(net.params[name][0].count * count for name, count in positions.items())


def readme_rows() -> Iterator[list[str]]:
    """The cells of the README's table of networks."""
    for line in find("prototxt", "README.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 7 and cells[0].startswith("`"):
            yield [cells[0].strip("`"), *cells[1:]]


def shared(net: NetParameter, phase: int) -> list[LayerParameter]:
    """The layers between data and scores, less what only matters while training."""
    result = []
    for layer in net.layer:
        at_an_end = layer.type in ("Data", "Input", "Softmax", "SoftmaxWithLoss", "Accuracy")
        if at_an_end or layer.type == "Dropout" or not in_phase(layer, phase):
            continue
        bare = LayerParameter()
        bare.CopyFrom(layer)
        bare.ClearField("param")
        bare.batch_norm_param.ClearField("moving_average_fraction")
        if not bare.batch_norm_param.ListFields():
            bare.ClearField("batch_norm_param")
        for param in (bare.convolution_param, bare.inner_product_param):
            param.ClearField("weight_filler")
            param.ClearField("bias_filler")
        result.append(bare)
    return result


def test_every_network_that_ships_is_known() -> None:
    assert {path.name for path in find("prototxt").iterdir() if path.is_dir()} == set(KNOWN)


@every_network
def test_classifier_has_the_known_size(folder: str) -> None:
    known, net = KNOWN[folder], classifier(folder)
    assert parameter_count(net) == known.parameters
    assert parameter_count(net, statistics=True) == known.statistics
    assert multiply_accumulates(net) == known.multiply_accumulates
    assert net.outputs == ["prob"]
    assert net.blobs["prob"].shape == (1, *known.scores)


@every_network_filled
def test_training_network_has_the_known_size(folder: str) -> None:
    net = without_databases(folder, TRAIN)
    assert parameter_count(net) == KNOWN[folder].parameters + KNOWN[folder].auxiliary
    assert {types(net)[name] for name in net.outputs} == {"SoftmaxWithLoss"}
    frozen = {learnable.name.split("[")[0] for learnable in net.learnable if learnable.lr_mult == 0}
    assert {types(net)[name] for name in frozen} <= {"BatchNorm"}


@every_network_filled
def test_testing_network_has_the_known_size(folder: str) -> None:
    net = without_databases(folder, TEST)
    assert parameter_count(net) == KNOWN[folder].parameters
    assert {types(net)[name] for name in net.outputs} == {"SoftmaxWithLoss", "Accuracy"}


@every_network
def test_deploy_has_the_layers_that_are_tested(folder: str) -> None:
    trained = shared(definition(folder, "train_val.prototxt"), TEST)
    deployed = shared(definition(folder, "deploy.prototxt"), TEST)
    assert len(deployed) >= 7
    for one, other in zip(trained, deployed, strict=True):
        assert one == other


@every_network
def test_solver_counts_every_test_image_once(folder: str) -> None:
    param = solver(folder)
    net = read_net(find("prototxt", folder) / param.net)
    batch = data_layer(net, TEST).data_param.batch_size
    assert list(param.test_iter) == [KNOWN[folder].test_images // batch]
    assert batch * param.test_iter[0] == KNOWN[folder].test_images


@every_network
def test_solver_runs_where_everybody_can(folder: str) -> None:
    param = solver(folder)
    assert param.HasField("solver_mode") and param.solver_mode == SolverParameter.CPU
    assert param.snapshot_prefix == folder
    assert 0 < param.display <= param.test_interval <= param.max_iter


@every_network
def test_biases_and_weights_start_from_named_fillers(folder: str) -> None:
    for layer in definition(folder, "train_val.prototxt").layer:
        if layer.type in ("Convolution", "InnerProduct"):
            param = layer.convolution_param if layer.type == "Convolution" else layer.inner_product_param
            assert param.weight_filler.type in ("xavier", "msra", "gaussian"), layer.name


def test_readme_gives_the_known_sizes() -> None:
    rows = {row[0]: row[1:] for row in readme_rows()}
    assert list(rows) == list(KNOWN)
    for folder, (_, _, size, layers, parameters, operations) in rows.items():
        deploy = definition(folder, "deploy.prototxt")
        assert "x".join(str(n) for n in deploy.layer[0].input_param.shape[0].dim[1:]) == size
        assert sum(layer.type in ("Convolution", "InnerProduct") for layer in deploy.layer) == int(layers)
        assert int(parameters.replace(",", "")) == KNOWN[folder].parameters
        assert int(operations.replace(",", "")) == KNOWN[folder].multiply_accumulates


@every_network
def test_comments_give_the_known_sizes(folder: str) -> None:
    text = find("prototxt", folder, "train_val.prototxt").read_text(encoding="utf-8")
    comment = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    numbers = {int(number.replace(",", "")) for number in re.findall(r"\d{1,3}(?:,\d{3})+", comment)}
    assert KNOWN[folder].parameters in numbers
    assert KNOWN[folder].auxiliary == 0 or KNOWN[folder].parameters + KNOWN[folder].auxiliary in numbers
    assert KNOWN[folder].statistics == 0 or KNOWN[folder].statistics in numbers


# Weights are loaded by layer name, so the names of well-known caffemodels are part of the interface.
VGG_CONVOLUTIONS = [f"conv{stage}_{i}" for stage in range(1, 6) for i in range(1, 3 if stage < 3 else 4)]
INCEPTION = [f"inception_{tag}/{part}" for tag in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
             for part in ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")]
FIRE = [f"fire{i}/{part}" for i in range(2, 10) for part in ("squeeze1x1", "expand1x1", "expand3x3")]
NAMES = {
    "lenet": ["conv1", "conv2", "ip1", "ip2"],
    "cifar10_quick": ["conv1", "conv2", "conv3", "ip1", "ip2"],
    "cifar10_full": ["conv1", "conv2", "conv3", "ip1"],
    "alexnet": ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"],
    "googlenet": ["conv1/7x7_s2", "conv2/3x3_reduce", "conv2/3x3", *INCEPTION, "loss3/classifier"],
    "squeezenet_1_1": ["conv1", *FIRE, "conv10"],
    "vgg16": [*VGG_CONVOLUTIONS, "fc6", "fc7", "fc8"],
}


@pytest.mark.parametrize("folder", NAMES)
def test_weights_keep_the_names_of_known_caffemodels(folder: str) -> None:
    layers = definition(folder, "deploy.prototxt").layer
    assert [layer.name for layer in layers if layer.type in ("Convolution", "InnerProduct")] == NAMES[folder]
