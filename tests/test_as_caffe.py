"""``import caffe`` after `barista.as_caffe`, each in a process of its own: what is imported stays so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import caffe
import caffe.io
import caffe.draw, caffe.classifier, caffe.coord_map, caffe.detector, caffe.net_spec, caffe.proto
from caffe import layers as L, params as P
from caffe._caffe import Blob, layer_type_list
from caffe.layers import base
from caffe.proto import caffe_pb2
from caffe.pycaffe import Net, SGDSolver
import google.protobuf.text_format

import numpy as np

n = caffe.NetSpec()
n.data = L.Input(shape=dict(dim=[1, 1, 4, 4]))
n.pool = L.Pooling(n.data, pool=P.Pooling.MAX, kernel_size=2, stride=2)
n.twice = L.Python(n.pool, module='old_layers', layer='Twice')
text = str(n.to_proto())
parsed = google.protobuf.text_format.Merge(text, caffe_pb2.NetParameter())
assert [layer.type for layer in parsed.layer] == ['Input', 'Pooling', 'Python']
with open('net.prototxt', 'w') as file:
    file.write(text)
caffe.set_mode_cpu()
net = caffe.Net('net.prototxt', caffe.TEST)
net.blobs['data'].data[...] = np.arange(16).reshape(1, 1, 4, 4)
print(net.forward()['twice'].ravel().tolist())
assert net.blobs['data'].data.dtype == np.float32 and isinstance(net.blobs['data'], Blob)
assert caffe.io.caffe_pb2 is caffe_pb2 and issubclass(SGDSolver, caffe.Solver) and Net is caffe.Net
"""
OLD_LAYERS = """
import caffe
class Twice(caffe.Layer):
    def setup(self, bottom, top):
        pass
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        top[0].data[...] = 2 * bottom[0].data
"""
SAME = """
import importlib, sys, barista
barista.as_caffe()
barista.as_caffe()
assert sum(type(finder).__name__ == '_Aliases' for finder in sys.meta_path) == 1
import caffe
assert caffe is barista and caffe.__name__ == 'barista'
for name in ('classifier', 'coord_map', 'detector', 'draw', 'io', 'layers', 'layers.norm', 'net', 'net_spec', 'proto',
             'proto.caffe_pb2', 'pycaffe', 'solvers'):
    ours = importlib.import_module('barista.' + name)
    theirs = importlib.import_module('caffe.' + name)
    assert theirs is ours is sys.modules['caffe.' + name], name
    assert ours.__name__ == ours.__spec__.name == 'barista.' + name, name
try:
    import caffe.nothing
except ModuleNotFoundError as error:
    print(error)
"""
OTHER = """
import caffe, barista
try:
    barista.as_caffe()
except barista.UnsupportedError as error:
    print(error)
assert caffe.IS_ANOTHER and 'caffe.io' not in __import__('sys').modules
"""


def run(folder: Path, *arguments: str) -> str:
    """Run Python there; the output without its end of line."""
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_old_script_runs_unchanged(tmp_path: Path) -> None:
    """By the lines that the documentation gives."""
    page = (Path(__file__).parent.parent / "docs" / "pycaffe.md").read_text()
    (start,) = re.findall(r"```python\n([^`]*as_caffe.*?)```", page, re.DOTALL)
    (tmp_path / "old_script.py").write_text(SCRIPT)
    (tmp_path / "old_layers.py").write_text(OLD_LAYERS)
    assert run(tmp_path, "-c", start) == "[10.0, 14.0, 26.0, 30.0]"


def test_modules_are_the_same_and_loaded_once(tmp_path: Path) -> None:
    assert run(tmp_path, "-c", SAME) == "No module named 'caffe.nothing'"


def test_another_caffe_is_not_displaced(tmp_path: Path) -> None:
    (tmp_path / "caffe.py").write_text("IS_ANOTHER = True\n")
    message = run(tmp_path, "-c", OTHER)
    assert message.startswith("another module 'caffe' (") and "caffe.py) is imported already" in message
    assert "call barista.as_caffe() before `import caffe`, or write `import barista as caffe`" in message
