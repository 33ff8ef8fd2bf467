"""Networks train on the FPGA backend as they do on the CPU; a device that goes away leaves the last snapshot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lenet import STEPS, lenet, train
from opencl_device import open_opencl
from tile_arrays import QuickArray, quick_ops
from tolerances import TRAINED_WEIGHTS, training_tolerance

from barista.blob import HOST
from barista.compose import make_ops
from barista.errors import BitstreamError, DeviceError, ScheduleError
from barista.gemm.shapes import Pass
from barista.gemm.tiles import TileSizes
from barista.hardware.bitstream import write
from barista.hardware.board import load_board
from barista.ops.base import OpSet
from barista.ops.cpu import CpuOps
from barista.ops.fpga import FpgaOps
from barista.schedule import Entry, Schedule

NET = "LeNetDigits"
BATCH = 64


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for bitstreams that are built on the fly."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def emulated(cache: Path, monkeypatch: pytest.MonkeyPatch) -> FpgaOps:
    """The backend as a user gets it who gives nothing but its name."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    open_opencl()  # fails, or skips, where there is no device
    ops = make_ops("fpga", inner_products=True)
    assert isinstance(ops, FpgaOps)
    return ops


@pytest.fixture(scope="module")
def expected(digits: Path) -> tuple[list[float], dict[str, float], list[np.ndarray]]:
    """What the CPU trains."""
    return train(CpuOps(), digits)


def agree(ops: OpSet, digits: Path, expected: tuple[list[float], dict[str, float], list[np.ndarray]]) -> None:
    losses, scores, weights = train(ops, digits)
    for step, (loss, other) in enumerate(zip(losses, expected[0], strict=True)):
        assert loss == pytest.approx(other, rel=training_tolerance(step)), f"step {step}"
    assert scores["loss"] == pytest.approx(expected[1]["loss"], rel=1e-3)
    assert scores["accuracy"] == pytest.approx(expected[1]["accuracy"], abs=1 / 360 + 1e-6)
    for ours, other in zip(weights, expected[2], strict=True):
        np.testing.assert_allclose(ours, other, rtol=0, atol=TRAINED_WEIGHTS * np.abs(other).max())


@pytest.mark.opencl
def test_all_three_backends_train_to_the_same_result(digits: Path, emulated: FpgaOps,
                                                     expected: tuple[list[float], dict[str, float],
                                                                     list[np.ndarray]]) -> None:
    assert len(expected[0]) == STEPS and expected[0][-1] < 0.7 * expected[0][0]
    agree(open_opencl(), digits, expected)
    agree(emulated, digits, expected)
    assert {pass_ for _, pass_ in emulated.take_stages()} == {"forward", "grad_weight", "grad_input"}
    assert emulated.loader.swaps == 0


@pytest.mark.opencl
def test_the_bitstream_is_built_once(emulated: FpgaOps, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    built = {path: path.stat().st_mtime_ns for path in cache.rglob("*.json")}
    assert len(built) == 1
    with caplog.at_level("DEBUG", "barista.ops.fpga"):
        make_ops("fpga")
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.json")} == built
    assert not [message for message in caplog.messages if "is built for" in message]


@pytest.mark.opencl
def test_a_damaged_bitstream_in_the_cache_is_built_again(emulated: FpgaOps, cache: Path,
                                                         caplog: pytest.LogCaptureFixture) -> None:
    [binary] = cache.rglob("*.bin")
    binary.write_bytes(binary.read_bytes()[:100])
    make_ops("fpga")
    assert any("is truncated" in message and "built again" in message for message in caplog.messages)
    assert binary.stat().st_size > 100


@pytest.mark.opencl
def test_what_bitstreams_cannot_run_is_said_at_the_start(tmp_path: Path) -> None:
    board = load_board("u250")
    card = write(tmp_path, b"x" * 500, TileSizes(8, 8, 16), "fp32", board, suffix=".xclbin")
    with pytest.raises(DeviceError, match=r"are for the board u250, a card of .*Xilinx.*install its driver, or build"):
        make_ops("fpga", bitstream=str(tmp_path))
    card.binary_path.write_bytes(b"x" * 90)
    with pytest.raises(BitstreamError, match=r"is truncated: it has 90 of 500 bytes"):
        make_ops("fpga", bitstream=str(tmp_path))


def test_a_schedule_trains_to_the_same_result(digits: Path, expected: tuple[list[float], dict[str, float],
                                                                            list[np.ndarray]]) -> None:
    plan = Schedule(NET, BATCH, (
        Entry("conv1", Pass.FORWARD, "fpga", "one"), Entry("conv1", Pass.GRAD_WEIGHT, "fpga", "two"),
        Entry("conv2", Pass.FORWARD, "fpga", "two"), Entry("conv2", Pass.GRAD_WEIGHT, "cpu"),
        Entry("conv2", Pass.GRAD_INPUT, "fpga", "one")))
    ops = quick_ops(schedule=plan, one="fp32", two="fp32")
    agree(ops, digits, expected)
    # A step uses one, two, one, two; the test's six batches use one, two.
    assert ops.loader.swaps == 4 * STEPS - 1 + 2 * 6


@pytest.mark.slow
def test_fixed_point_trains(digits: Path) -> None:
    losses, _, _ = train(quick_ops(fixed="dfxp12"), digits)
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.8 * losses[0]


def test_a_schedule_of_another_net_names_the_layer(digits: Path) -> None:
    plan = Schedule("AlexNet", BATCH, (Entry("conv1", Pass.FORWARD, "cpu"),))
    with pytest.raises(ScheduleError, match=r"conv1 \(Convolution\): .*of net 'AlexNet', this net is 'LeNetDigits'"):
        lenet(quick_ops(schedule=plan), digits)


@pytest.mark.parametrize(("product", "layer"), [(0, "conv1"), (1, "conv2"), (-1, "conv1")],
                         ids=["first", "forward", "backward"])
def test_an_unplugged_device_leaves_the_last_snapshot(digits: Path, tmp_path: Path, product: int,
                                                      layer: str) -> None:
    """It goes away in the fifth step, at one of its products, which are counted first."""
    counting = QuickArray()
    with lenet(quick_ops(counting), digits) as solver:
        solver.step(1)
        first = solver.net.params["conv1"][0].data.copy()
        one = counting.products
        solver.step(1)
        assert counting.products == 2 * one
    prefix = str(tmp_path / "lenet")
    card = QuickArray("card", lasts=4 * one + product % one)
    with lenet(quick_ops(card), digits, snapshot=2, snapshot_prefix=prefix) as solver:
        with pytest.raises(DeviceError, match=rf"^{layer} \(Convolution\): card: .*DEVICE_NOT_AVAILABLE"):
            solver.step(STEPS)
        assert solver.iter == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"lenet_iter_{n}.{kind}" for n in (2, 4)
        for kind in ("caffemodel", "solverstate", "solverstate.resume.json")]
    with lenet(quick_ops(), digits) as resumed:
        resumed.restore(f"{prefix}_iter_4.solverstate")
        assert resumed.iter == 4
        assert not np.array_equal(resumed.net.params["conv1"][0].value.read(HOST), first)
        resumed.step(2)
        assert np.isfinite(resumed.net.loss())
