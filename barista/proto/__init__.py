"""Caffe's formats as protocol buffers, and the upgrade of their older forms.

``caffe_pb2`` is generated from ``caffe.proto`` by ``tools/generate_proto.py``.
"""
