"""Readers of network formats; each ends in Caffe's ``NetParameter``."""
