// Batch normalisation of x(outer, axis, inner) over outer and inner.
//
// Rows and work-items are those of broadcast.cl: a row has one element of the axis where inner > 1
// (ALONG 0), and all of them where inner = 1 (ALONG 1).
//
//   forward    moments    mean and squared deviations of each part: a row, a piece of one, or a block of rows
//              statistics of each element of the axis, from its parts
//              normalise
//   backward   sums       of dy and of dy * (x - mean), for each part; broadcast.cl adds them
//              backward
//
// Deviations are taken from a mean that is known, part by part, so that nothing cancels where the mean is
// large; a part is small enough to stay in the nearest cache meanwhile.

#include "rows.cl"

// Mean of a part, and the sum of the squares of what deviates from it.  The deviations from the mean as it was
// first found add up to its rounding error, by which both are mended.
__kernel void moments(__global const real *restrict x, __global real *restrict means,
                      __global real *restrict squares, const int axis, const int rows, const int length,
                      const uint items)
{
#if ALONG
    MY_COLUMNS
    const real share = (real)1 / (last - first);
    int i = left;
    for (; i + VECTOR <= right; i += VECTOR) {
        vector mean = (vector)(0), sum = (vector)(0), square = (vector)(0);
        for (int row = first; row < last; row++) mean += LOAD(x + (size_t)row * axis + i);
        mean *= share;
        for (int row = first; row < last; row++) {
            const vector deviation = LOAD(x + (size_t)row * axis + i) - mean;
            sum += deviation;
            square += deviation * deviation;
        }
        STORE(means + (size_t)part * axis + i, mean + sum * share);
        STORE(squares + (size_t)part * axis + i, square - sum * sum * share);
    }
    for (; i < right; i++) {
        real mean = 0, sum = 0, square = 0;
        for (int row = first; row < last; row++) mean += x[(size_t)row * axis + i];
        mean *= share;
        for (int row = first; row < last; row++) {
            const real deviation = x[(size_t)row * axis + i] - mean;
            sum += deviation;
            square += deviation * deviation;
        }
        means[(size_t)part * axis + i] = mean + sum * share;
        squares[(size_t)part * axis + i] = square - sum * sum * share;
    }
#else
    MY_ROWS
    const real share = (real)1 / (stop - start);
    for (int row = first; row < last; row++) {
        __global const real *from = x + (size_t)row * length;
        const size_t at = (size_t)(row / axis * pieces + part) * axis + row % axis;
        vector sum = (vector)(0), square = (vector)(0);
        real sum_rest = 0, square_rest = 0;
        int i = start;
        for (; i + VECTOR <= stop; i += VECTOR) sum += LOAD(from + i);
        for (; i < stop; i++) sum_rest += from[i];
        const real mean = (total(&sum) + sum_rest) * share;
        sum = (vector)(0);
        sum_rest = 0;
        for (i = start; i + VECTOR <= stop; i += VECTOR) {
            const vector deviation = LOAD(from + i) - mean;
            sum += deviation;
            square += deviation * deviation;
        }
        for (; i < stop; i++) {
            const real deviation = from[i] - mean;
            sum_rest += deviation;
            square_rest += deviation * deviation;
        }
        const real error = total(&sum) + sum_rest;
        means[at] = mean + error * share;
        squares[at] = total(&square) + square_rest - error * error * share;
    }
#endif
}

static void load(__global const real *from, const int width, vector *lanes)
{
    if (width == VECTOR)
        *lanes = LOAD(from);
    else
        for (int lane = 0; lane < VECTOR; lane++) (*lanes)[lane] = lane < width ? from[lane] : (real)0;
}

// Mean, variance and 1 / sqrt(variance + eps) of each element of the axis; `centre` takes the mean too.
// Work-items: VECTOR elements of the axis.  Parts have `most` elements, and each last of `pieces` has `left`.
__kernel void statistics(__global const real *restrict means, __global const real *restrict squares,
                         __global real *restrict mean, __global real *restrict variance,
                         __global real *restrict centre, __global real *restrict inverse, const int axis,
                         const int parts, const int pieces, const int most, const int left,
                         const real share,  // 1 / how many elements there are
                         const real eps, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int begin = id * VECTOR, width = axis - begin < VECTOR ? axis - begin : VECTOR;
    means += begin;
    squares += begin;
    vector origin, value, square, average = (vector)(0), sum = (vector)(0);
    load(means, parts ? width : 0, &origin);
    for (int part = 0, piece = 1; part < parts; part++, piece = piece < pieces ? piece + 1 : 1) {
        load(means + (size_t)part * axis, width, &value);
        average += (value - origin) * (real)(piece < pieces ? most : left);
    }
    average = origin + average * share;
    for (int part = 0, piece = 1; part < parts; part++, piece = piece < pieces ? piece + 1 : 1) {
        load(means + (size_t)part * axis, width, &value);
        load(squares + (size_t)part * axis, width, &square);
        value -= average;
        sum += square + value * value * (real)(piece < pieces ? most : left);
    }
    sum *= share;
    for (int lane = 0; lane < width; lane++) {
        mean[begin + lane] = centre[begin + lane] = average[lane];
        variance[begin + lane] = sum[lane];
        inverse[begin + lane] = 1 / sqrt(sum[lane] + eps);
    }
}

// The same of given ones.  Work-items: the axis.
__kernel void given(__global const real *restrict mean, __global const real *restrict variance,
                    __global real *restrict centre, __global real *restrict inverse, const real eps, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    centre[id] = mean[id];
    inverse[id] = 1 / sqrt(variance[id] + eps);
}

// y = (x - centre) * inverse, in place too; saved takes x, or is null.
__kernel void normalise(__global const real *x, __global const real *restrict centre,
                        __global const real *restrict inverse, __global real *restrict saved, __global real *y,
                        const int axis, const int rows, const int length, const uint items)
{
    MY_ROWS
    for (int row = first; row < last; row++) {
        const size_t offset = (size_t)row * length;
        __global const real *from = x + offset;
        __global real *to = y + offset;
        if (saved) {
            __global real *copy = saved + offset;
            VECTOR_LOOP for (int i = start; i < stop; i++) {
                const real value = from[i];
                copy[i] = value;
                to[i] = (value - ELEMENT(centre)) * ELEMENT(inverse);
            }
        } else
            VECTOR_LOOP for (int i = start; i < stop; i++) to[i] = (from[i] - ELEMENT(centre)) * ELEMENT(inverse);
    }
}

// Sums of dy and of dy * (x - centre), for each part.
__kernel void sums(__global const real *restrict dy, __global const real *restrict x,
                   __global const real *restrict centre, __global real *restrict gradients,
                   __global real *restrict slopes, const int axis, const int rows, const int length, const uint items)
{
#if ALONG
    MY_COLUMNS
    int i = left;
    for (; i + VECTOR <= right; i += VECTOR) {
        const vector mean = LOAD(centre + i);
        vector sum = (vector)(0), slope = (vector)(0);
        for (int row = first; row < last; row++) {
            const vector value = LOAD(dy + (size_t)row * axis + i);
            sum += value;
            slope += value * (LOAD(x + (size_t)row * axis + i) - mean);
        }
        STORE(gradients + (size_t)part * axis + i, sum);
        STORE(slopes + (size_t)part * axis + i, slope);
    }
    for (; i < right; i++) {
        real sum = 0, slope = 0;
        for (int row = first; row < last; row++) {
            const size_t at = (size_t)row * axis + i;
            sum += dy[at];
            slope += dy[at] * (x[at] - centre[i]);
        }
        gradients[(size_t)part * axis + i] = sum;
        slopes[(size_t)part * axis + i] = slope;
    }
#else
    MY_ROWS
    for (int row = first; row < last; row++) {
        const size_t offset = (size_t)row * length, at = (size_t)(row / axis * pieces + part) * axis + row % axis;
        const real mean = centre[row % axis];
        vector sum = (vector)(0), slope = (vector)(0);
        real sum_rest = 0, slope_rest = 0;
        int i = start;
        for (; i + VECTOR <= stop; i += VECTOR) {
            const vector value = LOAD(dy + offset + i);
            sum += value;
            slope += value * (LOAD(x + offset + i) - mean);
        }
        for (; i < stop; i++) {
            sum_rest += dy[offset + i];
            slope_rest += dy[offset + i] * (x[offset + i] - mean);
        }
        gradients[at] = total(&sum) + sum_rest;
        slopes[at] = total(&slope) + slope_rest;
    }
#endif
}

// dx = inverse * (dy - gradient / count - (x - centre) * inverse^2 * slope / count), in place (dy, dx) too.
__kernel void backward(__global const real *dy, __global const real *restrict x,
                       __global const real *restrict centre, __global const real *restrict inverse,
                       __global const real *restrict gradient, __global const real *restrict slope,
                       __global real *dx, const int axis, const int rows, const int length, const real share,
                       const uint items)
{
    MY_ROWS
    for (int row = first; row < last; row++) {
        const size_t offset = (size_t)row * length;
        __global const real *from = dy + offset, *source = x + offset;
        __global real *to = dx + offset;
        VECTOR_LOOP for (int i = start; i < stop; i++) {
            const real factor = ELEMENT(inverse);
            const real tilt = (source[i] - ELEMENT(centre)) * (factor * factor * (ELEMENT(slope) * share));
            to[i] = (from[i] - ELEMENT(gradient) * share - tilt) * factor;
        }
    }
}
