// Gradient of a convolution's weights on a CPU, straight from x and dy: no unrolled matrix, no padding.
//
//   dw(o, c, ky, kx) = sum over images and pixels (oy, ox) of
//                      dy(o, oy, ox) x(c, oy SY + ky DY - PY, ox SX + kx DX - PX)
//
// A work-item has some output channels, LANES of them, and goes over a part of the batch in *rounds*: a few images, or
// a band of rows of one.  It turns the round's dy to [pixel][lane] in local memory, which is the core's cache, and then
// makes one *tile* after the other: TAPS weights by LANES output channels, summed over the pixels in registers.
//
//            dy [pixel][LANES], turned             A tile has TAPS_C input channels and, where there is no padding,
//               | | | | | | | |                    TAPS_Y x TAPS_X of the kernel.  With one place of the kernel a tile,
//   x: taps    +---------------+                   the pixels whose input lies in the padding are left out, so that
//   at a pixel |  tile of dw   | for each pixel    padding costs nothing and x is read where it lies.
//              +---------------+
//
// Where the rows of a tile's channels would drive each other out of the cache, as those of 32 x 32 pixels do, they are
// copied into local memory first, at distances at which they do not (PITCH).
//
// Tiles are added to the work-item's own sums, which lie as [output channels / LANES][weight][lane]; `add` adds those
// of all parts of the batch, always in the same order, and turns them into dw.
//
// One work-item a work-group: a work-item is a long loop on one core.

#ifndef REAL
#define REAL float  // element type: float, or double where the device has cl_khr_fp64
#endif
#ifndef VECTOR
#define VECTOR 8    // elements of a vector: 2, 4, 8 or 16
#endif
#ifndef VECTORS
#define VECTORS 2   // vectors of output channels in a tile: 1 or more
#endif
#ifndef TAPS_C
#define TAPS_C 6    // input channels in a tile: 1 to CHANNELS
#define TAPS_Y 1    // rows of the kernel in a tile: 1, or KY where PY = 0
#define TAPS_X 1    // columns of the kernel in a tile: 1, or KX where PX = 0
#endif
#ifndef GROUPS
#define GROUPS 1    // groups of channels, each with
#define CHANNELS 6  // input channels
#define IY 8        // I: sizes of x, O: of y, K: of the kernel; S: stride, P: padding, D: dilation
#define IX 8
#define OY 8
#define OX 8
#define KY 3
#define KX 3
#define SY 1
#define SX 1
#define PY 1
#define PX 1
#define DY 1
#define DX 1
#endif
#ifndef LAST_VECTORS
#define LAST_VECTORS VECTORS // vectors of the last output channels of a group: 1 to VECTORS
#endif
#ifndef ROWS
#define ROWS OY     // rows of an image in a round
#endif
#ifndef PITCH
#define PITCH 0     // 0: x is read where it lies; else a tile's channels are copied into local memory, so far apart
#endif
#ifndef AVX512
#define AVX512 0    // 1: inner loops are compiled for x86-64 with AVX-512 (F, VL, DQ, BW), which the processor must have
#endif
#ifndef BLOCK
#define BLOCK 16    // weights that a work-item of `add` has
#endif

#define TAPS_YX (TAPS_Y * TAPS_X)
#define BANDS ((OY + ROWS - 1) / ROWS)
#define WEIGHTS (CHANNELS * KY * KX) // of one output channel
#define TAILS (CHANNELS % TAPS_C)    // input channels of the last tile, where it is not full
#define LANES (VECTORS * VECTOR)
// Of `outputs` output channels of a group: their slices and their sums.
#define SLICES(outputs) (((outputs) + LANES - 1) / LANES)
#define SUMS(outputs) (((outputs) + VECTOR - 1) / VECTOR * VECTOR * WEIGHTS)

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
typedef REAL real;
typedef JOIN(REAL, VECTOR) vector;
typedef vector loose __attribute__((aligned(sizeof(real))));
typedef JOIN(REAL, 8) real8;
typedef real8 loose8 __attribute__((aligned(sizeof(real))));

// The target belongs on functions of their own: on the kernel it would hold for PoCL's work-item loops too.
#if AVX512
#define INNER __attribute__((noinline, target("avx512f,avx512vl,avx512dq,avx512bw"))) static
#else
#define INNER __attribute__((noinline)) static
#endif

// x as tiles see it.
#if PITCH
#define X_SPACE __local
#define X_PLANE PITCH
#define X_IMAGE (TAPS_C * PITCH)
#else
#define X_SPACE __global
#define X_PLANE (IY * IX)
#define X_IMAGE (GROUPS * CHANNELS * IY * IX)
#endif

// Where x and the sums of weight number `tap` of a tile lie behind those of its first.
#define X_OF(tap) ((tap) / TAPS_YX * X_PLANE + (tap) / TAPS_X % TAPS_Y * (DY * IX) + (tap) % TAPS_X * DX)
#define SUM_OF(tap) ((tap) / TAPS_YX * (KY * KX) + (tap) / TAPS_X % TAPS_Y * KX + (tap) % TAPS_X)

// Add a tile of `channels` input channels by `vectors` vectors of output channels to its sums.  x and dy begin at the
// first pixel of the rectangle rows x columns that is summed in each image.
// `step` is SX, hidden from the compiler: it would carry x from pixel to pixel in more registers than there are.
#define TILE(name, channels, vectors)                                                                                 \
    INNER void name(X_SPACE const real *restrict x, __local const real *restrict dy, __global real *restrict sums,    \
                    const int images, const int image_rows, const int rows, const int columns, const int step,        \
                    const int first)                                                                                  \
    {                                                                                                                 \
        enum { TAPS = (channels) * TAPS_YX };                                                                         \
        vector sum[TAPS][vectors];                                                                                    \
        _Pragma("unroll") for (int i = 0; i < TAPS; i++)                                                              \
            _Pragma("unroll") for (int j = 0; j < (vectors); j++) sum[i][j] = (vector)(0);                            \
        for (int image = 0; image < images; image++, x += X_IMAGE,                                                    \
                 dy += image_rows * (OX * VECTOR * (vectors))) {                                                      \
            X_SPACE const real *restrict x_row = x;                                                                   \
            __local const real *restrict dy_row = dy;                                                                 \
            for (int row = 0; row < rows; row++, x_row += SY * IX, dy_row += OX * VECTOR * (vectors)) {               \
                X_SPACE const real *restrict at = x_row;                                                              \
                __local const vector *restrict lanes = (__local const vector *)dy_row;                                \
                _Pragma("clang loop unroll(disable)")                                                                 \
                for (int column = 0; column < columns; column++, at += step, lanes += (vectors)) {                    \
                    if (TAPS < (vectors)) {                                                                           \
                        vector element[TAPS];                                                                         \
                        _Pragma("unroll") for (int i = 0; i < TAPS; i++) element[i] = (vector)(at[X_OF(i)]);          \
                        _Pragma("unroll") for (int j = 0; j < (vectors); j++) {                                       \
                            const vector lane = lanes[j];                                                             \
                            _Pragma("unroll") for (int i = 0; i < TAPS; i++) sum[i][j] += element[i] * lane;          \
                        }                                                                                             \
                        continue;                                                                                     \
                    }                                                                                                 \
                    vector lane[vectors];                                                                             \
                    _Pragma("unroll") for (int j = 0; j < (vectors); j++) lane[j] = lanes[j];                         \
                    _Pragma("unroll") for (int i = 0; i < TAPS; i++) {                                                \
                        const vector element = (vector)(at[X_OF(i)]);                                                 \
                        _Pragma("unroll") for (int j = 0; j < (vectors); j++) sum[i][j] += element * lane[j];         \
                    }                                                                                                 \
                }                                                                                                     \
            }                                                                                                         \
        }                                                                                                             \
        _Pragma("unroll") for (int i = 0; i < TAPS; i++) {                                                            \
            __global loose *to = (__global loose *)(sums + SUM_OF(i) * (VECTOR * (vectors)));                         \
            _Pragma("unroll") for (int j = 0; j < (vectors); j++) to[j] = first ? sum[i][j] : to[j] + sum[i][j];      \
        }                                                                                                             \
    }

TILE(tile, TAPS_C, VECTORS)
#if TAILS
TILE(tile_tail, TAILS, VECTORS)
#endif
#if LAST_VECTORS != VECTORS
TILE(last_tile, TAPS_C, LAST_VECTORS)
#if TAILS
TILE(last_tile_tail, TAILS, LAST_VECTORS)
#endif
#endif

// The pixels along one axis whose input is not padding, for a place of the kernel.
static int first_inside(const int offset, const int stride)
{
    return offset < 0 ? (stride - 1 - offset) / stride : 0;
}

static int end_inside(const int offset, const int stride, const int input, const int output)
{
    const int end = input > offset ? (input - 1 - offset) / stride + 1 : 0;
    return end < output ? end : output;
}

#if PITCH
// Rows of one channel.
INNER void copy(__global const real *restrict from, __local real *restrict to, const int count)
{
    for (int i = 0; i < count; i++) to[i] = from[i];
}
#endif

// All tiles of input channels [c0, c1) and one slice of output channels in a round, which has rows [top, bottom).
static void sweep(__global const real *restrict x, __local real *restrict copied, __local const real *restrict dy,
                  __global real *restrict sums, const int vectors, const int c0, const int c1, const int images,
                  const int top, const int bottom, const int step, const int first)
{
    const int lanes = vectors * VECTOR;
    for (int c = c0; c < c1; c += TAPS_C) {
#if PITCH
        const int begin = top * SY > PY ? top * SY - PY : 0, last = (bottom - 1) * SY + (KY - 1) * DY - PY;
        const int count = ((last < IY ? last + 1 : IY) - begin) * IX;
        for (int image = 0; image < images; image++)
            for (int i = 0; i < TAPS_C && c + i < c1; i++)
                copy(x + ((size_t)image * GROUPS * CHANNELS + c + i) * (IY * IX) + begin * IX,
                     copied + image * X_IMAGE + i * PITCH, count);
        __local const real *restrict origin = copied - begin * IX;
#else
        __global const real *restrict origin = x + (size_t)c * (IY * IX);
#endif
        for (int ky = 0; ky < KY; ky += TAPS_Y) {
            const int y = ky * DY - PY;
            int from = first_inside(y, SY), to = end_inside(y, SY, IY, OY);
            from = from > top ? from : top;
            to = to < bottom ? to : bottom;
            for (int kx = 0; kx < KX; kx += TAPS_X) {
                const int left = first_inside(kx * DX - PX, SX), right = end_inside(kx * DX - PX, SX, IX, OX);
                X_SPACE const real *at = origin + (from * SY + y) * IX + (left * SX + kx * DX - PX);
                __local const real *turned = dy + ((from - top) * OX + left) * lanes;
                __global real *to_sums = sums + ((size_t)(c * KY + ky) * KX + kx) * lanes;
#define ARGUMENTS at, turned, to_sums, images, bottom - top, to - from, right - left, step, first
#if LAST_VECTORS != VECTORS
                if (vectors == LAST_VECTORS) {
#if TAILS
                    if (c + TAPS_C > CHANNELS) {
                        last_tile_tail(ARGUMENTS);
                        continue;
                    }
#endif
                    last_tile(ARGUMENTS);
                    continue;
                }
#endif
#if TAILS
                if (c + TAPS_C > CHANNELS) {
                    tile_tail(ARGUMENTS);
                    continue;
                }
#endif
                tile(ARGUMENTS);
            }
        }
    }
}

// Turn dy[channel][pixel] to [pixel][lane], zeros in lanes without a channel.
INNER void turn(__global const real *restrict dy, __local real *restrict turned, const int channels, const int lanes,
                const int pixels)
{
    int c = 0;
    for (; c + 8 <= channels && c + 8 <= lanes; c += 8) {
        __global const real *restrict from = dy + (size_t)c * (OY * OX);
        __local real *restrict to = turned + c;
        int i = 0;
        for (; i + 8 <= pixels; i += 8, from += 8, to += 8 * lanes) {
            // Squares of eight by eight: exchange neighbours, then pairs, then halves.
#define ROW(n) *(__global const loose8 *)(from + n * (OY * OX))
            const real8 a = ROW(0), b = ROW(1), c = ROW(2), d = ROW(3), e = ROW(4), f = ROW(5), g = ROW(6), h = ROW(7);
#define EVEN(p, q) (real8)(p.s0, q.s0, p.s2, q.s2, p.s4, q.s4, p.s6, q.s6)
#define ODD(p, q) (real8)(p.s1, q.s1, p.s3, q.s3, p.s5, q.s5, p.s7, q.s7)
            const real8 a1 = EVEN(a, b), b1 = ODD(a, b), c1 = EVEN(c, d), d1 = ODD(c, d);
            const real8 e1 = EVEN(e, f), f1 = ODD(e, f), g1 = EVEN(g, h), h1 = ODD(g, h);
#define PAIRS(p, q) (real8)(p.s01, q.s01, p.s45, q.s45)
#define OTHERS(p, q) (real8)(p.s23, q.s23, p.s67, q.s67)
            const real8 a2 = PAIRS(a1, c1), b2 = PAIRS(b1, d1), c2 = OTHERS(a1, c1), d2 = OTHERS(b1, d1);
            const real8 e2 = PAIRS(e1, g1), f2 = PAIRS(f1, h1), g2 = OTHERS(e1, g1), h2 = OTHERS(f1, h1);
#define TO(n) *(__local loose8 *)(to + n * lanes)
            TO(0) = (real8)(a2.lo, e2.lo);
            TO(1) = (real8)(b2.lo, f2.lo);
            TO(2) = (real8)(c2.lo, g2.lo);
            TO(3) = (real8)(d2.lo, h2.lo);
            TO(4) = (real8)(a2.hi, e2.hi);
            TO(5) = (real8)(b2.hi, f2.hi);
            TO(6) = (real8)(c2.hi, g2.hi);
            TO(7) = (real8)(d2.hi, h2.hi);
        }
        for (; i < pixels; i++, from++, to += lanes)
            for (int lane = 0; lane < 8; lane++) to[lane] = from[lane * (OY * OX)];
    }
    for (; c < lanes; c++)
        for (int i = 0; i < pixels; i++) turned[i * lanes + c] = c < channels ? dy[(size_t)c * (OY * OX) + i] : (real)0;
}

// A round has `most` images, 1 where it has fewer than OY rows.
// Work-items: (part of the batch, block of input channels, group, slice of output channels), the last fastest.
__kernel void grad_weight(__global const real *restrict x, __global const real *restrict dy,
                          __global real *restrict sums, // parts x GROUPS x SUMS(outputs)
                          __local real *restrict turned, // a round's dy
                          __local real *restrict copied, // TAPS_C channels of a round's x, where PITCH is not 0
                          const int batch, const int most, const int outputs, const int parts, const int blocks,
                          const int step, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int slices = SLICES(outputs);
    const int slice = id % slices, group = id / slices % GROUPS, block = id / slices / GROUPS % blocks;
    const int part = id / slices / GROUPS / blocks;
    const int tiles = (CHANNELS + TAPS_C - 1) / TAPS_C;
    const int c0 = tiles * block / blocks * TAPS_C, c1 = tiles * (block + 1) / blocks * TAPS_C;
    const int channel = slice * LANES, vectors = slice == slices - 1 ? LAST_VECTORS : VECTORS;
    const int rounds = (batch + most - 1) / most * BANDS;
    const int first = (int)((long)rounds * part / parts), end = (int)((long)rounds * (part + 1) / parts);
    sums += ((size_t)part * GROUPS + group) * SUMS(outputs) + (size_t)channel * WEIGHTS;
    for (int round = first; round < end; round++) {
        const int image = round / BANDS * most, top = round % BANDS * ROWS;
        const int images = batch - image < most ? batch - image : most;
        const int bottom = top + ROWS < OY ? top + ROWS : OY, pixels = (bottom - top) * OX;
        for (int i = 0; i < images; i++)
            turn(dy + (((size_t)(image + i) * GROUPS + group) * outputs + channel) * (OY * OX) + top * OX,
                 turned + i * pixels * vectors * VECTOR, outputs - channel, vectors * VECTOR, pixels);
        sweep(x + ((size_t)image * GROUPS + group) * (CHANNELS * IY * IX), copied, turned, sums, vectors,
              c0, c1 < CHANNELS ? c1 : CHANNELS, images, top, bottom, step, round == first);
    }
}

// dw (+)= the sums of all parts of the batch, turned.
// Work-items: (group, slice of output channels, block of BLOCK weights), the last fastest.
__kernel void add(__global const real *restrict sums, __global real *restrict dw, const int outputs, const int parts,
                  const int accumulate, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int slices = SLICES(outputs);
    const int blocks = (WEIGHTS + BLOCK - 1) / BLOCK;
    const int first = id % blocks * BLOCK, slice = id / blocks % slices, group = id / blocks / slices;
    const int channel = slice * LANES, lanes = slice == slices - 1 ? LAST_VECTORS * VECTOR : LANES;
    const int weights = WEIGHTS - first < BLOCK ? WEIGHTS - first : BLOCK;
    real total[BLOCK * LANES];
    sums += (size_t)group * SUMS(outputs) + (size_t)channel * WEIGHTS + (size_t)first * lanes;
    for (int i = 0; i < weights * lanes; i++) total[i] = sums[i];
    for (int part = 1; part < parts; part++)
        for (int i = 0; i < weights * lanes; i++) total[i] += sums[(size_t)part * GROUPS * SUMS(outputs) + i];
    dw += ((size_t)group * outputs + channel) * WEIGHTS + first;
    for (int lane = 0; lane < lanes && channel + lane < outputs; lane++, dw += WEIGHTS)
        for (int i = 0; i < weights; i++) {
            const real value = total[i * lanes + lane];
            dw[i] = accumulate ? dw[i] + value : value;
        }
}
