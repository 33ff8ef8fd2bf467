// PReLU of x(outer, axis, inner): y = x where x > 0, else slope(axis) * x.
//
// Rows and work-items are those of broadcast.cl.

#include "rows.cl"

// In place too.
__kernel void forward(__global const real *x, __global const real *restrict slope, __global real *y, const int axis,
                      const int rows, const int length, const uint items)
{
    MY_ROWS
    for (int row = first; row < last; row++) {
        __global const real *from = x + (size_t)row * length;
        __global real *to = y + (size_t)row * length;
        VECTOR_LOOP for (int i = start; i < stop; i++) {
            const real value = from[i], below = value * ELEMENT(slope);
            to[i] = value > 0 ? value : below;
        }
    }
}

// dx = dy where x > 0, else slope * dy; in place (dy, dx) too.
__kernel void grad_input(__global const real *restrict x, __global const real *restrict slope, __global const real *dy,
                         __global real *dx, const int axis, const int rows, const int length, const uint items)
{
    MY_ROWS
    for (int row = first; row < last; row++) {
        const size_t offset = (size_t)row * length;
        __global const real *source = x + offset, *from = dy + offset;
        __global real *to = dx + offset;
        VECTOR_LOOP for (int i = start; i < stop; i++) {
            const real value = from[i], below = value * ELEMENT(slope);
            to[i] = source[i] > 0 ? value : below;
        }
    }
}

// Sums of dy * min(x, 0) for each part; broadcast.cl adds them.
__kernel void grad_slope(__global const real *restrict x, __global const real *restrict dy,
                         __global real *restrict sums, const int axis, const int rows, const int length,
                         const uint items)
{
#if ALONG
    MY_COLUMNS
    int i = left;
    for (; i + VECTOR <= right; i += VECTOR) {
        vector sum = (vector)(0);
        for (int row = first; row < last; row++) {
            const vector value = LOAD(x + (size_t)row * axis + i);
            sum += LOAD(dy + (size_t)row * axis + i) * (value > (vector)(0) ? (vector)(0) : value);
        }
        STORE(sums + (size_t)part * axis + i, sum);
    }
    for (; i < right; i++) {
        real sum = 0;
        for (int row = first; row < last; row++) {
            const real value = x[(size_t)row * axis + i];
            sum += dy[(size_t)row * axis + i] * (value > 0 ? (real)0 : value);
        }
        sums[(size_t)part * axis + i] = sum;
    }
#else
    MY_ROWS
    for (int row = first; row < last; row++) {
        __global const real *source = x + (size_t)row * length, *gradient = dy + (size_t)row * length;
        vector sum = (vector)(0);
        real rest = 0;
        int i = start;
        for (; i + VECTOR <= stop; i += VECTOR) {
            const vector value = LOAD(source + i);
            sum += LOAD(gradient + i) * (value > (vector)(0) ? (vector)(0) : value);
        }
        for (; i < stop; i++) rest += gradient[i] * (source[i] > 0 ? (real)0 : source[i]);
        sums[(size_t)(row / axis * pieces + part) * axis + row % axis] = total(&sum) + rest;
    }
#endif
}
