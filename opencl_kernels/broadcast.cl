// A vector v(axis) against x(outer, axis, inner).
//
// x is a matrix of rows: where inner > 1 a row has one element of v (ALONG 0), where inner = 1 it has
// them all (ALONG 1).  A work-item takes some short rows, or a PIECE of a long one:
//
//   element-wise   rows of `length` elements, cut at every PIECE
//   sums, inner>1  the same; one partial sum for each row or piece
//   sums, inner=1  rows of a strip of COLUMNS columns; one partial sum for each block of rows
//
// The partial sums are matrices (parts, axis), whose columns the last kernel adds.  Every sum is taken
// in one order.

#include "rows.cl"

// y = x + v, in place too.
__kernel void add(__global const real *x, __global const real *restrict v, __global real *y, const int axis,
                  const int rows, const int length, const uint items)
{
    MY_ROWS
    for (int row = first; row < last; row++) {
        __global const real *from = x + (size_t)row * length;
        __global real *to = y + (size_t)row * length;
        VECTOR_LOOP for (int i = start; i < stop; i++) to[i] = from[i] + ELEMENT(v);
    }
}

// y = x * v + bias, in place too; bias a vector or null; saved takes x, or is null.
__kernel void multiply(__global const real *x, __global const real *restrict v, __global const real *restrict bias,
                       __global real *restrict saved, __global real *y, const int axis, const int rows,
                       const int length, const uint items)
{
    MY_ROWS
    for (int row = first; row < last; row++) {
        __global const real *from = x + (size_t)row * length;
        __global real *to = y + (size_t)row * length, *copy = saved + (size_t)row * length;
        if (saved && bias)
            VECTOR_LOOP for (int i = start; i < stop; i++) {
                const real value = from[i];
                copy[i] = value;
                to[i] = value * ELEMENT(v) + ELEMENT(bias);
            }
        else if (saved)
            VECTOR_LOOP for (int i = start; i < stop; i++) {
                const real value = from[i];
                copy[i] = value;
                to[i] = value * ELEMENT(v);
            }
        else if (bias)
            VECTOR_LOOP for (int i = start; i < stop; i++) to[i] = from[i] * ELEMENT(v) + ELEMENT(bias);
        else
            VECTOR_LOOP for (int i = start; i < stop; i++) to[i] = from[i] * ELEMENT(v);
    }
}

// Partial sums of dy, and of dy * x where x is not null; dx = dy * v where dx is not null, in place too.
// Where inner > 1: parts are (outer, pieces of a row).
__kernel void gradients_of_rows(__global const real *dy, __global const real *restrict x,
                                __global const real *restrict v, __global real *dx,
                                __global real *restrict sums, __global real *restrict dots, const int axis,
                                const int rows, const int length, const uint items)
{
    MY_ROWS
    for (int row = first; row < last; row++) {
        const int channel = row % axis;
        const real factor = dx ? v[channel] : (real)0;
        const size_t offset = (size_t)row * length;
        vector sum = (vector)(0), dot = (vector)(0);
        real sum_rest = 0, dot_rest = 0;
        int i = start;
        for (; i + VECTOR <= stop; i += VECTOR) {
            const vector value = LOAD(dy + offset + i);
            sum += value;
            if (x) dot += value * LOAD(x + offset + i);
            if (dx) STORE(dx + offset + i, value * factor);
        }
        for (; i < stop; i++) {
            const real value = dy[offset + i];
            sum_rest += value;
            if (x) dot_rest += value * x[offset + i];
            if (dx) dx[offset + i] = value * factor;
        }
        const size_t at = (size_t)(row / axis * pieces + part) * axis + channel;
        sums[at] = total(&sum) + sum_rest;
        if (x) dots[at] = total(&dot) + dot_rest;
    }
}

// The same where inner = 1: parts are blocks of rows.
__kernel void gradients_of_columns(__global const real *dy, __global const real *restrict x,
                                   __global const real *restrict v, __global real *dx,
                                   __global real *restrict sums, __global real *restrict dots, const int axis,
                                   const int rows, const int length, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int strips = (axis + COLUMNS - 1) / COLUMNS, strip = id % strips, block = id / strips;
    const int first = block * BLOCK, last = first + BLOCK < rows ? first + BLOCK : rows;
    const int end = (strip + 1) * COLUMNS < axis ? (strip + 1) * COLUMNS : axis;
    int i = strip * COLUMNS;
    for (; i + VECTOR <= end; i += VECTOR) {
        const vector factor = dx ? LOAD(v + i) : (vector)(0);
        vector sum = (vector)(0), dot = (vector)(0);
        for (int row = first; row < last; row++) {
            const size_t at = (size_t)row * axis + i;
            const vector value = LOAD(dy + at);
            sum += value;
            if (x) dot += value * LOAD(x + at);
            if (dx) STORE(dx + at, value * factor);
        }
        STORE(sums + (size_t)block * axis + i, sum);
        if (x) STORE(dots + (size_t)block * axis + i, dot);
    }
    for (; i < end; i++) {
        real sum = 0, dot = 0;
        for (int row = first; row < last; row++) {
            const size_t at = (size_t)row * axis + i;
            const real value = dy[at];
            sum += value;
            if (x) dot += value * x[at];
            if (dx) dx[at] = value * v[i];
        }
        sums[(size_t)block * axis + i] = sum;
        if (x) dots[(size_t)block * axis + i] = dot;
    }
}

static void load(__global const real *from, const int width, vector *lanes)
{
    if (width == VECTOR)
        *lanes = LOAD(from);
    else
        for (int lane = 0; lane < VECTOR; lane++) (*lanes)[lane] = lane < width ? from[lane] : (real)0;
}

// v (+)= the sums of the columns of sums(parts, axis), and w (+)= those of dots; both may be null.
// Work-items: groups of VECTOR columns.
__kernel void add_parts(__global const real *restrict sums, __global const real *restrict dots,
                        __global real *v, __global real *w, const int axis, const int parts,
                        const int add_to_v, const int add_to_w, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int begin = id * VECTOR, width = axis - begin < VECTOR ? axis - begin : VECTOR;
    vector value, sum = (vector)(0), dot = (vector)(0);
    for (int part = 0; v && part < parts; part++) {
        load(sums + (size_t)part * axis + begin, width, &value);
        sum += value;
    }
    for (int part = 0; w && part < parts; part++) {
        load(dots + (size_t)part * axis + begin, width, &value);
        dot += value;
    }
    for (int at = begin; at < begin + width; at++) {
        if (v) v[at] = add_to_v ? v[at] + sum[at - begin] : sum[at - begin];
        if (w) w[at] = add_to_w ? w[at] + dot[at - begin] : dot[at - begin];
    }
}
