// Gradient of windows at stride 1 by Winograd's minimal filtering, for CPU devices.
//
// The parts are exchanged: the TILE x TILE pixels of a tile of dy are the window that moves over the patch of x, and
// the WINDOW x WINDOW places where it lies are the result, summed over all tiles before it is turned back.
//
// A work-item sums IN_BLOCK x OUT_BLOCK pairs of channels over a share of the blocks, in local memory; the shares are
// added in a fixed order.

#include "conv_winograd_tiles.cl"

#ifndef IN_BLOCK
#define IN_BLOCK (VECTOR > ROWS ? VECTOR : ROWS)  // input channels of a work-item: a multiple of VECTOR and ROWS
#define OUT_BLOCK (VECTOR * VECTORS)              // its output channels: a multiple of that
#endif
#define IN_DEPTH (IN_BLOCK / VECTOR | 1)    // vectors from tile to tile, odd as DEPTH
#define OUT_DEPTH (OUT_BLOCK / VECTOR | 1)
#define IN_STEP PLACE_STEP(BLOCK, IN_DEPTH)
#define OUT_STEP PLACE_STEP(BLOCK, OUT_DEPTH)

// Tiles of dy of one image and vector of channels.
INNER void enter_dy(__local const vector *restrict pixels, __local vector *restrict entered)
{
    for (int ty = 0; ty < BLOCK_Y; ty++)
        for (int tx = 0; tx < BLOCK_X; tx++, entered += OUT_DEPTH) {
            __local const vector *restrict from = pixels + (ty * BLOCK_X * TILE + tx) * TILE;
            vector tile[TILE * TILE], all[PLACES];
            UNROLL for (int row = 0; row < TILE; row++)
                UNROLL for (int column = 0; column < TILE; column++)
                    tile[row * TILE + column] = from[row * (BLOCK_X * TILE) + column];
            spread(tile, TILE, all);
            UNROLL for (int place = 0; place < PLACES; place++) entered[place * OUT_STEP] = all[place];
        }
}

// sums[place][input channel][output channel] += the products of `tiles` tiles.
INNER void add_products(__local const real *restrict entered_x, __local const vector *restrict entered_dy,
                        __local vector *restrict sums, const int tiles)
{
    for (int place = 0; place < PLACES; place++) {
        for (int c = 0; c < IN_BLOCK; c += ROWS)
            for (int o = 0; o < OUT_BLOCK / VECTOR; o += VECTORS) {
                __local const real *restrict left = entered_x + c;
                __local const vector *restrict right = entered_dy + o;
                vector sum[ROWS][VECTORS];
                UNROLL for (int i = 0; i < ROWS; i++)
                    UNROLL for (int j = 0; j < VECTORS; j++) sum[i][j] = (vector)(0);
                for (int t = 0; t < tiles; t++, left += IN_DEPTH * VECTOR, right += OUT_DEPTH) {
                    vector row[VECTORS];
                    UNROLL for (int j = 0; j < VECTORS; j++) row[j] = right[j];
                    UNROLL for (int i = 0; i < ROWS; i++) {
                        const vector element = (vector)(left[i]);
                        UNROLL for (int j = 0; j < VECTORS; j++) sum[i][j] += element * row[j];
                    }
                }
                __local vector *restrict to = sums + c * (OUT_BLOCK / VECTOR) + o;
                UNROLL for (int i = 0; i < ROWS; i++)
                    UNROLL for (int j = 0; j < VECTORS; j++) to[i * (OUT_BLOCK / VECTOR) + j] += sum[i][j];
            }
        entered_x += IN_STEP * VECTOR;
        entered_dy += OUT_STEP;
        sums += IN_BLOCK * (OUT_BLOCK / VECTOR);
    }
}

// The windows of one input channel and a vector of output channels, `channels` of which there are.
INNER void leave_window(__local const vector *restrict sums, __global real *restrict dw, const int channels)
{
    vector m[PLACES];
    UNROLL for (int place = 0; place < PLACES; place++) m[place] = sums[place * (IN_BLOCK * (OUT_BLOCK / VECTOR))];
    UNROLL for (int column = 0; column < SIDE; column++) leave_line(m + column, SIDE, WINDOW);
    real lanes[TAPS][VECTOR];
    UNROLL for (int row = 0; row < WINDOW; row++) {
        leave_line(m + row * SIDE, 1, WINDOW);
        UNROLL for (int column = 0; column < WINDOW; column++)
            *(loose *)lanes[row * WINDOW + column] = m[row * SIDE + column];
    }
    for (int o = 0; o < channels && o < VECTOR; o++)
        for (int tap = 0; tap < TAPS; tap++) dw[(size_t)o * (INPUTS * TAPS) + tap] = lanes[tap][o];
}

// Work-items: (share of the blocks, group, IN_BLOCK input channels, OUT_BLOCK output channels), the last fastest.
__kernel void grad_weight(__global const real *restrict x, __global const real *restrict dy,
                          __global real *restrict partial,      // shares x dw
                          __local real *restrict patches,       // PATCH_Y x PATCH_X vectors
                          __local real *restrict pixels,        // BLOCK_Y x BLOCK_X x TILE x TILE vectors
                          __local real *restrict entered_x,     // PLACES x IN_STEP vectors
                          __local real *restrict entered_y,     // PLACES x OUT_STEP vectors
                          __local real *restrict sums,          // PLACES x IN_BLOCK x OUT_BLOCK
                          const int shares, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int out_blocks = CEIL(OUTPUTS, OUT_BLOCK), in_blocks = CEIL(INPUTS, IN_BLOCK);
    const int o0 = id % out_blocks * OUT_BLOCK, c0 = id / out_blocks % in_blocks * IN_BLOCK;
    const int group = id / (out_blocks * in_blocks) % GROUPS, share = id / (out_blocks * in_blocks * GROUPS);
    const int o1 = o0 + OUT_BLOCK;
    clear(sums, PLACES * IN_BLOCK * (OUT_BLOCK / VECTOR));
    for (int block = (long)BLOCKS * share / shares; block < (int)((long)BLOCKS * (share + 1) / shares); block++) {
        const Part p = part_of(block);
        enter_x(x, patches, entered_x, p, group, c0, c0 + IN_BLOCK, IN_STEP, IN_DEPTH);
        clear(pixels, BLOCK_Y * BLOCK_X * TILE * TILE);
        for (int n = 0; n < p.images; n++)
            for (int o = o0; o < o1; o += VECTOR) {
                stage(dy + (((size_t)(p.n + n) * GROUPS + group) * OUTPUTS + o) * (OY * OX) + p.oy * OX + p.ox,
                      OY * OX, OX, pixels, BLOCK_X * TILE, OUTPUTS - o, p.high, p.wide);
                enter_dy((__local vector *)pixels,
                         (__local vector *)entered_y + n * (BLOCK_Y * BLOCK_X * OUT_DEPTH) + (o - o0) / VECTOR);
            }
        add_products(entered_x, (__local vector *)entered_y, (__local vector *)sums, p.images * BLOCK_Y * BLOCK_X);
    }
    for (int c = c0; c < c0 + IN_BLOCK && c < INPUTS; c++)
        for (int o = o0; o < o1 && o < OUTPUTS; o += VECTOR)
            leave_window((__local vector *)sums + (c - c0) * (OUT_BLOCK / VECTOR) + (o - o0) / VECTOR,
                         partial + (((size_t)share * GROUPS + group) * OUTPUTS + o) * (INPUTS * TAPS) + c * TAPS,
                         OUTPUTS - o);
}

// Add the shares.  Work-items: numbers of dw.
__kernel void add_shares(__global const real *restrict partial, __global real *restrict dw, const int shares,
                         const int accumulate, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    real sum = accumulate ? dw[id] : (real)0;
    for (int share = 0; share < shares; share++) sum += partial[(size_t)share * items + id];
    dw[id] = sum;
}
