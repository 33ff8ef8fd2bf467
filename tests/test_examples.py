"""The programs in examples/ do what they say."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import barista as caffe

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module(name)


def test_digits_are_told_apart(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert example("classify", monkeypatch).main(["--steps", "60"]) > 0.7
    assert "397 digits that it has not seen" in capsys.readouterr().out


def test_images_of_yours_are_classified(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                        tmp_path: Path) -> None:
    """A net that has learnt nothing, and pictures of another size than it takes."""
    classify = example("classify", monkeypatch)
    model, weights = classify.learn(tmp_path, np.zeros((50, 8, 8, 1), np.float32), np.full(50, 4), 0.3, steps=2)
    images = [str(tmp_path / f"{number}.png") for number in range(3)]
    for name in images:
        Image.fromarray(np.zeros((11, 7, 3), np.uint8)).save(name)
    capsys.readouterr()
    assert classify.main([model, weights, *images]) is None
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(": ")[0] for line in lines] == images
    assert all(line.rpartition(": ")[2].startswith("4 (") for line in lines)  # all that it has ever seen


def test_inner_products_become_convolutions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    surgery = example("net_surgery", monkeypatch)
    assert surgery.main([]) < 1e-5
    model, weights = surgery.small_classifier(str(tmp_path))
    assert surgery.main([model, weights, str(tmp_path / "full")]) is None
    old = caffe.Net(model, weights, caffe.TEST)
    new = caffe.Net(str(tmp_path / "full.prototxt"), str(tmp_path / "full.caffemodel"), caffe.TEST)
    assert [layer.type for layer in new.layers].count("InnerProduct") == 0
    assert new.params["fc3-conv"][0].data.shape == (20, 12, 6, 6)
    assert np.array_equal(new.params["fc3-conv"][0].data.ravel(), old.params["fc3"][0].data.ravel())
    assert np.array_equal(new.params["fc3-conv"][1].data, old.params["fc3"][1].data)
    assert np.array_equal(new.params["conv2"][0].data, old.params["conv2"][0].data)
    assert new.blobs["prob"].data.shape == (1, 5, 5, 5)


def test_a_loss_in_python_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    losses, weights = example("train_python_loss", monkeypatch).main([])
    assert losses[-1] < 1e-6 < 0.1 < losses[0]
    assert np.allclose(weights, 1, atol=1e-3)


def test_it_runs_as_a_program_from_anywhere(tmp_path: Path) -> None:
    words = [sys.executable, str(EXAMPLES / "train_python_loss.py"), "--steps", "3", "--plot", "loss.png"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "after 3 steps: loss" in done.stdout
    with Image.open(tmp_path / "loss.png") as picture:
        assert picture.width > 100
