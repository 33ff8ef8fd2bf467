"""The OpenCL op set: plain kernels from ``opencl_kernels/`` for what LeNet and its like need.

What has no kernel runs on the host op set beneath.
"""

from __future__ import annotations

from .opset import OpenCLOps

__all__ = ["OpenCLOps"]
