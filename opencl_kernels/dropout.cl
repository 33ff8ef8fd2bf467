// Dropout with a mask that the host has drawn; its gradient is the same kernel.

#ifndef REAL
#define REAL float  // element type: float, or double where the device has cl_khr_fp64
#endif
#define LANES 16    // elements that are computed side by side

typedef REAL real;

// y = x * scale where keep is not 0, else 0; in place too.  Work-items: `run` elements.
__kernel void drop(__global const real *x, __global const uchar *restrict keep, __global real *y, const real scale,
                   const int run, const int all, const uint items)
{
    if (get_global_id(0) >= items) return;
    const int begin = (int)get_global_id(0) * run, end = all - begin < run ? all : begin + run;
    int i = begin;
    for (; i + LANES <= end; i += LANES) {
        // All are read before any is written, which in place the compiler cannot know.
        real part[LANES];
        for (int lane = 0; lane < LANES; lane++) part[lane] = keep[i + lane] ? x[i + lane] * scale : (real)0;
        for (int lane = 0; lane < LANES; lane++) y[i + lane] = part[lane];
    }
    for (; i < end; i++) y[i] = keep[i] ? x[i] * scale : (real)0;
}
