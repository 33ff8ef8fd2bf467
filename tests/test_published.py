"""The thesis's figures follow from the models, under the assumptions named; the networks are those that ship."""

from __future__ import annotations

import pytest

from barista.cli.arguments import Parser
from barista.cli.planning import add_planning, net_workloads, open_planning_net
from barista.errors import UnsupportedError
from barista.gemm.shapes import Pass
from barista.latency.networks import NETWORKS, network_workloads
from barista.latency.published import (
    HOLD,
    RECORD,
    ROW_MAKERS,
    TABLE_4_1_FPGA,
    TABLE_4_1_TILES,
    PublishedRow,
    published_rows,
)
from barista.latency.workload import Workload
from barista.resources import find

# Shapes of images after the crop, for the networks that ship.
IMAGES = {"lenet": "1,28,28", "cifar10_full": "3,32,32", "resnet20_cifar10": "3,32,32", "alexnet": "3,227,227",
          "squeezenet_1_1": "3,227,227", "googlenet": "3,224,224"}


@pytest.fixture(scope="module")
def rows() -> list[PublishedRow]:
    return published_rows()


def found(rows: list[PublishedRow], what: str) -> list[PublishedRow]:
    return [row for row in rows if what in row.what]


def test_every_row_to_be_held_reproduces(rows: list[PublishedRow]) -> None:
    assert {row.what: (row.published, row.computed) for row in rows if row.use == HOLD and not row.reproduces} == {}


def test_dsp_share(rows: list[PublishedRow]) -> None:
    [row] = found(rows, "DSP blocks")
    assert row.computed[0] == pytest.approx(18.71, abs=0.005)


def test_table_4_1(rows: list[PublishedRow]) -> None:
    [power] = found(rows, "best tiles: GOPS/W")
    assert power.published == TABLE_4_1_FPGA
    assert power.computed == pytest.approx((0.595, 0.282, 0.077, 0.075, 0.075), abs=5e-4)
    [overall] = found(rows, "one 32,32,64")
    assert overall.computed == pytest.approx((0.220, 0.241, 0.184), abs=5e-4)
    tiles = [row for row in found(rows, "best tiles of AlexNet") if row.use == HOLD]
    assert len(tiles) == 3
    assert all(row.computed == (*TABLE_4_1_TILES, "36,36,72") for row in tiles)


def test_fine_grid_ends_before_the_fastest_link(rows: list[PublishedRow]) -> None:
    """In steps of 2, Table 4.1's first layer no longer follows at 13.5 GB/s; that is on record, not hidden."""
    [row] = [row for row in found(rows, "best tiles of AlexNet") if row.use == RECORD]
    assert row.computed == ("34,34,74", *TABLE_4_1_TILES[1:], "36,36,72")
    assert row.verdict == "does not follow"


def test_counts(rows: list[PublishedRow]) -> None:
    assert [row.computed for what in ("convolutions in a training step", "largest growth", "array sizes")
            for row in found(rows, what)] == [(170,), (25.0,), (12_424,)]


def test_rows_for_the_record_are_computed_and_not_tuned(rows: list[PublishedRow]) -> None:
    recorded = [row for row in rows if row.use == RECORD]
    assert {row.source for row in recorded} >= {"Table 5.6", "Table 5.7", "Table 5.8", "section 6.3.3"}
    for row in recorded:
        assert len(row.computed) == len(row.published), row.what
        assert all(isinstance(value, str) or 0 < value < float("inf") or value == 0 for value in row.computed), row.what
        assert row.assumptions
    [growth] = found(rows, "GOPS over all convolutions")
    # 341 elements at 100 MHz do 68.2 GOPS at most; the published figures of one region are above that.
    assert max(growth.computed) < 68.2 < max(value for value in growth.published if not isinstance(value, str))


def test_verdicts() -> None:
    row = PublishedRow("a", "b", (1.0, "x"), (1.02, "x"), "c", tolerance=0.03)
    assert row.reproduces
    assert row.verdict == "reproduced"
    assert PublishedRow("a", "b", (1.0, "x"), (1.04, "x"), "c", tolerance=0.03).verdict == "NOT reproduced"
    assert PublishedRow("a", "b", (1.0, "x"), (1.0, "y"), "c", tolerance=0.03).verdict == "NOT reproduced"
    assert PublishedRow("a", "b", (1.0,), (1.0, 2.0), "c").verdict == "NOT reproduced"
    assert PublishedRow("a", "b", (3,), (3,), "c", RECORD).verdict == "met, though not held"
    assert PublishedRow("a", "b", (0.33,), (0.43,), "c", RECORD, 0.03).verdict == "does not follow"


def test_progress_is_told_of_every_part() -> None:
    calls: list[None] = []
    published_rows(lambda: calls.append(None))
    assert len(calls) == len(ROW_MAKERS)


# ---- networks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", IMAGES)
def test_networks_are_those_that_ship(network: str) -> None:
    parser = Parser("test", "", "")
    add_planning(parser)
    path = find("prototxt", network, "train_val.prototxt")
    args = parser.read(["--model", str(path), "--input-shape", IMAGES[network], "--batch", "3"])
    shipped = net_workloads(open_planning_net(args))
    ours = network_workloads(network, batch=3)
    # The auxiliary classifiers of GoogLeNet are not in the thesis's count.
    assert set(ours) == {workload for workload in shipped if not workload.layer.startswith("loss")}
    assert len(ours) == len(set(ours))


def test_order_is_that_of_an_iteration() -> None:
    workloads = network_workloads("lenet", batch=2)
    assert [(each.layer, each.pass_) for each in workloads] == [
        ("conv1", Pass.FORWARD), ("conv2", Pass.FORWARD), ("conv2", Pass.GRAD_WEIGHT), ("conv2", Pass.GRAD_INPUT),
        ("conv1", Pass.GRAD_WEIGHT)]
    assert workloads[0] == Workload("conv1", Pass.FORWARD, NETWORKS["lenet"][0].geometry(2))


def test_cifar_alexnet_has_the_thesiss_sizes() -> None:
    outputs = [layer.geometry(1).output for layer in NETWORKS["alexnet_cifar10"]]
    assert outputs == [(8, 8), (4, 4), (2, 2), (2, 2), (2, 2)]


def test_a_part_of_a_network_has_all_its_gradients() -> None:
    assert len(network_workloads("inception_3a", batch=1)) == 18


def test_unknown_network() -> None:
    with pytest.raises(UnsupportedError, match=r"network 'resnet20' is not known; did you mean 'resnet20_cifar10'"):
        network_workloads("resnet20", 1)
