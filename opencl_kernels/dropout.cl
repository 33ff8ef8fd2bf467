// Dropout with a mask that the host has drawn; its gradient is the same kernel.

#ifndef REAL
#define REAL float  // element type: float, or double where the device has cl_khr_fp64
#endif

typedef REAL real;

// y = x * scale where keep is not 0, else 0; in place too.  Work-items: elements.
__kernel void drop(__global const real *x, __global const uchar *restrict keep, __global real *y, const real scale,
                   const uint items)
{
    const uint id = get_global_id(0);
    if (id < items) y[id] = keep[id] ? x[id] * scale : (real)0;
}
