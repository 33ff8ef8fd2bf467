// Convolution at stride 1 by Winograd's minimal filtering, for CPU devices.
//
// A work-item takes a block of tiles of some images through all of it, in local memory:
//
//     stage      x -> patches, turned so that channels lie side by side
//     enter      patches -> entered[place][tile][input channel]
//     multiply   entered x weights -> products[place][tile][a panel of output channels]
//     leave      products -> pixels of y with bias and rectifier
//     unstage    pixels -> y, turned so that columns lie side by side
//
// It does so for PART panels, so that the turned windows need not lie in memory all at once.
//
// What the tiles stick out of x are zeros, what they stick out of y is left out.  The gradient with respect to the
// input is the same convolution of dy, with the window turned about and the channels exchanged.

#include "conv_winograd_tiles.cl"

// ---- weights ----------------------------------------------------------------------------------------------

// Turn windows: packed[group][panel of the part][place][input channel][PANEL], zeros beyond the last output channel.
INNER void pack_window(__global const real *restrict w, __global real *restrict packed, const int outputs,
                       const int output_stride, const int flip)
{
    for (int v = 0; v < VECTORS; v++) {
        real lanes[TAPS][VECTOR];
        for (int tap = 0; tap < TAPS; tap++)
            for (int lane = 0; lane < VECTOR; lane++) {
                const int o = v * VECTOR + lane;
                lanes[tap][lane] = o < outputs ? w[o * output_stride + (flip ? TAPS - 1 - tap : tap)] : (real)0;
            }
        vector g[TAPS], all[PLACES];
        UNROLL for (int tap = 0; tap < TAPS; tap++) g[tap] = *(loose *)lanes[tap];
        spread(g, WINDOW, all);
        UNROLL for (int place = 0; place < PLACES; place++)
            *(__global vector *)(packed + (size_t)place * INPUTS * PANEL + v * VECTOR) = all[place];
    }
}

// Work-items: (group, panel of the part, input channel), the last fastest.
__kernel void pack(__global const real *restrict w, __global real *restrict packed,
                   const int output_stride,  // between the windows of neighbouring channels
                   const int input_stride,
                   const int flip,           // whether the windows are turned about
                   const int first,          // panel of the part
                   const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int c = id % INPUTS, place = id / INPUTS, panel = first + place % PART, group = place / PART;
    if (panel >= PANELS) return;
    pack_window(w + group * (TAPS * INPUTS * OUTPUTS) + panel * PANEL * output_stride + c * input_stride,
                packed + ((size_t)place * PLACES * INPUTS + c) * PANEL, OUTPUTS - panel * PANEL, output_stride, flip);
}

// Copy pixels[row][column][channel] to a rectangle of VECTOR planes of y, `channels` of which there are.
INNER void unstage(__local const real *restrict pixels, __global real *restrict planes, const int channels,
                   const int rows, const int columns)
{
    const int runs = columns == OX ? 1 : rows, length = columns == OX ? rows * columns : columns;
    for (int first = 0; first < VECTOR && first < channels; first += 8)
        for (int run = 0; run < runs; run++) {
            __global real *restrict to = planes + first * (OY * OX) + run * OX;
            __local const real *restrict from = pixels + run * columns * VECTOR + first;
            const int some = channels - first;
            int q = 0;
            for (; q + 8 <= length; q += 8, from += 8 * VECTOR) {
                real8 block[8];
                UNROLL for (int i = 0; i < 8; i++) block[i] = *(__local const loose8 *)(from + i * VECTOR);
                transpose(block);
                UNROLL for (int c = 0; c < 8; c++)
                    if (c < some) *(__global loose8 *)(to + c * (OY * OX) + q) = block[c];
            }
            for (; q < length; q++, from += VECTOR)
                for (int c = 0; c < 8 && c < some; c++) to[c * (OY * OX) + q] = from[c];
        }
}

// One panel of output channels.
INNER void multiply(__local const real *restrict entered, __global const real *restrict packed,
                    __local vector *restrict products)
{
    for (int place = 0; place < PLACES; place++) {
        for (int t = 0; t < BLOCK_ROWS; t += ROWS) {
            __local const real *restrict left = entered + t * (DEPTH * VECTOR);
            __global const vector *restrict right = (__global const vector *)packed;
            vector sum[ROWS][VECTORS];
            UNROLL for (int i = 0; i < ROWS; i++)
                UNROLL for (int j = 0; j < VECTORS; j++) sum[i][j] = (vector)(0);
            for (int c = 0; c < INPUTS; c++, left++, right += VECTORS) {
                vector row[VECTORS];
                UNROLL for (int j = 0; j < VECTORS; j++) row[j] = right[j];
                UNROLL for (int i = 0; i < ROWS; i++) {
                    const vector element = (vector)(left[i * (DEPTH * VECTOR)]);
                    UNROLL for (int j = 0; j < VECTORS; j++) sum[i][j] += element * row[j];
                }
            }
            UNROLL for (int i = 0; i < ROWS; i++)
                UNROLL for (int j = 0; j < VECTORS; j++) products[i * VECTORS + j] = sum[i][j];
            products += ROWS * VECTORS;
        }
        entered += ENTERED_STEP * VECTOR;
        products += PRODUCT_STEP - BLOCK_ROWS * VECTORS;
        packed += INPUTS * PANEL;
    }
}

// One image and vector of output channels.
INNER void leave(__local const vector *restrict products, __local vector *restrict pixels,
                 __global const real *restrict bias, const int channels, const int rows, const int columns,
                 const int rectify)
{
    real lanes[VECTOR];
    for (int i = 0; i < VECTOR; i++) lanes[i] = bias && i < channels ? bias[i] : (real)0;
    const vector shift = *(loose *)lanes;
    for (int ty = 0; ty < BLOCK_Y; ty++)
        for (int tx = 0; tx < BLOCK_X; tx++, products += VECTORS) {
            vector m[PLACES];
            UNROLL for (int column = 0; column < SIDE; column++) {
                UNROLL for (int row = 0; row < SIDE; row++)
                    m[row * SIDE + column] = products[(row * SIDE + column) * PRODUCT_STEP];
                leave_line(m + column, SIDE, TILE);
            }
            __local vector *restrict to = pixels + ty * TILE * columns + tx * TILE;
            const int wide = columns - tx * TILE, high = rows - ty * TILE;
            UNROLL for (int row = 0; row < TILE; row++) {
                leave_line(m + row * SIDE, 1, TILE);
                UNROLL for (int column = 0; column < TILE; column++) {
                    vector value = m[row * SIDE + column] + shift;
                    if (rectify) value = value < (vector)(0) ? (vector)(0) : value;
                    if (row < high && column < wide) to[row * columns + column] = value;
                }
            }
        }
}

// Work-items: (group, block of images, of rows, of columns), the last fastest.
__kernel void convolve(__global const real *restrict x, __global const real *restrict packed,
                       __global const real *restrict bias,  // or null
                       __global real *restrict y,
                       __local real *restrict patches,   // PATCH_Y x PATCH_X vectors
                       __local real *restrict entered,   // PLACES x ENTERED_STEP vectors
                       __local real *restrict products,  // PLACES x PRODUCT_STEP vectors
                       __local real *restrict pixels,    // BLOCK_Y x BLOCK_X x TILE x TILE vectors
                       const int rectify,
                       const int first,                  // panel of the part
                       const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int group = id / BLOCKS;
    const Part p = part_of(id % BLOCKS);
    enter_x(x, patches, entered, p, group, 0, INPUTS, ENTERED_STEP, DEPTH);
    packed += (size_t)group * PART * (PLACES * INPUTS * PANEL);
    for (int panel = first; panel < first + PART && panel < PANELS; panel++, packed += PLACES * INPUTS * PANEL) {
        multiply(entered, packed, (__local vector *)products);
        for (int n = 0; n < p.images; n++)
            for (int v = 0; v < VECTORS && panel * PANEL + v * VECTOR < OUTPUTS; v++) {
                const int o = panel * PANEL + v * VECTOR;
                leave((__local vector *)products + n * (BLOCK_Y * BLOCK_X * VECTORS) + v, (__local vector *)pixels,
                      bias ? bias + group * OUTPUTS + o : bias, OUTPUTS - o, p.high, p.wide, rectify);
                unstage(pixels, y + (((size_t)(p.n + n) * GROUPS + group) * OUTPUTS + o) * (OY * OX) + p.oy * OX + p.ox,
                        OUTPUTS - o, p.high, p.wide);
            }
    }
}

