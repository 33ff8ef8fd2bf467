"""Caffe's formats as protocol buffers, and the upgrade of their older forms.

``caffe_pb2`` is generated from ``caffe.proto`` by ``tools/generate_proto.py``.
"""

from . import caffe_pb2 as caffe_pb2
