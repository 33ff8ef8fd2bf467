// What the kernels of conv_winograd.cl and conv_winograd_weight.cl have in common.
//
// Winograd's minimal filtering F(TILE x TILE, WINDOW x WINDOW) at stride 1: a tile of TILE x TILE outputs takes an input
// patch of SIDE x SIDE, SIDE = TILE + WINDOW - 1.  Patch and window are turned into SIDE x SIDE numbers each; in their
// places there is one matrix product over the channels; what it gives is turned back:
//
//     y = At [ sum over c of (G w_c Gt) * (Bt x_c B) ] A
//
// That takes SIDE * SIDE multiplications a tile and pair of channels in place of those of WINDOW * WINDOW taps for
// TILE * TILE outputs: 2.25 times fewer for tiles of 2 and windows of 3, 4 times fewer for 4 and 3, 2.8 for 2 and 5,
// 6.25 for 4 and 5.
//
// Made for CPU devices, where a work-group is one work-item and local memory is cache.  A work-item takes a block of
// tiles of some images; pixels are turned about first, so that channels lie side by side and all that follows are
// vectors of channels.

#ifndef REAL
#define REAL float   // element type: float, or double where the device has cl_khr_fp64
#endif
#ifndef TILE
#define TILE 2       // outputs of a tile along an axis
#endif
#ifndef WINDOW
#define WINDOW 3     // taps of a window along an axis
#endif
#ifndef PAIRS        // pairs of points, and what is computed from them (see the transforms): here the points are 1, -1
#define PAIRS 1
#define POWERS {{1, 1, 1, 1}}
#define SPREADS {{0.5, 0.5, 0.5, 0.5}}
#define OTHERS {{1}}
#define EVERYONE {-1, 1}
#endif
#ifndef VECTOR
#define VECTOR 8     // channels of a vector: 8 or 16
#endif
#ifndef VECTORS
#define VECTORS 2    // vectors of a panel of output channels: 1 or more
#endif
#ifndef ROWS
#define ROWS 6       // tiles whose products are summed at once; ROWS * VECTORS + VECTORS + 1 vector registers hold them
#endif
#ifndef AVX512
#define AVX512 0     // 1: compiled for x86-64 with AVX-512 (F, VL, DQ, BW), which the processor must have
#endif
#ifndef INPUTS       // the geometry and the blocks; all have to be given
#define GROUPS 1
#define INPUTS 16    // channels of x and y in a group
#define OUTPUTS 16
#define IY 8         // sizes of x and y, padding (which may be below 0: x is cropped)
#define IX 8
#define OY 8
#define OX 8
#define PY 1
#define PX 1
#define BATCH 1
#define BLOCK_IMAGES 1  // a work-item's block: images, rows and columns of tiles
#define BLOCK_Y 2
#define BLOCK_X 2
#define PART 1          // panels of output channels whose windows are turned at a time
#endif

#define SIDE (TILE + WINDOW - 1)
#define TAPS (WINDOW * WINDOW)
#define PLACES (SIDE * SIDE)
#define PANEL (VECTOR * VECTORS)
#define CEIL(a, b) (((a) + (b)-1) / (b))
#define PANELS CEIL(OUTPUTS, PANEL)
#define BLOCK (BLOCK_IMAGES * BLOCK_Y * BLOCK_X)
#define BLOCK_ROWS (CEIL(BLOCK, ROWS) * ROWS)
// Vectors from tile to tile, and from place to place: odd, so that they do not all fall into one set of the cache.
#define DEPTH (CEIL(INPUTS, VECTOR) | 1)
#define PLACE_STEP(tiles, depth) (((tiles) * (depth)) | 1)
#define ENTERED_STEP PLACE_STEP(BLOCK_ROWS, DEPTH)
#define PRODUCT_STEP PLACE_STEP(BLOCK_ROWS, VECTORS)
#define PATCH_X (BLOCK_X * TILE + WINDOW - 1)          // columns of the patches of a block, which overlap
#define PATCH_Y (BLOCK_Y * TILE + WINDOW - 1)
#define BLOCKS_Y CEIL(CEIL(OY, TILE), BLOCK_Y)
#define BLOCKS_X CEIL(CEIL(OX, TILE), BLOCK_X)
#define BLOCKS (CEIL(BATCH, BLOCK_IMAGES) * BLOCKS_Y * BLOCKS_X)

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
typedef REAL real;
typedef JOIN(REAL, VECTOR) vector;
typedef JOIN(REAL, 8) real8;
typedef vector loose __attribute__((aligned(sizeof(real))));
typedef real8 loose8 __attribute__((aligned(sizeof(real))));

#if AVX512
#define INNER __attribute__((noinline, target("avx512f,avx512vl,avx512dq,avx512bw"))) static
#define INLINE __attribute__((always_inline, target("avx512f,avx512vl,avx512dq,avx512bw"))) static
#else
#define INNER __attribute__((noinline)) static
#define INLINE __attribute__((always_inline)) static
#endif
#define UNROLL _Pragma("unroll")

// ---- transforms of lines of numbers, STEP apart -----------------------------------------------------------

// A filter is a product of polynomials, known by its values at the points 0, p0, -p0, p1, -p1, ... and infinity, in this
// order.  What the pairs have in common is computed once: a sum of even and one of odd powers.

__constant real POWER[PAIRS][SIDE] = POWERS;     // p to the k
__constant real SPREAD[PAIRS][SIDE] = SPREADS;   // the same over the product of its distances to the other points
__constant real OTHER[PAIRS][PAIRS] = OTHERS;    // the product of (u - q * q) for the other pairs' q, powers of u rising
__constant real EVERY[PAIRS + 1] = EVERYONE;     // that product for all pairs

// Bt d.
INLINE void enter_line(vector *d, const int step)
{
    vector first = d[2 * PAIRS * step], last = d[(2 * PAIRS + 1) * step], even[PAIRS], odd[PAIRS];
    UNROLL for (int i = 0; i < PAIRS; i++) {
        even[i] = d[2 * PAIRS * step];
        odd[i] = d[(2 * PAIRS - 1) * step];
        UNROLL for (int k = 0; k < PAIRS - 1; k++) {
            even[i] += OTHER[i][k] * d[(2 * k + 2) * step];
            odd[i] += OTHER[i][k] * d[(2 * k + 1) * step];
        }
        odd[i] *= POWER[i][1];
    }
    UNROLL for (int k = 0; k < PAIRS; k++) {
        first += EVERY[k] * d[2 * k * step];
        last += EVERY[k] * d[(2 * k + 1) * step];
    }
    d[0] = first;
    UNROLL for (int i = 0; i < PAIRS; i++) {
        d[(2 * i + 1) * step] = even[i] + odd[i];
        d[(2 * i + 2) * step] = even[i] - odd[i];
    }
    d[(SIDE - 1) * step] = last;
}

// to = G g: SIDE numbers of `count`.
INLINE void spread_line(const vector *g, const int count, vector *to, const int step)
{
    to[0] = ((real)1 / EVERY[0]) * g[0];
    UNROLL for (int i = 0; i < PAIRS; i++) {
        vector even = SPREAD[i][0] * g[0], odd = SPREAD[i][1] * g[step];
        UNROLL for (int k = 2; k < count; k += 2) even += SPREAD[i][k] * g[k * step];
        UNROLL for (int k = 3; k < count; k += 2) odd += SPREAD[i][k] * g[k * step];
        to[(2 * i + 1) * step] = even + odd;
        to[(2 * i + 2) * step] = even - odd;
    }
    to[(SIDE - 1) * step] = g[(count - 1) * step];
}

// all = G g Gt: SIDE x SIDE numbers of count x count.
INLINE void spread(const vector *g, const int count, vector *all)
{
    vector from[SIDE * SIDE], columns[SIDE * SIDE];
    UNROLL for (int row = 0; row < count; row++)
        UNROLL for (int column = 0; column < count; column++) from[row * SIDE + column] = g[row * count + column];
    UNROLL for (int column = 0; column < count; column++) spread_line(from + column, count, columns + column, SIDE);
    UNROLL for (int row = 0; row < SIDE; row++) spread_line(columns + row * SIDE, count, all + row * SIDE, 1);
}

// At m, in the first `count` places.
INLINE void leave_line(vector *m, const int step, const int count)
{
    const vector first = m[0], last = m[(SIDE - 1) * step];
    vector sum[PAIRS], difference[PAIRS];
    UNROLL for (int i = 0; i < PAIRS; i++) {
        sum[i] = m[(2 * i + 1) * step] + m[(2 * i + 2) * step];
        difference[i] = m[(2 * i + 1) * step] - m[(2 * i + 2) * step];
    }
    UNROLL for (int k = 0; k < count; k++) {
        vector value = k % 2 ? POWER[0][k] * difference[0] : POWER[0][k] * sum[0];
        UNROLL for (int i = 1; i < PAIRS; i++) value += k % 2 ? POWER[i][k] * difference[i] : POWER[i][k] * sum[i];
        if (k == 0) value += first;
        if (k == count - 1) value += last;
        m[k * step] = value;
    }
}

// ---- turning pixels and channels about --------------------------------------------------------------------

INLINE void transpose(real8 *r)
{
    real8 s[8];
    UNROLL for (int i = 0; i < 8; i += 2) {
        const real8 a = r[i], b = r[i + 1];
        s[i] = (real8)(a.s0, b.s0, a.s1, b.s1, a.s4, b.s4, a.s5, b.s5);
        s[i + 1] = (real8)(a.s2, b.s2, a.s3, b.s3, a.s6, b.s6, a.s7, b.s7);
    }
    UNROLL for (int i = 0; i < 8; i += 4)
        UNROLL for (int j = 0; j < 2; j++) {
            const real8 a = s[i + j], b = s[i + j + 2];
            r[i + 2 * j] = (real8)(a.s01, b.s01, a.s45, b.s45);
            r[i + 2 * j + 1] = (real8)(a.s23, b.s23, a.s67, b.s67);
        }
    UNROLL for (int i = 0; i < 4; i++) {
        const real8 a = r[i], b = r[i + 4];
        r[i] = (real8)(a.lo, b.lo);
        r[i + 4] = (real8)(a.hi, b.hi);
    }
}

// Copy a rectangle of VECTOR planes, `channels` of which there are, into patches[row][column][channel].
INNER void stage(__global const real *restrict planes, const int plane, const int width,  // a plane, a row of it
                 __local real *restrict patches, const int pitch,                         // columns of patches
                 const int channels, const int rows, const int columns)
{
    // Whole rows lie one behind the other: they are one run, which steps over the patches' margins.
    const int runs = columns == width ? 1 : rows, length = columns == width ? rows * columns : columns;
    for (int first = 0; first < VECTOR; first += 8)
        for (int run = 0; run < runs; run++) {
            __global const real *restrict from = planes + first * plane + run * width;
            __local real *restrict to = patches + run * pitch * VECTOR + first;
            const int some = channels - first;
            int column = 0, q = 0;
            for (; q + 8 <= length; q += 8) {
                real8 block[8];
                if (some >= 8)
                    UNROLL for (int c = 0; c < 8; c++) block[c] = *(__global const loose8 *)(from + c * plane + q);
                else
                    UNROLL for (int c = 0; c < 8; c++)
                        if (c < some) block[c] = *(__global const loose8 *)(from + c * plane + q);
                        else block[c] = (real8)(0);
                transpose(block);
                UNROLL for (int i = 0; i < 8; i++) {
                    *(__local loose8 *)to = block[i];
                    to += VECTOR;
                    if (++column == columns) column = 0, to += (pitch - columns) * VECTOR;
                }
            }
            for (; q < length; q++) {
                for (int c = 0; c < 8; c++) to[c] = c < some ? from[c * plane + q] : (real)0;
                to += VECTOR;
                if (++column == columns) column = 0, to += (pitch - columns) * VECTOR;
            }
        }
}

// ---- the stations of a block ------------------------------------------------------------------------------

// The patches of one image and vector of channels, entered from tile number 0 on.
INNER void enter(__local const vector *restrict patches, __local vector *restrict entered, const int place_stride,
                 const int tile_stride)
{
    for (int ty = 0; ty < BLOCK_Y; ty++)
        for (int tx = 0; tx < BLOCK_X; tx++, entered += tile_stride) {
            __local const vector *restrict patch = patches + ty * TILE * PATCH_X + tx * TILE;
            vector d[PLACES];
            UNROLL for (int column = 0; column < SIDE; column++) {
                UNROLL for (int row = 0; row < SIDE; row++) d[row * SIDE + column] = patch[row * PATCH_X + column];
                enter_line(d + column, SIDE);
            }
            UNROLL for (int row = 0; row < SIDE; row++) {
                enter_line(d + row * SIDE, 1);
                UNROLL for (int column = 0; column < SIDE; column++)
                    entered[(row * SIDE + column) * place_stride] = d[row * SIDE + column];
            }
        }
}

// What a block has of x and y.
typedef struct {
    int n, images;            // first image and images
    int oy, ox, high, wide;   // pixels of y
    int iy, ix, rows, columns; // pixels of x; 0 or fewer rows or columns: it lies beyond x
    int inside;               // where these begin in the patches
} Part;

static Part part_of(const int block)
{
    Part p;
    p.n = block / (BLOCKS_X * BLOCKS_Y) * BLOCK_IMAGES;
    p.oy = block / BLOCKS_X % BLOCKS_Y * (BLOCK_Y * TILE);
    p.ox = block % BLOCKS_X * (BLOCK_X * TILE);
    p.images = BATCH - p.n < BLOCK_IMAGES ? BATCH - p.n : BLOCK_IMAGES;
    p.high = OY - p.oy < BLOCK_Y * TILE ? OY - p.oy : BLOCK_Y * TILE;
    p.wide = OX - p.ox < BLOCK_X * TILE ? OX - p.ox : BLOCK_X * TILE;
    const int top = p.oy - PY, left = p.ox - PX;
    p.iy = top > 0 ? top : 0;
    p.ix = left > 0 ? left : 0;
    p.rows = (top + PATCH_Y < IY ? top + PATCH_Y : IY) - p.iy;
    p.columns = (left + PATCH_X < IX ? left + PATCH_X : IX) - p.ix;
    p.inside = ((p.iy - top) * PATCH_X + p.ix - left) * VECTOR;
    return p;
}

static void clear(__local real *restrict vectors, const int count)
{
    for (int i = 0; i < count; i++) ((__local vector *)vectors)[i] = (vector)(0);
}

// Stage and enter channels [c0, c1) of a group of x.
static void enter_x(__global const real *restrict x, __local real *restrict patches, __local real *restrict entered,
                    const Part p, const int group, const int c0, const int c1, const int place_stride,
                    const int tile_stride)
{
    clear(patches, PATCH_Y * PATCH_X);
    for (int n = 0; n < p.images; n++)
        for (int c = c0; c < c1; c += VECTOR) {
            if (p.rows > 0 && p.columns > 0)
                stage(x + (((size_t)(p.n + n) * GROUPS + group) * INPUTS + c) * (IY * IX) + p.iy * IX + p.ix, IY * IX,
                      IX, patches + p.inside, PATCH_X, INPUTS - c, p.rows, p.columns);
            enter((__local vector *)patches,
                  (__local vector *)entered + n * (BLOCK_Y * BLOCK_X) * tile_stride + (c - c0) / VECTOR, place_stride,
                  tile_stride);
        }
}

