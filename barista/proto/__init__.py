"""Caffe's formats as protocol buffers, and the upgrade of their older forms; Caffe2's nets.

``caffe_pb2`` and ``caffe2_pb2`` are generated from ``caffe.proto`` and ``caffe2.proto`` by ``tools/generate_proto.py``.
"""

from . import caffe_pb2 as caffe_pb2
