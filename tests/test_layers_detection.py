"""PriorBox and DetectionOutput: against loops over boxes, SSD's conventions, tops that change size, wrong arguments."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from little_nets import inputs, layer, make

import barista
from barista.cli.test import report
from barista.errors import DataError, NetError, UnsupportedError
from barista.net import Net
from barista.ops.base import OpSet
from barista.ops.cpu import CpuOps

Array = npt.NDArray[Any]


# ---- PriorBox -------------------------------------------------------------------------------------------


def prior_net(param: str, ops: OpSet, map_: tuple[int, ...] = (1, 2, 2, 3), image: tuple[int, ...] = (1, 3, 60, 90),
              head: str = "force_backward: true") -> Net:
    net = make(inputs(map=map_, image=image) + layer("PriorBox", "map image", "y", f"prior_box_param {{ {param} }}"),
               ops, head=head)
    net.forward_pass()
    return net


def priors_loop(cells: tuple[int, int], image: tuple[float, float], step: tuple[float, float], offset: float,
                least: list[float], most: list[float], ratios: list[float], clip: bool) -> Iterator[list[float]]:
    """Boxes in the order of SSD; `ratios` are those besides 1."""
    for row in range(cells[0]):
        for column in range(cells[1]):
            for index, size in enumerate(least):
                shapes = [(int(size), int(size))]
                if most:
                    shapes.append((math.sqrt(int(size) * int(most[index])),) * 2)
                shapes += [(int(size) * ratio ** 0.5, int(size) * ratio ** -0.5) for ratio in ratios]
                for width, height in shapes:
                    middle = ((column + offset) * step[1], (row + offset) * step[0])
                    box = [(middle[0] - width / 2) / image[1], (middle[1] - height / 2) / image[0],
                           (middle[0] + width / 2) / image[1], (middle[1] + height / 2) / image[0]]
                    yield [min(1, max(0, edge)) for edge in box] if clip else box


PRIORS = {
    "one": ("min_size: 30", {"least": [30]}),
    "max": ("min_size: 30 max_size: 60", {"least": [30], "most": [60]}),
    "ratios": ("min_size: 30 max_size: 60 aspect_ratio: 2 aspect_ratio: 3",
               {"least": [30], "most": [60], "ratios": [2, 1 / 2, 3, 1 / 3]}),
    "no_flip": ("min_size: 30 aspect_ratio: 2 flip: false", {"least": [30], "ratios": [2]}),
    "doubles": ("min_size: 30 aspect_ratio: 1 aspect_ratio: 2 aspect_ratio: 0.5 aspect_ratio: 2",
                {"least": [30], "ratios": [2, 1 / 2]}),
    "several": ("min_size: 10 min_size: 30 max_size: 20 max_size: 45 aspect_ratio: 2",
                {"least": [10, 30], "most": [20, 45], "ratios": [2, 1 / 2]}),
    "whole_pixels": ("min_size: 35.84 max_size: 76.8 aspect_ratio: 2",
                     {"least": [35], "most": [76], "ratios": [2, 1 / 2]}),
    "clip": ("min_size: 80 clip: true", {"least": [80], "clip": True}),
    "step": ("min_size: 30 step: 16", {"least": [30], "step": (16, 16)}),
    "step_hw": ("min_size: 30 step_h: 16 step_w: 8", {"least": [30], "step": (16, 8)}),
    "img_size": ("min_size: 30 img_size: 300", {"least": [30], "image": (300, 300)}),
    "img_hw": ("min_size: 30 img_h: 200 img_w: 100", {"least": [30], "image": (200, 100)}),
    "offset": ("min_size: 30 offset: 0", {"least": [30], "offset": 0}),
}


@pytest.mark.parametrize("name", PRIORS)
def test_priors_against_a_loop(name: str, ops: OpSet) -> None:
    param, given_ = PRIORS[name]
    rule = {"image": (60, 90), "offset": 0.5, "most": [], "ratios": [], "clip": False, **given_}
    rule.setdefault("step", (rule["image"][0] / 2, rule["image"][1] / 3))
    expected = np.array(list(priors_loop((2, 3), **rule)))
    top = prior_net(param, ops).blobs["y"].data
    assert top.shape == (1, 2, expected.size)
    np.testing.assert_allclose(top[0, 0], expected.reshape(-1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(top[0, 1], np.full(expected.size, 0.1, np.float32))


def test_variances(cpu: CpuOps) -> None:
    one = prior_net("min_size: 30 variance: 0.2", cpu).blobs["y"].data
    four = prior_net("min_size: 30 variance: [0.1, 0.2, 0.3, 0.4]", cpu).blobs["y"].data
    np.testing.assert_array_equal(one[0, 1], np.full(24, 0.2, np.float32))
    np.testing.assert_array_equal(four[0, 1].reshape(6, 4), np.tile(np.float32([0.1, 0.2, 0.3, 0.4]), (6, 1)))


def test_priors_follow_the_shapes(cpu: CpuOps) -> None:
    net = prior_net("min_size: 30", cpu)
    net.blobs["map"].reshape(1, 2, 1, 2)
    net.blobs["image"].reshape(1, 3, 40, 40)
    net.forward_pass()
    expected = list(priors_loop((1, 2), (40, 40), (40, 20), 0.5, [30], [], [], False))
    np.testing.assert_allclose(net.blobs["y"].data[0, 0], np.reshape(expected, -1), rtol=1e-6)


def test_priors_have_no_gradient(cpu: CpuOps) -> None:
    """They depend on shapes alone; a branch to them adds nothing to the gradient of the map."""
    net = prior_net("min_size: 30", cpu)
    for name in ("map", "image", "y"):
        net.blobs[name].diff[...] = 3
    net.backward_pass()
    assert not net.blobs["map"].diff.any()
    assert not net.blobs["image"].diff.any()


WRONG_PRIORS = {
    "min_size": ("", "has no min_size; give at least one, in pixels"),
    "min_size_0": ("min_size: 0", "min_size 0 must be greater than 0"),
    "max_sizes": ("min_size: 1 min_size: 2 max_size: 3", "has 2 min_size and 1 max_size; give none, or one for each"),
    "max_size": ("min_size: 30 max_size: 30", "max_size 30 must be greater than its min_size 30"),
    "ratio": ("min_size: 30 aspect_ratio: -2", "aspect_ratio -2 must be greater than 0"),
    "variances": ("min_size: 30 variance: [0.1, 0.2]", "has 2 variance; give one for all, or 4"),
    "variance": ("min_size: 30 variance: 0", "variance 0 must be greater than 0"),
    "img_both": ("min_size: 30 img_size: 3 img_h: 4", "gives both img_size and img_h or img_w; give one of them"),
    "img_w": ("min_size: 30 img_h: 4", "img_w is 0; give img_h and img_w, both greater than 0, or img_size"),
    "img_size": ("min_size: 30 img_size: 0", "img_size is 0; give img_h and img_w"),
    "step_both": ("min_size: 30 step: 3 step_w: 4", "gives both step and step_h or step_w; give one of them"),
    "step_h": ("min_size: 30 step_w: 4", "step_h is 0; give step_h and step_w, both greater than 0, or step"),
    "step": ("min_size: 30 step: -1", "step is -1; give step_h and step_w"),
}


@pytest.mark.parametrize("name", WRONG_PRIORS)
def test_wrong_priors(name: str, cpu: CpuOps) -> None:
    param, message = WRONG_PRIORS[name]
    with pytest.raises(NetError) as caught:
        prior_net(param, cpu)
    assert str(caught.value).startswith("layer (PriorBox): ")
    assert message in str(caught.value)


def test_very_many_priors(cpu: CpuOps) -> None:
    with pytest.raises(NetError, match=r"would make 1200000000 boxes for the feature map \(1, 1, 30000, 40000\); "):
        prior_net("min_size: 30", cpu, map_=(1, 1, 30000, 40000))


def test_priors_of_nothing(cpu: CpuOps) -> None:
    with pytest.raises(NetError, match=r"the feature map \(1, 2, 0, 3\) has no cells"):
        prior_net("min_size: 30", cpu, map_=(1, 2, 0, 3))
    with pytest.raises(NetError, match=r"the image \(1, 3, 0, 5\) is empty; give img_size"):
        prior_net("min_size: 30", cpu, image=(1, 3, 0, 5))


# ---- DetectionOutput ------------------------------------------------------------------------------------


def detection_net(param: str, ops: OpSet, images: int = 2, priors: int = 6, classes: int = 3, shared: bool = True,
                  behind: str = "") -> Net:
    boxes = 1 if shared else classes
    return make(inputs(loc=(images, priors * boxes * 4), conf=(images, priors * classes), prior=(1, 2, priors * 4))
                + layer("DetectionOutput", "loc conf prior", "y",
                        f"detection_output_param {{ num_classes: {classes} share_location: {str(shared).lower()} "
                        f"{param} }}") + behind, ops, barista.TEST, head="")


def fill(net: Net, seed: int, spread: float = 0.5) -> None:
    """Priors around the image's middle, scores with doubles, locations that move boxes by about their size."""
    rng = np.random.default_rng(seed)
    priors = net.blobs["prior"].data.reshape(2, -1, 4)
    low = rng.uniform(0, 0.6, (priors.shape[1], 2))
    priors[0] = np.concatenate([low, low + rng.uniform(0.1, 0.4, low.shape)], axis=1)
    priors[1] = rng.uniform(0.1, 0.3, priors[1].shape)
    net.blobs["loc"].data[...] = rng.uniform(-spread, spread, net.blobs["loc"].shape)
    conf = net.blobs["conf"].data
    conf[...] = np.round(rng.uniform(-0.2, 1, conf.shape), 1)


def decode_loop(target: Array, prior: Array, variance: Array, code: str, in_target: bool) -> list[float]:
    v = [1.0] * 4 if in_target else variance
    width, height = prior[2] - prior[0], prior[3] - prior[1]
    if code == "CORNER":
        return [prior[k] + v[k] * target[k] for k in range(4)]
    if code == "CORNER_SIZE":
        return [prior[k] + v[k] * target[k] * (height if k % 2 else width) for k in range(4)]
    x = v[0] * target[0] * width + (prior[0] + prior[2]) / 2
    y = v[1] * target[1] * height + (prior[1] + prior[3]) / 2
    w, h = math.exp(v[2] * target[2]) * width, math.exp(v[3] * target[3]) * height
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def overlap_loop(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height)


def detections_loop(net: Net, classes: int, *, shared: bool = True, background: int = 0, code: str = "CORNER",
                    in_target: bool = False, least: float = -math.inf, overlap: float = 0.3, eta: float = 1.0,
                    top_k: int = -1, keep: int = -1) -> list[list[float]]:
    """All rows, box by box."""
    corners, variances = np.array(net.blobs["prior"].data).reshape(2, -1, 4)
    priors = len(corners)
    loc, conf = (np.array(net.blobs[name].data) for name in ("loc", "conf"))
    rows = []
    for image in range(len(loc)):
        targets = loc[image].reshape(priors, 1 if shared else classes, 4)
        found = []
        for label in range(classes):
            if label == background:
                continue
            scores = conf[image].reshape(priors, classes)[:, label]
            order = sorted((p for p in range(priors) if scores[p] > least), key=lambda p: (-scores[p], p))
            allowed, kept = overlap, []
            for p in order if top_k < 0 else order[:top_k]:
                box = decode_loop(targets[p, 0 if shared else label], corners[p], variances[p], code, in_target)
                if all(overlap_loop(box, other) <= allowed for other in kept):
                    kept.append(box)
                    found.append([image, label, scores[p], *box])
                    if eta < 1 and allowed > 0.5:
                        allowed *= eta
        if 0 <= keep < len(found):
            best = sorted(range(len(found)), key=lambda r: (-found[r][2], r))[:keep]
            found = [found[r] for r in sorted(best)]
        rows += found
    return rows or [[image, *[-1] * 6] for image in range(len(loc))]


@settings(max_examples=60, deadline=None)
@given(images=st.integers(1, 3), priors=st.integers(1, 30), classes=st.integers(1, 4), shared=st.booleans(),
       background=st.integers(-1, 3), code=st.sampled_from(["CORNER", "CENTER_SIZE", "CORNER_SIZE"]),
       in_target=st.booleans(), least=st.none() | st.sampled_from([0.25, 0.55, 0.95, 2]),
       overlap=st.sampled_from([0.0, 0.3, 0.45, 0.9]), eta=st.sampled_from([1.0, 0.9, 0.5]),
       top_k=st.none() | st.integers(-1, 20), keep=st.none() | st.integers(-1, 20), seed=st.integers(0, 999))
def test_detections_against_a_loop(cpu64: CpuOps, images: int, priors: int, classes: int, shared: bool,
                                   background: int, code: str, in_target: bool, least: float | None, overlap: float,
                                   eta: float, top_k: int | None, keep: int | None, seed: int) -> None:
    nms = f"nms_threshold: {overlap} eta: {eta} " + (f"top_k: {top_k}" if top_k is not None else "")
    param = (f"background_label_id: {background} code_type: {code} nms_param {{ {nms} }} "
             f"variance_encoded_in_target: {str(in_target).lower()} ")
    rule: dict[str, Any] = {}
    if least is not None:
        param += f"confidence_threshold: {least} "
        rule["least"] = float(np.float32(least))
    if keep is not None:
        param += f"keep_top_k: {keep}"
        rule["keep"] = keep
    if top_k is not None:
        rule["top_k"] = top_k
    net = detection_net(param, cpu64, images, priors, classes, shared)
    fill(net, seed, 0.1 if in_target else 0.5)
    net.forward_pass()
    expected = detections_loop(net, classes, shared=shared, background=background, code=code, in_target=in_target,
                               overlap=float(np.float32(overlap)), eta=float(np.float32(eta)), **rule)
    top = net.blobs["y"].data
    assert top.shape == (1, 1, len(expected), 7)
    np.testing.assert_allclose(top[0, 0], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("eta", [1.0, 0.97])
def test_many_boxes(eta: float, cpu64: CpuOps) -> None:
    """More than are compared at once."""
    net = detection_net(f"nms_param {{ nms_threshold: 0.6 eta: {eta} }} code_type: CENTER_SIZE", cpu64, 1, 400, 2)
    fill(net, 1)
    net.forward_pass()
    expected = detections_loop(net, 2, code="CENTER_SIZE", overlap=float(np.float32(0.6)), eta=float(np.float32(eta)))
    assert 30 < len(expected) < 300
    np.testing.assert_allclose(net.blobs["y"].data[0, 0], expected, rtol=1e-9)


def test_every_op_set_finds_the_same(ops: OpSet) -> None:
    net = detection_net("confidence_threshold: 0.25 keep_top_k: 8 code_type: CENTER_SIZE", ops)
    fill(net, 4)
    net.forward_pass()
    expected = detections_loop(net, 3, least=0.25, keep=8, code="CENTER_SIZE")
    np.testing.assert_allclose(net.blobs["y"].data[0, 0], expected, rtol=1e-4, atol=1e-5)


def test_nothing_found(cpu: CpuOps) -> None:
    """A row for each image, as in SSD; images without detections beside others have none."""
    net = detection_net("confidence_threshold: 0.5", cpu, images=3)
    net.blobs["conf"].data[...] = 0.5
    net.forward_pass()
    np.testing.assert_array_equal(net.blobs["y"].data, [[[[image, -1, -1, -1, -1, -1, -1] for image in range(3)]]])
    net.blobs["conf"].data[1, 4] = 0.75
    net.forward_pass()
    np.testing.assert_array_equal(net.blobs["y"].data, [[[[1, 1, 0.75, 0, 0, 0, 0]]]])


def test_numbers_that_are_none(cpu: CpuOps) -> None:
    """A NaN score is no detection; a box beyond all numbers neither stops nor warns."""
    net = detection_net("code_type: CENTER_SIZE", cpu, 1, 3, 2)
    fill(net, 1)
    net.blobs["conf"].data[...] = [[0, np.nan, 0, 0.75, 0, 0.5]]
    net.blobs["loc"].data.reshape(3, 4)[1, 2:] = 1e30
    net.forward_pass()
    assert net.blobs["y"].data[0, 0, :, 2].tolist()[0] == 0.75
    assert np.isinf(net.blobs["y"].data[0, 0, 0, 3:]).all()


def test_tops_change_from_pass_to_pass(cpu: CpuOps) -> None:
    """What stands behind follows, and so do the views, the outputs and the report of a test."""
    net = detection_net("confidence_threshold: 0.5", cpu, 1, 8,
                        behind=layer("Slice", "y", "ids z", "slice_param { axis: 3 slice_point: 2 }", "cut"))
    counts = []
    for seed, spread in ((1, 0.5), (2, 3.0), (3, 0.0), (4, 5.0)):
        fill(net, seed, spread)
        found = net.forward()
        expected = detections_loop(net, 3, least=0.5)
        counts.append(len(expected))
        assert found["ids"].shape == (1, 1, len(expected), 2)
        np.testing.assert_allclose(found["z"][0, 0], np.array(expected)[:, 2:], rtol=1e-5, atol=1e-6)
        assert net.blobs["y"].diff.shape == net.blobs["y"].data.shape
    assert len(set(counts)) > 1
    averages = report(net, 2, quiet=True)
    assert len(averages) == counts[-1] * 7


def test_memory_in_turns(cpu: CpuOps) -> None:
    text = (inputs(x=(1, 24), conf=(1, 12), map=(1, 1, 2, 3), image=(1, 3, 60, 90))
            + layer("PriorBox", "map image", "prior", "prior_box_param { min_size: 30 }", "one")
            + layer("ReLU", "x", "a", name="two") + layer("ReLU", "a", "b", name="three")
            + layer("ReLU", "b", "loc", name="four")
            + layer("DetectionOutput", "loc conf prior", "found", "detection_output_param { num_classes: 2 }", "five")
            + layer("ReLU", "found", "y", name="six"))
    nets = [make(text, cpu, barista.TEST, plan_memory=plan, head="") for plan in (False, True)]
    for seed in range(3):
        results = []
        for net in nets:
            rng = np.random.default_rng(seed)
            net.blobs["x"].data[...] = rng.uniform(-1, 1, (1, 24))
            net.blobs["conf"].data[...] = rng.uniform(-1, 1, (1, 12))
            results.append(np.array(net.forward()["y"]))
        np.testing.assert_array_equal(*results)


WRONG_RULES = {
    "nms_threshold": ("nms_param { nms_threshold: -1 }", NetError, "nms_threshold is -1; give 0 or more"),
    "eta": ("nms_param { eta: 0 }", NetError, "eta is 0; give more than 0 and at most 1"),
    "eta_2": ("nms_param { eta: 1.5 }", NetError, "eta is 1.5; give more than 0 and at most 1"),
    "visualize": ("visualize: true", UnsupportedError, "visualize asks for windows with images"),
}


@pytest.mark.parametrize("name", WRONG_RULES)
def test_wrong_rules(name: str, cpu: CpuOps) -> None:
    param, kind, message = WRONG_RULES[name]
    with pytest.raises(kind) as caught:
        detection_net(param, cpu)
    assert str(caught.value).startswith("layer (DetectionOutput): ")
    assert message in str(caught.value)


def test_classes_are_missing(cpu: CpuOps) -> None:
    with pytest.raises(NetError, match=r"^layer \(DetectionOutput\): num_classes is missing; give their number, the"):
        make(inputs(loc=(1, 4), conf=(1, 2), prior=(1, 2, 4)) + layer("DetectionOutput", "loc conf prior"), cpu)


def test_files_of_detections_are_not_written(cpu: CpuOps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             caplog: pytest.LogCaptureFixture) -> None:
    """Deploy nets of SSD ask for them, with files that only their authors have."""
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("WARNING"):
        detection_net("save_output_param { label_map_file: 'labelmap.prototxt' }", cpu).forward_pass()
        assert not caplog.records
        detection_net("save_output_param { output_directory: 'found' label_map_file: 'labelmap.prototxt' }",
                      cpu).forward_pass()
    assert ("layer (DetectionOutput): save_output_param.output_directory 'found' asks for files of detections, which "
            "this layer does not write; where they are wanted, write the rows of its top 'y' in Python") in caplog.text
    assert not list(tmp_path.iterdir())


RIGHT = {"loc": (2, 24), "conf": (2, 18), "prior": (1, 2, 24)}


@pytest.mark.parametrize(("wrong", "message"), [
    ({"prior": (1, 2, 22)}, "the priors prior must be (1, 2, boxes * 4), as PriorBox makes them; they have shape "
                            "(1, 2, 22)"),
    ({"prior": (1, 1, 24)}, "they have shape (1, 1, 24)"),
    ({"prior": (2, 24)}, "they have shape (2, 24)"),
    ({"loc": (2, 20)}, "the locations loc must be (2, 24): 4 for each of 6 priors in 2 image(s); they have shape "
                       "(2, 20)"),
    ({"loc": (1, 24)}, "they have shape (1, 24)"),
    ({"conf": (2, 12)}, "the confidences conf must be (2, 18): 3 for each of 6 priors in 2 image(s); they have shape "
                        "(2, 12)"),
    ({"conf": (2, 6, 3)}, "they have shape (2, 6, 3)"),
])
def test_wrong_shapes(wrong: dict[str, tuple[int, ...]], message: str, cpu: CpuOps) -> None:
    text = layer("DetectionOutput", "loc conf prior", "y", "detection_output_param { num_classes: 3 }")
    make(inputs(**RIGHT) + text, cpu, barista.TEST)
    with pytest.raises(NetError) as caught:
        make(inputs(**{**RIGHT, **wrong}) + text, cpu, barista.TEST)
    assert message in str(caught.value)


def test_prior_without_size(cpu: CpuOps) -> None:
    net = detection_net("code_type: CENTER_SIZE", cpu)
    fill(net, 1)
    net.blobs["prior"].data.reshape(2, -1, 4)[0, 4] = [0.5, 0.25, 0.5, 0.75]
    with pytest.raises(DataError) as caught:
        net.forward_pass()
    assert str(caught.value) == ("layer (DetectionOutput): prior 4 has the corners [0.5, 0.25, 0.5, 0.75]; with "
                                 "code_type CENTER_SIZE xmax must be greater than xmin and ymax than ymin")


def test_no_gradient(cpu: CpuOps) -> None:
    net = detection_net("", cpu)
    tested = net.layers[-1]
    with pytest.raises(NetError, match="has no gradient"):
        tested.backward([net.blobs["y"]], [True, True, False], [net.blobs[name] for name in ("loc", "conf", "prior")])
