// Softmax over the axis of x(outer, axis, inner).
//
// Where inner is 1 the numbers of a row lie side by side, and a work-item has some rows; else rows lie side by side,
// and a work-item has up to BLOCK of them.  Either way loops go along the memory.  functions.cl may come before.

#include "functions.cl"

#ifndef REAL
#define REAL float      // element type: float, or double where the device has cl_khr_fp64
#endif
#ifndef OWN_FUNCTIONS   // functions.cl says what these are
#define exponential exp
#endif
#define LANES 8         // numbers of a row that are computed side by side
#ifndef BLOCK
#define BLOCK 64        // rows that are computed side by side: 1 or more
#endif

typedef REAL real;

// The work-item's rows where inner is 1.
#define EACH_ROW                                                                             \
    if (get_global_id(0) >= items) return;                                                   \
    const int begin = (int)get_global_id(0) * rows, end = all - begin < rows ? all : begin + rows; \
    for (int row = begin; row < end; row++)

// y = exp(x - max) / sum, in place too; inner is 1.  Work-items: `rows` rows.
__kernel void forward_rows(__global const real *x, __global real *y, const int axis, const int rows, const int all,
                           const uint items)
{
    EACH_ROW {
        __global const real *from = x + (size_t)row * axis;
        __global real *to = y + (size_t)row * axis;
        real lanes[LANES], part[LANES];
        for (int lane = 0; lane < LANES; lane++) lanes[lane] = from[0];
        int i = 0;
        for (; i + LANES <= axis; i += LANES)
            for (int lane = 0; lane < LANES; lane++)
                lanes[lane] = from[i + lane] > lanes[lane] ? from[i + lane] : lanes[lane];
        for (; i < axis; i++) lanes[0] = from[i] > lanes[0] ? from[i] : lanes[0];
        real largest = lanes[0];
        for (int lane = 1; lane < LANES; lane++) largest = lanes[lane] > largest ? lanes[lane] : largest;

        real sum = 0;
        for (int lane = 0; lane < LANES; lane++) lanes[lane] = 0;
        for (i = 0; i + LANES <= axis; i += LANES) {
            for (int lane = 0; lane < LANES; lane++) part[lane] = exponential(from[i + lane] - largest);
            for (int lane = 0; lane < LANES; lane++) to[i + lane] = part[lane];
            for (int lane = 0; lane < LANES; lane++) lanes[lane] += part[lane];
        }
        for (; i < axis; i++) {
            const real e = exponential(from[i] - largest);
            to[i] = e;
            sum += e;
        }
        for (int lane = 0; lane < LANES; lane++) sum += lanes[lane];
        for (i = 0; i < axis; i++) to[i] = to[i] / sum;
    }
}

// dx = y * (dy - sum(dy * y)), in place too; inner is 1.  Work-items: `rows` rows.
__kernel void backward_rows(__global const real *restrict y, __global const real *dy, __global real *dx,
                            const int axis, const int rows, const int all, const uint items)
{
    EACH_ROW {
        __global const real *of = y + (size_t)row * axis, *from = dy + (size_t)row * axis;
        __global real *to = dx + (size_t)row * axis;
        real lanes[LANES], part[LANES], dot = 0;
        for (int lane = 0; lane < LANES; lane++) lanes[lane] = 0;
        int i = 0;
        for (; i + LANES <= axis; i += LANES)
            for (int lane = 0; lane < LANES; lane++) lanes[lane] += from[i + lane] * of[i + lane];
        for (; i < axis; i++) dot += from[i] * of[i];
        for (int lane = 0; lane < LANES; lane++) dot += lanes[lane];
        for (i = 0; i + LANES <= axis; i += LANES) {
            for (int lane = 0; lane < LANES; lane++) part[lane] = of[i + lane] * (from[i + lane] - dot);
            for (int lane = 0; lane < LANES; lane++) to[i + lane] = part[lane];
        }
        for (; i < axis; i++) to[i] = of[i] * (from[i] - dot);
    }
}

// The work-item's place, `count` neighbours along inner.
#define FIND_BLOCK                                                             \
    const uint id = get_global_id(0);                                          \
    if (id >= items) return;                                                   \
    const int blocks = (inner + BLOCK - 1) / BLOCK, c0 = (int)(id % blocks) * BLOCK; \
    const int count = inner - c0 < BLOCK ? inner - c0 : BLOCK;                 \
    const size_t place = (size_t)(id / blocks) * axis * inner + c0;

// y = exp(x - max) / sum, in place too.  Work-items: blocks along inner, for each outer.
__kernel void forward_blocks(__global const real *x, __global real *y, const int axis, const int inner,
                             const uint items)
{
    FIND_BLOCK
    x += place;
    y += place;
    real largest[BLOCK], sum[BLOCK], part[BLOCK];
    for (int c = 0; c < count; c++) {
        largest[c] = x[c];
        sum[c] = 0;
    }
    for (int i = 1; i < axis; i++)
        for (int c = 0; c < count; c++) {
            const real other = x[(size_t)i * inner + c];
            largest[c] = other > largest[c] ? other : largest[c];
        }
    for (int i = 0; i < axis; i++) {
        for (int c = 0; c < count; c++) part[c] = exponential(x[(size_t)i * inner + c] - largest[c]);
        for (int c = 0; c < count; c++) sum[c] += part[c];
        for (int c = 0; c < count; c++) y[(size_t)i * inner + c] = part[c];
    }
    for (int i = 0; i < axis; i++)
        for (int c = 0; c < count; c++) y[(size_t)i * inner + c] = y[(size_t)i * inner + c] / sum[c];
}

// dx = y * (dy - sum(dy * y)), in place too.  Work-items: blocks along inner, for each outer.
__kernel void backward_blocks(__global const real *restrict y, __global const real *dy, __global real *dx,
                              const int axis, const int inner, const uint items)
{
    FIND_BLOCK
    y += place;
    dy += place;
    dx += place;
    real dot[BLOCK], part[BLOCK];
    for (int c = 0; c < count; c++) dot[c] = 0;
    for (int i = 0; i < axis; i++)
        for (int c = 0; c < count; c++) dot[c] += dy[(size_t)i * inner + c] * y[(size_t)i * inner + c];
    for (int i = 0; i < axis; i++) {
        for (int c = 0; c < count; c++)
            part[c] = y[(size_t)i * inner + c] * (dy[(size_t)i * inner + c] - dot[c]);
        for (int c = 0; c < count; c++) dx[(size_t)i * inner + c] = part[c];
    }
}
