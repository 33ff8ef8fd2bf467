"""The OpenCL runtime: devices, the queue, compiled programs and device memory.

`driver` is the one module of Barista that imports pyopencl.
"""
