"""BatchReindex, Filter, Embed, ArgMax and Parameter against loops over single elements, on drawn shapes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from little_nets import inputs, layer, make
from one_layer import Array, again, run
from tensors import blank, got, numbers, put

import barista
from barista.errors import DataError, NetError
from barista.frontends.prototxt import parse_solver
from barista.ops.base import AxisGeometry, OpSet
from barista.ops.cpu import CpuOps
from barista.solvers import get_solver

OPS = CpuOps(np.float64, threads=2)
EMBED = "embed_param { num_output: 3 input_dim: 4 weight_filler { type: 'gaussian' } bias_filler { type: 'gaussian' } }"
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def places(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, shape)))


# ---- BatchReindex -----------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.data(), shapes)
def test_batch_reindex(data: st.DataObject, shape: tuple[int, ...]) -> None:
    picked = data.draw(st.lists(st.integers(0, shape[0] - 1), min_size=1, max_size=6))
    x = numbers(shape, 1)
    net, seeds = run(layer("BatchReindex", "x i"), OPS, {"x": x, "i": np.array(picked)})
    dx = np.zeros(shape)
    for row, index in enumerate(picked):
        np.testing.assert_array_equal(net.blobs["y"].data[row], x[index])
        dx[index] += seeds["y"][row]
    np.testing.assert_allclose(net.blobs["x"].diff, dx, rtol=1e-12)


@pytest.mark.parametrize(("index", "message"), [
    (2, r"layer \(BatchReindex\): index 2 \(number 1 of 3\) is none of the 2 rows 0 to 1; check the data"),
    (-1, r"index -1 \(number 1"), (np.nan, r"index nan \(number 1"), (-0.5, r"index -0.5")])
def test_batch_reindex_refuses_what_is_no_row(index: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(layer("BatchReindex", "x i"), OPS, {"x": numbers((2, 3)), "i": np.array([0, index, 1])})


@pytest.mark.parametrize(("x", "i", "message"), [
    ((2, 3), (2, 1), r"layer \(BatchReindex\): needs a second bottom of one axis, .*; i has shape \(2, 1\)"),
    ((), (2,), r"needs a first bottom with a batch axis, got a scalar")])
def test_batch_reindex_refuses(x: tuple[int, ...], i: tuple[int, ...], message: str) -> None:
    with pytest.raises(NetError, match=message):
        make(inputs(x=x, i=i) + layer("BatchReindex", "x i"), OPS)


# ---- Filter -----------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.lists(st.sampled_from((0.0, -0.0, 1.0, 1.0, -3.0, 0.5)), min_size=1, max_size=6), st.integers(0, 2), shapes)
def test_filter(selector: list[float], ones: int, rest: tuple[int, ...]) -> None:
    arrays = {"x": numbers((len(selector), *rest), 1), "z": numbers((len(selector),), 2),
              "s": np.reshape(selector, (-1, *[1] * ones))}
    net, seeds = run(layer("Filter", "x z s", "y u"), OPS, arrays)
    kept = [index for index, value in enumerate(selector) if value != 0]
    for bottom, top in (("x", "y"), ("z", "u")):
        assert net.blobs[top].shape == (len(kept), *arrays[bottom].shape[1:])
        dx = np.zeros(arrays[bottom].shape)
        for row, index in enumerate(kept):
            np.testing.assert_array_equal(net.blobs[top].data[row], arrays[bottom][index])
            dx[index] = seeds[top][row]
        np.testing.assert_array_equal(net.blobs[bottom].diff, dx)


def test_filter_sets_the_batch_of_what_follows(cpu64: CpuOps) -> None:
    """From pass to pass, from nothing to everything; the net is made as if all passed."""
    text = (layer("Filter", "x t s", "a b", name="pick")
            + layer("InnerProduct", "a", "c", "inner_product_param { num_output: 2 }", name="ip")
            + layer("SoftmaxWithLoss", "c b", "loss", name="loss"))
    x, labels = numbers((4, 3), 1), np.array([0, 1, 1, 0])
    net = make(inputs(x=(4, 3), t=(4,), s=(4,)) + text, cpu64, head="")
    assert net.blobs["c"].shape == (4, 2)
    net.params["ip"][0].data[...] = numbers((2, 3), 2)
    for selector in ([0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]):
        for name, values in (("x", x), ("t", labels), ("s", np.array(selector))):
            net.blobs[name].data[...] = values
        net.clear_param_diffs()
        net.forward_pass()
        net.backward_pass()
        kept = np.flatnonzero(selector)
        assert net.blobs["c"].shape == (len(kept), 2)
        scores = x[kept] @ net.params["ip"][0].data.T
        powers = np.exp(scores)
        share = powers / powers.sum(1, keepdims=True)
        right = share[range(len(kept)), labels[kept]]
        assert net.loss() == pytest.approx(float(-np.log(right).sum() / max(1, len(kept))))
        share[range(len(kept)), labels[kept]] -= 1
        np.testing.assert_allclose(net.params["ip"][0].diff, share.T @ x[kept] / max(1, len(kept)), atol=1e-12)


@pytest.mark.parametrize(("x", "s", "message"), [
    ((4, 2), (4, 2), r"layer \(Filter\): needs a selector of one number an item, shape \(N\) or .*; s has shape"),
    ((4, 2), (3,), r"the selector s has 3 items; bottom x has shape \(4, 2\)"),
    ((4, 2), (), r"needs a selector of one number an item"), ((), (1,), r"the selector s has 1 items; bottom x has")])
def test_filter_refuses(x: tuple[int, ...], s: tuple[int, ...], message: str) -> None:
    with pytest.raises(NetError, match=message):
        make(inputs(x=x, s=s) + layer("Filter", "x s"), OPS)


def test_filter_counts_its_tops() -> None:
    with pytest.raises(NetError, match=r"takes a top for each bottom but the last, .* 2 bottom\(s\) and 2 top\(s\)"):
        make(inputs(x=(4, 2), s=(4,)) + layer("Filter", "x s", "y u"), OPS)


@pytest.mark.parametrize(("type_", "bottom", "param"), [
    ("Filter", "h s", "propagate_down: true propagate_down: true"),
    ("BatchReindex", "h s", "propagate_down: true propagate_down: true"),
    ("Embed", "s", f"propagate_down: true {EMBED}")])
def test_what_says_what_to_pick_has_no_gradient(type_: str, bottom: str, param: str, cpu64: CpuOps) -> None:
    text = (inputs(x=(3, 2), s=(3,)) + layer("PReLU", "x", "h", name="before")
            + layer(type_, bottom, "y", f"loss_weight: 1 {param}"))
    net = make(text, cpu64, head="")
    net.forward_pass()
    with pytest.raises(NetError, match=rf"layer \({type_}\): has no gradient with respect to s, which says what to pick"
                                       r"; set propagate_down: false for it"):
        net.backward_pass()


# ---- Embed ------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.data(), shapes, st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_embed(data: st.DataObject, shape: tuple[int, ...], rows: int, outputs: int, bias: bool) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    indices = rng.integers(0, rows, shape)
    param = (f"embed_param {{ input_dim: {rows} num_output: {outputs} bias_term: {str(bias).lower()} "
             "weight_filler { type: 'gaussian' } bias_filler { type: 'gaussian' } }")
    net, seeds = run(layer("Embed", more=param), OPS, {"x": indices})
    weight = net.params["layer"][0].data
    assert weight.shape == (rows, outputs)
    assert len(net.params["layer"]) == 1 + bias
    shift = net.params["layer"][1].data if bias else np.zeros(outputs)
    dw = np.zeros((rows, outputs))
    for place in places(shape):
        np.testing.assert_array_equal(net.blobs["y"].data[place], weight[indices[place]] + shift)
        dw[indices[place]] += seeds["y"][place]
    first = net.params["layer"][0].diff.copy()
    np.testing.assert_allclose(first, dw, rtol=1e-12, atol=1e-12)
    net.backward_pass()  # gradients of parameters are added up
    np.testing.assert_allclose(net.params["layer"][0].diff, 2 * dw, rtol=1e-12, atol=1e-12)
    if bias:
        np.testing.assert_allclose(net.params["layer"][1].diff, 2 * seeds["y"].reshape(-1, outputs).sum(0), atol=1e-12)


def test_embed_takes_more_indices_later() -> None:
    net, _ = run(layer("Embed", more=EMBED), OPS, {"x": np.zeros((2, 2))})
    again(net, {"x": np.array([3, 1, 2, 0, 3])})
    np.testing.assert_array_equal(net.blobs["y"].data,
                                  (net.params["layer"][0].data + net.params["layer"][1].data)[[3, 1, 2, 0, 3]])


def test_embed_refuses() -> None:
    with pytest.raises(DataError, match=r"layer \(Embed\): index 4 \(number 2 of 3\) is none of the 4 rows 0 to 3"):
        run(layer("Embed", more=EMBED), OPS, {"x": np.array([0, 3, 4])})
    with pytest.raises(NetError, match=r"layer \(Embed\): num_output is missing; give 1 or more"):
        make(inputs(x=(3,)) + layer("Embed", more="embed_param { input_dim: 3 }"), OPS)
    with pytest.raises(NetError, match=r"input_dim is missing; give how many rows there are, one more than the"):
        make(inputs(x=(3,)) + layer("Embed", more="embed_param { num_output: 3 }"), OPS)


# ---- ArgMax -----------------------------------------------------------------------------------------------


def largest(values: Array, count: int) -> list[tuple[int, float]]:
    """Index and value of the largest, of equals the last first."""
    return sorted(enumerate(map(float, values)), key=lambda pair: (pair[1], pair[0]), reverse=True)[:count]


@settings(max_examples=60)
@given(st.data(), shapes, st.booleans(), st.booleans())
def test_arg_max(data: st.DataObject, shape: tuple[int, ...], along: bool, value: bool) -> None:
    # Few different values, so that there are ties.
    x = np.random.default_rng(data.draw(st.integers(0, 99))).integers(-2, 3, shape).astype(np.float64)
    param = f"out_max_val: {str(value).lower()} "
    if along:
        axis = data.draw(st.integers(-len(shape), len(shape) - 1))
        param += f"axis: {axis} "
        rows = np.moveaxis(x, axis, -1)
    else:
        rows = x.reshape(shape[0], -1)
    top_k = data.draw(st.integers(1, rows.shape[-1]))
    text = inputs(x=shape) + layer("ArgMax", more=f"argmax_param {{ top_k: {top_k} {param} }}")
    net = make(text, OPS, barista.TEST, head="")
    net.blobs["x"].data[...] = x
    net.forward_pass()
    y = net.blobs["y"].data
    if along:
        assert y.shape == tuple(top_k if a == axis % len(shape) else size for a, size in enumerate(shape))
        found = np.moveaxis(y, axis, -1)
        for place in places(rows.shape[:-1]):
            assert list(found[place]) == [pair[int(value)] for pair in largest(rows[place], top_k)]
    else:
        assert y.shape == (shape[0], 1 + value, top_k, *[1] * max(0, len(shape) - 3))
        for number, row in enumerate(rows):
            pairs = largest(row, top_k)
            expected = [index for index, _ in pairs] + [number_ for _, number_ in pairs if value]
            assert list(y[number].reshape(-1)) == expected


@pytest.mark.parametrize(("shape", "param", "message"), [
    ((2, 3), "top_k: 4", r"layer \(ArgMax\): top_k=4 must be 1 to 3, the size of an item of the bottom \(2, 3\)"),
    ((2, 3), "top_k: 0", r"top_k=0 must be 1 to 3"),
    ((2, 3), "top_k: 3 axis: 0", r"top_k=3 must be 1 to 2, the size of axis 0 of the bottom"),
    ((2, 3), "axis: 2", r"axis 2 does not exist in a blob of 2 axes"), ((), "", r"at least one axis, got a scalar")])
def test_arg_max_refuses(shape: tuple[int, ...], param: str, message: str) -> None:
    with pytest.raises(NetError, match=message):
        make(inputs(x=shape) + layer("ArgMax", more=f"argmax_param {{ {param} }}"), OPS)


def test_arg_max_has_no_gradient() -> None:
    with pytest.raises(NetError, match=r"layer \(ArgMax\): has no gradient"):
        run(layer("ArgMax"), OPS, {"x": numbers((2, 3))})


# ---- Parameter --------------------------------------------------------------------------------------------

PARAMETER = (layer("Parameter", "", "p", "parameter_param { shape { dim: 2 dim: 3 } }", "p")
             + layer("Eltwise", "x p", "y", "eltwise_param { operation: PROD }", "times"))


def test_parameter() -> None:
    x = numbers((2, 3), 1)
    net, seeds = run(PARAMETER, OPS, {"x": x})
    np.testing.assert_array_equal(net.blobs["p"].data, np.zeros((2, 3)))
    net.params["p"][0].data[...] = numbers((2, 3), 2)
    np.testing.assert_array_equal(net.blobs["p"].data, numbers((2, 3), 2))
    net.forward_pass()
    np.testing.assert_allclose(net.blobs["y"].data, x * numbers((2, 3), 2))
    np.testing.assert_array_equal(net.params["p"][0].diff, net.blobs["p"].diff)
    np.testing.assert_allclose(net.params["p"][0].diff, seeds["y"] * x)


def test_parameter_learns_and_takes_weights(cpu64: CpuOps) -> None:
    text = inputs(x=(2, 3), t=(2, 3)) + PARAMETER + layer("EuclideanLoss", "y t", "loss", name="loss")
    solver = get_solver(parse_solver(f"net_param {{ {text} }} base_lr: 0.1 lr_policy: 'fixed' max_iter: 40 display: 0 "
                                     "snapshot_after_train: false"), ops=cpu64)
    x = np.array([[1.0, 2, -1], [0.5, -2, 1]])
    solver.net.blobs["x"].data[...] = x
    solver.net.blobs["t"].data[...] = 3 * x
    solver.step(400)
    np.testing.assert_allclose(solver.net.params["p"][0].data, np.full((2, 3), 3.0), rtol=1e-2)
    again_ = make(text, cpu64)
    again_.copy_trained_layers(solver.net.to_proto(), "the trained net")
    np.testing.assert_allclose(again_.blobs["p"].data, solver.net.params["p"][0].data, rtol=1e-7)


# ---- the primitives ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "inner", "picked"), [
    (5, 3, [4, 0, 4, 2]), (1, 1, [0, 0]), (3, 1, [2]), (4, 7, []), (2, 40000, [1, 0, 1, 1, 0, 1, 1, 1, 0]),
    (3, 63, [2, 2, 0]), (3, 64, [2, 2, 0]),
    (7, 2, [*range(7)] * 3)])
def test_gather(ops: OpSet, rows: int, inner: int, picked: list[int]) -> None:
    primitive = ops.gather(rows, inner, len(picked) + 1)
    table, dy = numbers((rows, inner), 1), numbers((len(picked), inner), 2)
    indices, y = put(ops, np.array(picked, np.float32)), blank(ops, (len(picked), inner))
    primitive.gather(put(ops, table), indices, y)
    np.testing.assert_array_equal(got(y), table[picked])
    expected = np.zeros((rows, inner))
    for row, index in zip(dy, picked, strict=True):
        expected[index] += row
    dtable = put(ops, numbers((rows, inner), 3))
    primitive.scatter(put(ops, dy), indices, dtable)
    np.testing.assert_allclose(got(dtable), numbers((rows, inner), 3) + expected, rtol=1e-5, atol=1e-5)
    dtable.clear()
    primitive.scatter(put(ops, dy), indices, dtable)
    np.testing.assert_allclose(got(dtable), expected, rtol=1e-5, atol=1e-5)


def test_the_largest_of_numbers_with_nan_is_nan(ops: OpSet) -> None:
    x = np.array([[1, np.nan, 3], [-1, -2, -1]], np.float32)
    for top_k in (1, 2):
        primitive = ops.arg_max(AxisGeometry(2, 3, 1), top_k)
        indices, values = blank(ops, (2, top_k)), blank(ops, (2, top_k))
        primitive.forward(put(ops, x), indices, values)
        np.testing.assert_array_equal(got(indices), np.array([[1, 2], [2, 0]])[:, :top_k])
        np.testing.assert_array_equal(got(values), np.array([[np.nan, 3], [-1, -1]])[:, :top_k])
