// Depthwise convolution: input channel c alone makes the output channels c * MULTIPLIER + 0, 1, ...
//
// Two ways to go over it:
//
//   rows    for CPU devices, where a work-group is one work-item and local memory is cache: a work-item copies the
//           rows that it needs into local memory, with zeros around them, and computes vectors of a row.  Columns
//           that lie STRIDE_X apart are copied side by side ("phases"), so that every tap reads a whole vector:
//
//             input row      0 a b c d e f 0          phase 0  0 b d f
//             (STRIDE_X 2)                            phase 1  a c e 0
//
//   plain   for all others: a work-item is one number of the result.
//
// A channel's sums over the images are made in shares of the batch, which one kernel adds in a fixed order.

#ifndef REAL
#define REAL float   // element type: float, or double where the device has cl_khr_fp64
#endif
#ifndef VECTOR
#define VECTOR 8     // elements of a vector: 2, 4, 8 or 16
#endif
#ifndef CHANNELS     // the geometry; all have to be given
#define CHANNELS 1   // input channels
#define MULTIPLIER 1 // output channels that one makes
#define IY 1         // input, output and kernel size, stride, padding, dilation
#define IX 1
#define OY 1
#define OX 1
#define KY 1
#define KX 1
#define SY 1
#define SX 1
#define PY 0
#define PX 0
#define DY 1
#define DX 1
#endif
#ifndef OUT_BAND
#define OUT_BAND OY  // rows of y that are computed at a time (passes forward and grad_weight): 1 or more
#endif
#ifndef IN_BAND
#define IN_BAND IY   // rows of dx that are computed at a time: 1 or more
#endif

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
typedef REAL real;
typedef JOIN(REAL, VECTOR) vector;
typedef vector loose __attribute__((aligned(sizeof(real))));

#define TAPS (KY * KX)
#define SUM_ROWS (TAPS <= 12 ? KY : 1)  // kernel rows whose gradients are summed at once, in registers
#define IN_PIXELS (IY * IX)
#define OUT_PIXELS (OY * OX)
#define BANDS(rows, band) (((rows) + (band)-1) / (band))
#define COVER(columns, width) (((columns) + (width)-1) / (width) * (width))
#define WHOLE(columns) COVER(columns, VECTOR)  // columns of the vectors that cover a row
#define LARGER(a, b) ((a) > (b) ? (a) : (b))

// Rows of x as `forward` and `grad_weight` want them: [row][phase][column].
#define X_COLUMNS LARGER(WHOLE(OX) + (KX - 1) * DX / SX, (PX + SX - 1) / SX + COVER(IX, SX * VECTOR) / SX)
#define X_PITCH (SX * X_COLUMNS)
#define X_ROWS ((OUT_BAND - 1) * SY + (KY - 1) * DY + 1)

// Where tap kx of output column 0 lies in such a row.
#define X_TAP(kx) ((kx) * DX % SX * X_COLUMNS + (kx) * DX / SX)

// Rows of dy as `grad_input` wants them: LEFT zeros, the row, zeros as far as anything reads.
// Input column SX * j + phase takes, from tap kx, column j + (phase + PX - kx * DX) / SX where SX divides that.
#define PHASE_COLUMNS ((IX + SX - 1) / SX)
#define LEFT ((KX - 1) * DX / SX + 1)
#define DY_PITCH (LEFT + LARGER(WHOLE(PHASE_COLUMNS) + (SX + PX) / SX, WHOLE(OX)))

static int floor_divide(const int value, const int divisor)
{
    return value >= 0 ? value / divisor : -((divisor - 1 - value) / divisor);
}

// ---- rows -------------------------------------------------------------------------------------------------

// Copy a row.  `open`: as many elements as the vectors that cover the row have may be read and written.
static void copy_row(__global const real *restrict from, __local real *restrict to, const int columns, const int open)
{
    if (open)
        for (int i = 0; i < columns; i += VECTOR)
            *(__local loose *)(to + i) = *(__global const loose *)(from + i);
    else
        for (int i = 0; i < columns; i++) to[i] = from[i];
}

// Copy the elements of a row of x into the phases, which begin X_COLUMNS apart.  `open`: as above.
static void copy_phases(__global const real *restrict from, __local real *restrict to, const int open)
{
#if SX == 1
    copy_row(from, to + PX, IX, open);
#elif SX == 2
    if (open) {
        __local real *restrict even = to + PX % 2 * X_COLUMNS + PX / 2;
        __local real *restrict odd = to + (PX + 1) % 2 * X_COLUMNS + (PX + 1) / 2;
        for (int i = 0; i < IX; i += 2 * VECTOR) {
            const vector left = *(__global const loose *)(from + i);
            const vector right = *(__global const loose *)(from + i + VECTOR);
            *(__local loose *)(even + i / 2) = (vector)(left.even, right.even);
            *(__local loose *)(odd + i / 2) = (vector)(left.odd, right.odd);
        }
    } else
        for (int i = 0; i < IX; i++) to[(i + PX) % 2 * X_COLUMNS + (i + PX) / 2] = from[i];
#else
    for (int i = 0; i < IX; i++) to[(i + PX) % SX * X_COLUMNS + (i + PX) / SX] = from[i];
#endif
}

// Copy rows of an input plane, from row `first` on (which may lie outside, where zeros are).
static void stage_x(__global const real *restrict plane, __local real *restrict rows, const int first, const int count)
{
    for (int r = 0; r < count; r++, rows += X_PITCH) {
        const int iy = first + r;
        if (iy < 0 || iy >= IY) {
            for (int i = 0; i < X_PITCH; i++) rows[i] = 0;
            continue;
        }
        // What vectors read beyond the row has to be of the same plane.
        copy_phases(plane + iy * IX, rows, (IY - iy) * IX >= COVER(IX, SX * VECTOR));
        _Pragma("unroll") for (int phase = 0; phase < SX; phase++) {
            // Column j of the phase is input column j * SX + phase - PX.
            const int begin = (PX - phase + SX - 1) / SX, end = (IX + PX - phase + SX - 1) / SX;
            for (int j = 0; j < begin; j++) rows[phase * X_COLUMNS + j] = 0;
            for (int j = end; j < X_COLUMNS; j++) rows[phase * X_COLUMNS + j] = 0;
        }
    }
}

// Write a vector of a row of `columns`; the last one of a row may stick out.  `open`: another row of the same
// work-item follows, which overwrites what sticks out.
static void write(__global real *restrict row, const int j, const int columns, const vector value, const int open)
{
    if (j + VECTOR <= (open ? 2 * columns : columns)) {
        *(__global loose *)(row + j) = value;
        return;
    }
    real edge[VECTOR];
    *(loose *)edge = value;
    for (int i = 0; j + i < columns; i++) row[j + i] = edge[i];
}

// Work-items: (plane of x, band of rows of y), the last fastest; `planes` planes each.
__kernel void forward_rows(__global const real *restrict x, __global const real *restrict w,
                           __global const real *restrict bias,  // or null
                           __global real *restrict y,
                           __local real *restrict rows,         // X_ROWS x X_PITCH
                           const int rectify, const int planes, const int all_planes, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int bands = BANDS(OY, OUT_BAND), top = id % bands * OUT_BAND;
    const int bottom = top + OUT_BAND < OY ? top + OUT_BAND : OY;
    for (int p = id / bands * planes; p < all_planes && p < ((int)id / bands + 1) * planes; p++) {
        stage_x(x + (size_t)p * IN_PIXELS, rows, top * SY - PY, (bottom - top - 1) * SY + (KY - 1) * DY + 1);
        for (int m = 0; m < MULTIPLIER; m++) {
            const int o = p % CHANNELS * MULTIPLIER + m;
            const vector shift = (vector)(bias ? bias[o] : (real)0);
            __global const real *restrict weights = w + o * TAPS;
            __global real *restrict result = y + ((size_t)p * MULTIPLIER + m) * OUT_PIXELS;
            for (int oy = top; oy < bottom; oy++)
                for (int j = 0; j < OX; j += VECTOR) {
                    vector sum = shift;
                    for (int ky = 0; ky < KY; ky++) {
                        __local const real *restrict from = rows + ((oy - top) * SY + ky * DY) * X_PITCH + j;
                        _Pragma("unroll") for (int kx = 0; kx < KX; kx++)
                            sum += (vector)(weights[ky * KX + kx]) * *(__local const loose *)(from + X_TAP(kx));
                    }
                    if (rectify) sum = sum < (vector)(0) ? (vector)(0) : sum;
                    write(result + oy * OX, j, OX, sum, oy + 1 < bottom);
                }
        }
    }
}

// Work-items: (plane of dx, band of its rows), the last fastest; `planes` planes each.
__kernel void grad_input_rows(__global const real *restrict dy, __global const real *restrict w,
                              __global real *restrict dx,
                              __local real *restrict rows,    // DY_ROWS x MULTIPLIER x DY_PITCH
                              __local real *restrict phases,  // SX x WHOLE(PHASE_COLUMNS)
                              const int planes, const int all_planes, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int bands = BANDS(IY, IN_BAND), top = id % bands * IN_BAND;
    const int bottom = top + IN_BAND < IY ? top + IN_BAND : IY;
    // The rows of dy that reach this band.
    int first = floor_divide(top + PY - (KY - 1) * DY + SY - 1, SY), last = (bottom - 1 + PY) / SY;
    first = first < 0 ? 0 : first;
    last = last >= OY ? OY - 1 : last;
    for (int p = id / bands * planes; p < all_planes && p < ((int)id / bands + 1) * planes; p++) {
        for (int m = 0; m < MULTIPLIER; m++)
            for (int oy = first; oy <= last; oy++) {
                __global const real *restrict from = dy + ((size_t)p * MULTIPLIER + m) * OUT_PIXELS + oy * OX;
                __local real *restrict to = rows + ((oy - first) * MULTIPLIER + m) * DY_PITCH;
                copy_row(from, to + LEFT, OX, (OY - oy) * OX >= WHOLE(OX));
                for (int i = 0; i < LEFT; i++) to[i] = 0;
                for (int i = LEFT + OX; i < DY_PITCH; i++) to[i] = 0;
            }
        __global const real *restrict weights = w + p % CHANNELS * MULTIPLIER * TAPS;
        for (int iy = top; iy < bottom; iy++) {
            __global real *restrict result = dx + (size_t)p * IN_PIXELS + iy * IX;
            _Pragma("unroll") for (int phase = 0; phase < SX; phase++)
                for (int j = 0; j < PHASE_COLUMNS; j += VECTOR) {
                    vector sum = (vector)(0);
                    for (int ky = 0; ky < KY; ky++) {
                        const int row = iy + PY - ky * DY;
                        if (row < 0 || row % SY || row / SY >= OY) continue;
                        for (int m = 0; m < MULTIPLIER; m++) {
                            __local const real *restrict from =
                                rows + ((row / SY - first) * MULTIPLIER + m) * DY_PITCH + LEFT + j;
                            _Pragma("unroll") for (int kx = 0; kx < KX; kx++)
                                if ((phase + PX - kx * DX) % SX == 0)
                                    sum += (vector)(weights[(m * KY + ky) * KX + kx])
                                           * *(__local const loose *)(from + (phase + PX - kx * DX) / SX);
                        }
                    }
                    if (SX == 1) write(result, j, IX, sum, iy + 1 < bottom);
                    else *(__local loose *)(phases + phase * WHOLE(PHASE_COLUMNS) + j) = sum;
                }
            if (SX > 1) {
                for (int j = 0; j < IX / SX; j++)
                    _Pragma("unroll") for (int phase = 0; phase < SX; phase++)
                        result[j * SX + phase] = phases[phase * WHOLE(PHASE_COLUMNS) + j];
                for (int i = IX / SX * SX; i < IX; i++)
                    result[i] = phases[i % SX * WHOLE(PHASE_COLUMNS) + i / SX];
            }
        }
    }
}

// The sums of one band for the kernel rows [ky, ky + SUM_ROWS): sums[tap] += x * dy, a vector of partial sums each.
static void add_products(__local const real *restrict x_rows, __local const real *restrict dy_rows,
                         __local vector *restrict sums, const int count)
{
    vector sum[SUM_ROWS][KX];
    _Pragma("unroll") for (int r = 0; r < SUM_ROWS; r++)
        _Pragma("unroll") for (int kx = 0; kx < KX; kx++) sum[r][kx] = sums[r * KX + kx];
    for (int oy = 0; oy < count; oy++)
        for (int j = 0; j < OX; j += VECTOR) {
            const vector factor = *(__local const loose *)(dy_rows + oy * WHOLE(OX) + j);
            _Pragma("unroll") for (int r = 0; r < SUM_ROWS; r++)
                _Pragma("unroll") for (int kx = 0; kx < KX; kx++)
                    sum[r][kx] += factor * *(__local const loose *)(x_rows + (oy * SY + r * DY) * X_PITCH + j
                                                                    + X_TAP(kx));
        }
    _Pragma("unroll") for (int r = 0; r < SUM_ROWS; r++)
        _Pragma("unroll") for (int kx = 0; kx < KX; kx++) sums[r * KX + kx] = sum[r][kx];
}

// Work-items: (share of the batch, channel of x), the last fastest.
__kernel void grad_weight_rows(__global const real *restrict x, __global const real *restrict dy,
                               __global real *restrict partial,   // shares x output channels x taps
                               __local real *restrict x_rows,     // X_ROWS x X_PITCH
                               __local real *restrict dy_rows,    // OUT_BAND x WHOLE(OX)
                               __local real *restrict sums,       // MULTIPLIER x TAPS vectors
                               const int batch, const int shares, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int c = id % CHANNELS, share = id / CHANNELS;
    __local vector *all_sums = (__local vector *)sums;
    for (int i = 0; i < MULTIPLIER * TAPS; i++) all_sums[i] = (vector)(0);
    for (int n = (long)batch * share / shares; n < (int)((long)batch * (share + 1) / shares); n++)
        for (int top = 0; top < OY; top += OUT_BAND) {
            const int count = top + OUT_BAND < OY ? OUT_BAND : OY - top;
            stage_x(x + ((size_t)n * CHANNELS + c) * IN_PIXELS, x_rows, top * SY - PY,
                    (count - 1) * SY + (KY - 1) * DY + 1);
            for (int m = 0; m < MULTIPLIER; m++) {
                __global const real *restrict from =
                    dy + (((size_t)n * CHANNELS + c) * MULTIPLIER + m) * OUT_PIXELS + top * OX;
                for (int oy = 0; oy < count; oy++, from += OX) {
                    __local real *restrict to = dy_rows + oy * WHOLE(OX);
                    copy_row(from, to, OX, (OY - top - oy) * OX >= WHOLE(OX));
                    for (int i = OX; i < WHOLE(OX); i++) to[i] = 0;
                }
                for (int ky = 0; ky < KY; ky += SUM_ROWS)
                    add_products(x_rows + ky * DY * X_PITCH, dy_rows, all_sums + m * TAPS + ky * KX, count);
            }
        }
    for (int i = 0; i < MULTIPLIER * TAPS; i++) {
        real total = 0;
        for (int lane = 0; lane < VECTOR; lane++) total += sums[i * VECTOR + lane];
        partial[((size_t)share * CHANNELS + c) * MULTIPLIER * TAPS + i] = total;
    }
}

// ---- plain ------------------------------------------------------------------------------------------------

// Work-items: numbers of y.
__kernel void forward_plain(__global const real *restrict x, __global const real *restrict w,
                            __global const real *restrict bias,  // or null
                            __global real *restrict y, const int rectify, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int ox = id % OX, oy = id / OX % OY;
    const uint plane = id / OUT_PIXELS;
    const int o = plane % (CHANNELS * MULTIPLIER);
    __global const real *restrict from = x + (size_t)(plane / MULTIPLIER) * IN_PIXELS;
    real sum = bias ? bias[o] : (real)0;
    for (int ky = 0; ky < KY; ky++)
        for (int kx = 0; kx < KX; kx++) {
            const int iy = oy * SY - PY + ky * DY, ix = ox * SX - PX + kx * DX;
            if (iy >= 0 && iy < IY && ix >= 0 && ix < IX) sum += w[o * TAPS + ky * KX + kx] * from[iy * IX + ix];
        }
    y[id] = rectify && sum < 0 ? (real)0 : sum;
}

// Work-items: numbers of dx.
__kernel void grad_input_plain(__global const real *restrict dy, __global const real *restrict w,
                               __global real *restrict dx, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int ix = id % IX, iy = id / IX % IY;
    const uint plane = id / IN_PIXELS;
    real sum = 0;
    for (int m = 0; m < MULTIPLIER; m++)
        for (int ky = 0; ky < KY; ky++)
            for (int kx = 0; kx < KX; kx++) {
                const int row = iy + PY - ky * DY, column = ix + PX - kx * DX;
                if (row < 0 || column < 0 || row % SY || column % SX || row / SY >= OY || column / SX >= OX) continue;
                sum += w[(plane % CHANNELS * MULTIPLIER + m) * TAPS + ky * KX + kx]
                       * dy[((size_t)plane * MULTIPLIER + m) * OUT_PIXELS + row / SY * OX + column / SX];
            }
    dx[id] = sum;
}

// Work-items: (share of the batch, number of dw), the last fastest.
__kernel void grad_weight_plain(__global const real *restrict x, __global const real *restrict dy,
                                __global real *restrict partial,  // shares x output channels x taps
                                const int batch, const int shares, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int count = CHANNELS * MULTIPLIER * TAPS;
    const int tap = id % TAPS, o = id / TAPS % (CHANNELS * MULTIPLIER), share = id / count;
    const int ky = tap / KX, kx = tap % KX;
    real sum = 0;
    for (int n = (long)batch * share / shares; n < (int)((long)batch * (share + 1) / shares); n++) {
        __global const real *restrict from = x + ((size_t)n * CHANNELS + o / MULTIPLIER) * IN_PIXELS;
        __global const real *restrict factors = dy + ((size_t)n * CHANNELS * MULTIPLIER + o) * OUT_PIXELS;
        for (int oy = 0; oy < OY; oy++) {
            const int iy = oy * SY - PY + ky * DY;
            if (iy < 0 || iy >= IY) continue;
            for (int ox = 0; ox < OX; ox++) {
                const int ix = ox * SX - PX + kx * DX;
                if (ix >= 0 && ix < IX) sum += from[iy * IX + ix] * factors[oy * OX + ox];
            }
        }
    }
    partial[id] = sum;
}

// Add the shares of the batch.  Work-items: numbers of dw.
__kernel void add_shares(__global const real *restrict partial, __global real *restrict dw, const int shares,
                         const int accumulate, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    real sum = accumulate ? dw[id] : (real)0;
    for (int share = 0; share < shares; share++) sum += partial[(size_t)share * items + id];
    dw[id] = sum;
}
