"""upgrade_net_proto_text, upgrade_net_proto_binary and upgrade_solver_proto_text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from barista.cli.main import main
from barista.frontends.prototxt import parse_net, read_binary_net, read_net
from barista.proto.blobs import array_to_blob, blob_to_array
from barista.proto.caffe_pb2 import NetParameter

NEWEST = "File already in latest proto format: "


@pytest.mark.parametrize("case", ["input_shape", "old_input", "v0", "v1"])
def test_a_net_as_caffe_upgrades_it(golden: Path, tmp_path: Path, case: str,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.prototxt"
    before, after = (golden / "data" / f"upgrade_{case}.{kind}.prototxt" for kind in ("in", "out"))
    assert main(["upgrade_net_proto_text", str(before), str(out)]) == 0
    log = capsys.readouterr().err
    assert f"Wrote upgraded NetParameter text proto to {out}" in log and NEWEST not in log
    assert read_net(out) == read_net(after)
    assert "layers {" not in out.read_text()


def test_a_current_net_is_written_too(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.prototxt"
    assert main(["upgrade_net_proto_text", str(golden / "data" / "upgrade_v1.out.prototxt"), str(out)]) == 0
    assert NEWEST in capsys.readouterr().err
    once = out.read_text()
    assert main(["upgrade_net_proto_text", str(out), str(out)]) == 0
    assert out.read_text() == once


def test_an_old_caffemodel_keeps_its_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = NetParameter(name="old")
    weights = np.array([[1.5, -2.0, 0.0], [np.nan, 1e-30, 3.25]], np.float32)
    layer = old.layers.add(name="ip", type=14, bottom=["x"], top=["y"], blobs_lr=[1.0, 2.0])
    array_to_blob(weights, layer.blobs.add())
    (tmp_path / "old.caffemodel").write_bytes(old.SerializeToString())
    for name, current in (("old", False), ("new", True)):
        assert main(["upgrade_net_proto_binary", str(tmp_path / f"{name}.caffemodel"),
                     str(tmp_path / "new.caffemodel")]) == 0
        log = capsys.readouterr().err
        assert (NEWEST in log) == current and "Wrote upgraded NetParameter binary proto to" in log
        [layer] = read_binary_net(tmp_path / "new.caffemodel").layer
        assert (layer.name, layer.type, [spec.lr_mult for spec in layer.param]) == ("ip", "InnerProduct", [1.0, 2.0])
        np.testing.assert_array_equal(blob_to_array(layer.blobs[0]), weights)


def test_a_solver_and_the_net_inside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").write_text("base_lr: 0.1 lr_policy: 'fixed' solver_type: RMSPROP rms_decay: 0.9 "
                                 "net_param { name: 'n' layers { name: 'r' type: RELU bottom: 'x' top: 'y' } }")
    assert main(["upgrade_solver_proto_text", str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    text = (tmp_path / "out").read_text()
    assert 'type: "RMSProp"' in text and "solver_type" not in text and 'type: "ReLU"' in text
    assert "snapshot_prefix" not in text  # nothing that the file did not say
    assert NEWEST not in capsys.readouterr().err
    assert main(["upgrade_solver_proto_text", str(tmp_path / "out"), str(tmp_path / "again")]) == 0
    assert NEWEST in capsys.readouterr().err
    assert (tmp_path / "again").read_text() == text


def test_what_cannot_be_read_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad, binary = tmp_path / "good", tmp_path / "bad", tmp_path / "binary"
    good.write_text("name: 'n' layer { name: 'r' type: 'ReLU' }")
    bad.write_text("name: 'n' layer { nam: 'r' }")
    binary.write_bytes(b"\xff\x00\x01")

    def fails(*words: object) -> str:
        assert main([str(word) for word in words]) == 1
        return capsys.readouterr().err

    assert f"{bad}:1:19" in fails("upgrade_net_proto_text", bad, good)
    assert parse_net(good.read_text()).layer[0].name == "r"  # left alone
    assert "no such file" in fails("upgrade_net_proto_text", tmp_path / "none", good)
    assert "there is no folder" in fails("upgrade_net_proto_text", good, tmp_path / "none" / "out")
    assert "is a folder" in fails("upgrade_net_proto_binary", good, tmp_path)
    assert "no text in UTF-8" in fails("upgrade_solver_proto_text", binary, tmp_path / "out")
    assert "cannot be read: No such file" in fails("upgrade_solver_proto_text", tmp_path / "none", tmp_path / "out")
    assert main(["upgrade_net_proto_text", str(bad), str(tmp_path / "out"), "--ignore-unknown-fields"]) == 0
    assert main(["upgrade_net_proto_text", str(good)]) == 2
