// Convolution with some images side by side: a vector holds the same pixel of several images.
//
//   Since all lanes stand at the same pixel, they need the same taps: those that fall into the padding, or between
//   the pixels of a strided gradient, are left out, no pixel is computed in vain, and any stride, pad and dilation
//   is only a matter of which taps an output coordinate has.  A table says that, for each axis:
//
//     coordinate o of the output  ->  first tap, first coordinate of the source, how many taps
//
//   from tap to tap both step by a constant.  The gradient of the input is such a convolution too.
//
// A work-item takes the images of one set, some rows of the output (a band) and some of its channels:
//
//   source -> local [pixel][channel][image]   some channels (a block) at a time, turned while they are copied
//   tile     TILE_M channels x one pixel x all images of the set, summed in registers; what a row of taps
//            reads lies side by side: it is the inner loop of a matrix product
//   sums     [channel][pixel][image] in local memory, turned back while they are written
//
// For CPU devices, where a work-group is one work-item and local memory is cache.  No barriers; each element is one
// sum in one order.

// Here VECTOR is 4, 8 or 16, and VECTORS 1 or an even number.
#define APART __attribute__((noinline))
#include "tiles.cl"

#define LANES (VECTOR * VECTORS)  // images of a set; half a set has half of them
// Pixels that are turned at a time: a cache line's worth, or half where their lines would evict each other.
#define PIXELS(channels) ((channels) > 32 ? 8 : 16)
#if VECTORS == 1
#define HALF_VECTORS 1
#if VECTOR == 16
typedef JOIN(REAL, 8) half_vector;
#elif VECTOR == 8
typedef JOIN(REAL, 4) half_vector;
#else
typedef JOIN(REAL, 2) half_vector;
#endif
#else
#define HALF_VECTORS (VECTORS / 2)
typedef vector half_vector;
#endif

// Sum the taps of one pixel: `rows` rows of `runs` runs of `length` numbers for each image, and as many tiles of
// weights.  With `add`, add them to `sums`.
#define TILE(name, type, vectors)                                                                           \
    INNER void name(__local const real *restrict x, __global const real *restrict w,                        \
                    __local real *restrict sums, const int sums_stride, const int rows, const int runs,     \
                    const int length, const int x_row, const int w_row, const int x_run, const int w_run,   \
                    const int add)                                                                          \
    {                                                                                                       \
        type sum[TILE_M][vectors];                                                                          \
        if (add)                                                                                            \
            _Pragma("unroll") for (int i = 0; i < TILE_M; i++)                                              \
                _Pragma("unroll") for (int j = 0; j < vectors; j++)                                         \
                    sum[i][j] = ((__local const type *)(sums + (size_t)i * sums_stride))[j];                \
        else                                                                                                \
            _Pragma("unroll") for (int i = 0; i < TILE_M; i++)                                              \
                _Pragma("unroll") for (int j = 0; j < vectors; j++) sum[i][j] = (type)(0);                  \
        for (int row = 0; row < rows; row++)                                                                \
            for (int run = 0; run < runs; run++) {                                                          \
                __local const type *restrict b = (__local const type *)(x + row * x_row + run * x_run);     \
                __global const real *restrict a = w + row * w_row + run * w_run;                            \
                for (int k = 0; k < length; k++) {                                                          \
                    type from[vectors];                                                                     \
                    _Pragma("unroll") for (int j = 0; j < vectors; j++) from[j] = b[j];                     \
                    _Pragma("unroll") for (int i = 0; i < TILE_M; i++) {                                    \
                        const type element = (type)(a[i]);                                                  \
                        _Pragma("unroll") for (int j = 0; j < vectors; j++) sum[i][j] += element * from[j]; \
                    }                                                                                       \
                    a += TILE_M;                                                                            \
                    b += vectors;                                                                           \
                }                                                                                           \
            }                                                                                               \
        _Pragma("unroll") for (int i = 0; i < TILE_M; i++)                                                  \
            _Pragma("unroll") for (int j = 0; j < vectors; j++)                                             \
                ((__local type *)(sums + (size_t)i * sums_stride))[j] = sum[i][j];                          \
    }

TILE(full_tile, vector, VECTORS)
TILE(half_tile, half_vector, HALF_VECTORS)

#define TURN(a, b, c, d, e, f, g, h)                                                                   \
    const real4 e = (real4)(a.s0, b.s0, c.s0, d.s0), f = (real4)(a.s1, b.s1, c.s1, d.s1);              \
    const real4 g = (real4)(a.s2, b.s2, c.s2, d.s2), h = (real4)(a.s3, b.s3, c.s3, d.s3);

// Copy `channels` channels of `pixels` pixels `step` apart: to[pixel][channel][lane].  Lane i begins at `at[i]`; where
// that is negative it becomes zeros.
static void copy_in(__global const real *restrict x, __private const int *restrict at, __local real *restrict to,
                    const int channels, const int channel_stride, const int pixels, const int step, const int lanes)
{
    const int pixel_stride = channels * lanes, whole = step == 1 ? pixels & ~3 : 0, block = PIXELS(channels);
    for (int p0 = 0; p0 < whole; p0 += block) {
        const int end = p0 + block < whole ? p0 + block : whole;
        for (int channel = 0; channel < channels; channel++)
            for (int lane = 0; lane < lanes; lane += 4) {
                __local real *restrict q = to + channel * lanes + lane + (size_t)p0 * pixel_stride;
#define FROM(i) (x + at[lane + i] + (size_t)channel * channel_stride)
                __global const real *restrict r0 = FROM(0), *restrict r1 = FROM(1);
                __global const real *restrict r2 = FROM(2), *restrict r3 = FROM(3);
#define TURN_IN(load)                                                                                  \
    for (int pixel = p0; pixel < end; pixel += 4, q += 4 * pixel_stride) {                             \
        const real4 a = load(0), b = load(1), c = load(2), d = load(3);                                \
        TURN(a, b, c, d, e, f, g, h)                                                                   \
        *(__local real4 *)q = e;                                                                       \
        *(__local real4 *)(q + pixel_stride) = f;                                                      \
        *(__local real4 *)(q + 2 * pixel_stride) = g;                                                  \
        *(__local real4 *)(q + 3 * pixel_stride) = h;                                                  \
    }
#define LOAD(i) *(__global const loose4 *)(r##i + pixel)
#define LOAD_OR_ZERO(i) (at[lane + i] < 0 ? (real4)(0) : LOAD(i))
                if ((at[lane] | at[lane + 1] | at[lane + 2] | at[lane + 3]) >= 0) {
                    if (end < whole) { // so many streams are more than a processor sees by itself
                        __builtin_prefetch((const void *)(size_t)(r0 + end));
                        __builtin_prefetch((const void *)(size_t)(r1 + end));
                        __builtin_prefetch((const void *)(size_t)(r2 + end));
                        __builtin_prefetch((const void *)(size_t)(r3 + end));
                    }
                    TURN_IN(LOAD)
                } else
                    TURN_IN(LOAD_OR_ZERO)
            }
    }
    for (int pixel = whole; pixel < pixels; pixel++)
        for (int channel = 0; channel < channels; channel++)
            for (int lane = 0; lane < lanes; lane++)
                to[((size_t)pixel * channels + channel) * lanes + lane] =
                    at[lane] < 0 ? (real)0 : x[at[lane] + (size_t)channel * channel_stride + pixel * step];
}

// Write the sums of one channel, [pixel][lane].  Lane i goes to `at[i]`; where that is negative, nowhere.
static void copy_out(__local const real *restrict sums, __global real *restrict y, __private const int *restrict at,
                     const int pixels, const int lanes, const real shift, const int rectify)
{
    for (int lane = 0; lane < lanes; lane += 4) {
        __local const real *restrict q = sums + lane;
        int done = 0;
        if ((at[lane] | at[lane + 1] | at[lane + 2] | at[lane + 3]) >= 0)
            for (; done + 4 <= pixels; done += 4, q += 4 * lanes) {
                const real4 a = *(__local const real4 *)q, b = *(__local const real4 *)(q + lanes);
                const real4 c = *(__local const real4 *)(q + 2 * lanes), d = *(__local const real4 *)(q + 3 * lanes);
                TURN(a, b, c, d, e, f, g, h)
#define PUT(value, i)                                                                                  \
    {                                                                                                  \
        const real4 t = value + (real4)(shift);                                                        \
        *(__global loose4 *)(y + at[lane + i] + done) = rectify ? (t < (real4)(0) ? (real4)(0) : t) : t; \
    }
                PUT(e, 0)
                PUT(f, 1)
                PUT(g, 2)
                PUT(h, 3)
            }
        for (int i = 0; i < 4; i++)
            if (at[lane + i] >= 0)
                for (int pixel = done; pixel < pixels; pixel++) {
                    const real t = sums[pixel * lanes + lane + i] + shift;
                    y[at[lane + i] + pixel] = rectify && t < 0 ? (real)0 : t;
                }
    }
}

// Where share number `index` of `shares` of `count` begins.
static int share(const int count, const int index, const int shares)
{
    return (int)((long)count * index / shares);
}

// What coordinates `first` to `end` need of the source, from `from` to `to`.
static void reach(__global const int *restrict table, const int first, const int end, const int source_step,
                  __private int *from, __private int *to)
{
    int low = INT_MAX, high = 0;
    for (int o = first; o < end; o++) {
        const int source = table[3 * o + 1], taps = table[3 * o + 2], last = source + (taps - 1) * source_step;
        if (!taps) continue;
        low = source < low ? source : low;
        high = last + 1 > high ? last + 1 : high;
    }
    *from = low < high ? low : high;
    *to = high;
}

// Work-items: (set of lanes, group, share of panels, span of columns, band of rows), the last fastest; the last set, which may be half a
// set, comes first, so that the units finish together.
__kernel void convolve(__global const real *restrict x, __global const real *restrict w, // packed, see `pack_weights`
                       __global const real *restrict bias, // one for each channel of y, or null
                       __global real *restrict y,
                       __global const int *restrict table, // (first tap, first coordinate, taps) of rows, then columns
                       __local real *restrict pixels,      // what a band needs of a block of channels
                       __local real *restrict sums,        // of a panel, or, where channels come in blocks, of all
                       const int batch, const int groups,
                       const int strips,                   // of rows into which an image is cut
                       const int strip_step,               // rows of x from strip to strip
                       const int strip_base,               // rows before the first
                       const int channels,                 // of x, a group
                       const int height, const int width,  // of an image of x
                       const int step_y, const int step_x, // which of its rows and columns count
                       const int rows, const int columns,  // of them
                       const int y_channels,               // a group
                       const int y_height,
                       const int y_rows, const int y_columns, // of a strip
                       const int taps_y, const int taps_x,
                       const int source_step_y, const int tap_step_y, // from tap to tap
                       const int source_step_x, const int tap_step_x,
                       const int blocks, const int bands, const int spans, const int shares, // of channels, rows, columns,
                                                                                              // and channels of y
                       const int rectify, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int band = id % bands, span = id / bands % spans, part = id / bands / spans % shares;
    const int group = id / bands / spans / shares % groups, set = id / bands / spans / shares / groups;
    const int first_lane = ((batch * strips - 1) / LANES - set) * LANES;
    const int lanes = batch * strips - first_lane <= LANES / 2 ? LANES / 2 : LANES;
    const int panels = (y_channels + TILE_M - 1) / TILE_M;
    const int panel0 = share(panels, part, shares), panel1 = share(panels, part + 1, shares);
    const int row0 = share(y_rows, band, bands), row1 = share(y_rows, band + 1, bands);
    const int column0 = share(y_columns, span, spans), column1 = share(y_columns, span + 1, spans);
    const int y_width = column1 - column0, count = (row1 - row0) * y_width, depth = channels * taps_y * taps_x;
    const int sum_stride = (count | 1) * lanes;  // odd, so that the sums of a tile do not evict each other
    const int image = groups * channels * height * width, y_image = groups * y_channels * y_height * y_columns;
    const int side_by_side = source_step_x == 1 && tap_step_x == 1;
    __global const int *restrict table_x = table + 3 * y_rows;

    int top, bottom, left, right; // what the band needs of a strip
    reach(table, row0, row1, source_step_y, &top, &bottom);
    reach(table_x, column0, column1, source_step_x, &left, &right);
    const int source_width = right - left;
    const int flat = strips == 1 && step_y == 1 && step_x == 1 && source_width == width;

    int at[LANES], y_at[LANES], first_row[LANES], y_first_row[LANES], whole = y_width == y_columns;
    for (int lane = 0; lane < lanes; lane++) {
        const int n = (first_lane + lane) / strips, strip = (first_lane + lane) % strips;
        at[lane] = n < batch ? n * image : -1;
        y_at[lane] = n < batch ? n * y_image : -1;
        first_row[lane] = strip * strip_step - strip_base;
        y_first_row[lane] = strip * y_rows;
        whole &= n >= batch || y_first_row[lane] + row1 <= y_height;
    }

    for (int block = 0; block < blocks; block++) {
        const int c0 = share(channels, block, blocks), depth_here = share(channels, block + 1, blocks) - c0;
        __global const real *restrict from = x + (size_t)(group * channels + c0) * height * width;
        for (int row = top; row < bottom; row += flat ? bottom - top : 1) {
            int start[LANES];
            for (int lane = 0; lane < lanes; lane++) {
                const int here = first_row[lane] + row;
                start[lane] = at[lane] < 0 || here < 0 || here >= rows ? -1
                    : at[lane] + here * step_y * width + left * step_x;
            }
            copy_in(from, start, pixels + (size_t)(row - top) * source_width * depth_here * lanes, depth_here,
                    height * width, flat ? (bottom - top) * width : source_width, step_x, lanes);
        }
        for (int panel = panel0; panel < panel1; panel++) {
            __global const real *restrict panel_w = w + ((size_t)group * panels + panel) * depth * TILE_M
                + (size_t)c0 * taps_y * taps_x * TILE_M;
            __local real *restrict panel_sums =
                sums + (blocks > 1 ? (size_t)(panel - panel0) * TILE_M * sum_stride : 0);
            for (int row = row0; row < row1; row++) {
                const int taps_here = table[3 * row + 2];
                __local const real *restrict source =
                    pixels + (size_t)(table[3 * row + 1] - top) * source_width * depth_here * lanes;
                __global const real *restrict row_w = panel_w + (size_t)table[3 * row] * taps_x * depth_here * TILE_M;
                for (int column = column0; column < column1; column++) {
                    const int taps = table_x[3 * column + 2];
                    __local real *restrict to = panel_sums + ((row - row0) * y_width + column - column0) * lanes;
                    __local const real *restrict here = source + (table_x[3 * column + 1] - left) * depth_here * lanes;
                    __global const real *restrict taps_w = row_w + table_x[3 * column] * depth_here * TILE_M;
                    const int runs = side_by_side && taps ? 1 : taps;
                    const int length = side_by_side ? taps * depth_here : depth_here;
                    const int x_row = source_step_y * source_width * depth_here * lanes;
                    const int w_row = tap_step_y * taps_x * depth_here * TILE_M;
                    const int x_run = source_step_x * depth_here * lanes, w_run = tap_step_x * depth_here * TILE_M;
                    if (lanes == LANES)
                        full_tile(here, taps_w, to, sum_stride, taps_here, runs, length, x_row, w_row, x_run, w_run, block);
                    else
                        half_tile(here, taps_w, to, sum_stride, taps_here, runs, length, x_row, w_row, x_run, w_run, block);
                }
            }
            if (block + 1 == blocks)
                for (int i = 0; i < TILE_M && panel * TILE_M + i < y_channels; i++) {
                    const int channel = group * y_channels + panel * TILE_M + i;
                    __global real *restrict y_channel = y + (size_t)channel * y_height * y_columns + column0;
                    for (int row = row0; row < row1; row += whole ? row1 - row0 : 1) {
                        int start[LANES];
                        for (int lane = 0; lane < lanes; lane++) {
                            const int here = y_first_row[lane] + row;
                            start[lane] = y_at[lane] < 0 || here >= y_height ? -1 : y_at[lane] + here * y_columns;
                        }
                        copy_out(panel_sums + (size_t)i * sum_stride + (row - row0) * y_width * lanes, y_channel, start,
                                 whole ? count : y_width, lanes, bias ? bias[channel] : (real)0, rectify);
                    }
                }
        }
    }
}

// Copy pixels `first` to `end` of `channels` channels into tiles, [tile][channel][pixel], zeros behind the last.
static void copy_pixels(__global const real *restrict x, __local real *restrict to, const int channels,
                        const int channel_stride, const int first, const int end, const int width, const int y_columns,
                        const int step_y, const int step_x)
{
    const int whole = step_y == 1 && step_x == 1 ? first + (end - first) / LANES * LANES : first;
    for (int channel = 0; channel < channels; channel++)
        for (int p0 = first; p0 < whole; p0 += LANES) {
            __local real *restrict q = to + (size_t)(p0 - first) * channels + channel * LANES;
            __global const real *restrict p = x + (size_t)channel * channel_stride + p0;
            _Pragma("unroll") for (int j = 0; j < VECTORS; j++)
                ((__local vector *)q)[j] = ((__global const loose *)p)[j];
        }
    for (int p0 = whole; p0 < end; p0 += LANES) {
        int at[LANES];
        for (int i = 0; i < LANES; i++) {
            const int row = (p0 + i) / y_columns, column = p0 + i - row * y_columns;
            at[i] = p0 + i < end ? row * step_y * width + column * step_x : -1;
        }
        __local real *restrict q = to + (size_t)(p0 - first) * channels;
        __global const real *restrict p = x;
        for (int channel = 0; channel < channels; channel++, q += LANES, p += channel_stride)
            for (int i = 0; i < LANES; i++) q[i] = at[i] < 0 ? (real)0 : p[at[i]];
    }
}

// Write the sums of a tile, [channel][pixel], to `channels` channels.
static void put_pixels(__local const real *restrict sums, __global real *restrict y, const int channels,
                       const int channel_stride, const int pixels, __global const real *restrict bias,
                       const int rectify)
{
    for (int channel = 0; channel < channels; channel++, sums += LANES, y += channel_stride) {
        const real shift = bias ? bias[channel] : (real)0;
        if (pixels == LANES)
            _Pragma("unroll") for (int j = 0; j < VECTORS; j++) {
                const vector t = ((__local const vector *)sums)[j] + (vector)(shift);
                ((__global loose *)y)[j] = rectify ? (t < (vector)(0) ? (vector)(0) : t) : t;
            }
        else
            for (int i = 0; i < pixels; i++) {
                const real t = sums[i] + shift;
                y[i] = rectify && t < 0 ? (real)0 : t;
            }
    }
}

// A single tap without padding: the lanes are pixels that lie side by side in y.
// Work-items: (image, group, chunk of pixels), the last fastest.
__kernel void pointwise(__global const real *restrict x, __global const real *restrict w, // packed, in one block
                        __global const real *restrict bias, // one for each channel of y, or null
                        __global real *restrict y,
                        __local real *restrict pixels,      // a chunk
                        __local real *restrict sums,        // a tile
                        const int groups, const int channels, const int height, const int width,
                        const int step_y, const int step_x, const int y_channels, const int y_columns,
                        const int y_pixels, const int chunks, const int rectify, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int chunk = id % chunks, group = id / chunks % groups, n = id / chunks / groups;
    const int tiles = (y_pixels + LANES - 1) / LANES, panels = (y_channels + TILE_M - 1) / TILE_M;
    const int first = share(tiles, chunk, chunks) * LANES, last = share(tiles, chunk + 1, chunks) * LANES;
    const int end = last < y_pixels ? last : y_pixels, z = n * groups + group;
    copy_pixels(x + (size_t)z * channels * height * width, pixels, channels, height * width, first, end, width,
                y_columns, step_y, step_x);
    w += (size_t)group * panels * channels * TILE_M;
    for (int m0 = 0; m0 < y_channels; m0 += TILE_M)
        for (int p0 = first; p0 < end; p0 += LANES) {
            full_tile(pixels + (size_t)(p0 - first) * channels, w + (size_t)m0 * channels, sums, LANES, 1, 1, channels,
                      0, 0, 0, 0, 0);
            put_pixels(sums, y + ((size_t)z * y_channels + m0) * y_pixels + p0,
                       y_channels - m0 < TILE_M ? y_channels - m0 : TILE_M, y_pixels,
                       end - p0 < LANES ? end - p0 : LANES, bias ? bias + group * y_channels + m0 : bias, rectify);
        }
}

// Weights to [group][panel][block][tap][channel of x][TILE_M channels of y], zeros beyond the edge.
// For the gradient (`turned`), x and y change places and the taps are reversed.
// Work-items: (group, panel, channel of x), the last fastest.
__kernel void pack_weights(__global const real *restrict w, __global real *restrict packed,
                           const int channels, const int y_channels, // a group
                           const int taps, const int blocks, const int turned, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int panels = (y_channels + TILE_M - 1) / TILE_M;
    const int channel = id % channels, panel = id / channels % panels, group = id / channels / panels;
    int block = (int)((long)channel * blocks / channels);
    while (share(channels, block + 1, blocks) <= channel) block++;
    const int c0 = share(channels, block, blocks), here = share(channels, block + 1, blocks) - c0;
    const int lane_stride = turned ? taps : channels * taps, left = y_channels - panel * TILE_M;
    w += (size_t)group * channels * y_channels * taps + (size_t)panel * TILE_M * lane_stride
        + (size_t)channel * (turned ? y_channels * taps : taps);
    packed += ((size_t)group * panels + panel) * channels * taps * TILE_M
        + ((size_t)c0 * taps + channel - c0) * TILE_M;
    for (int tap = 0; tap < taps; tap++) {
        __global const real *restrict from = w + (turned ? taps - 1 - tap : tap);
        for (int i = 0; i < TILE_M; i++)
            packed[(size_t)tap * here * TILE_M + i] = i < left ? from[(size_t)i * lane_stride] : (real)0;
    }
}
