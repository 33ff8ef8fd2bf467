// Matrix products of which one side is short: C(M, N) = alpha op(A) op(B) + bias + beta C, row-major.
//
// Memory bounds them, so the large matrix is read, or written, once and where it lies; only the small
// one is copied.  For CPU devices, where a work-group is one work-item and local memory is a core's cache.
//
//   multiply_rows     C = X Y^T, X(rows, K) and Y(lanes, K), lanes few.  Y lies turned in local memory,
//                     [K][lanes]; a tile is TILE_M rows of X, which go on through memory side by side,
//                     each number of them times a row of lanes.
//   multiply_columns  C = X Y, Y(K, N), either M or K small.  TILE_M rows of X lie in local memory,
//                     [K][TILE_M]; a tile is TILE_N columns of Y, a number of X times a row of them.
//
// No element outside a matrix is touched: rows beyond the last repeat it, and the last tile of columns begins
// so much further left that it ends with the matrix; what is computed twice is stored once.  Every element of C is
// one sum in one order, so that the same inputs give the same bits.

#include "tiles.cl"

#ifndef AHEAD
#define AHEAD 0     // bytes by which the large matrix is fetched ahead into the second cache; 0: not at all
#endif
#define TILE_N (VECTOR * VECTORS)

#define UNROLLED _Pragma("unroll")
#define LINE (64 / (int)sizeof(real))  // elements of a cache line
#if AHEAD
#define FETCH(pointer) __builtin_prefetch((const void *)((size_t)(pointer) + AHEAD), 0, 2)
#else
#define FETCH(pointer)
#endif

// Where share number `index` of `shares` begins, when `count` rows or columns are handed out in whole tiles.
static int share(const int count, const int tile, const int index, const int shares)
{
    const int first = (int)((long)((count + tile - 1) / tile) * index / shares) * tile;
    return first < count ? first : count;
}

// to[k][lane] = from[lane * stride + k], lanes beyond `lanes` are zero; squares of four are turned in registers.
static void turn(__global const real *restrict from, __local real *restrict to, const int lanes, const int stride,
                 const int count)
{
    int lane = 0;
    for (; lane + 4 <= lanes; lane += 4) {
        __global const real *restrict p = from + (size_t)lane * stride, *restrict q = p + stride;
        __global const real *restrict r = q + stride, *restrict s = r + stride;
        __local real *restrict column = to + lane;
        int k = 0;
        for (; k + 4 <= count; k += 4, column += 4 * TILE_N) {
            const real4 a = *(__global const loose4 *)(p + k), b = *(__global const loose4 *)(q + k);
            const real4 c = *(__global const loose4 *)(r + k), d = *(__global const loose4 *)(s + k);
            *(__local loose4 *)column = (real4)(a.s0, b.s0, c.s0, d.s0);
            *(__local loose4 *)(column + TILE_N) = (real4)(a.s1, b.s1, c.s1, d.s1);
            *(__local loose4 *)(column + 2 * TILE_N) = (real4)(a.s2, b.s2, c.s2, d.s2);
            *(__local loose4 *)(column + 3 * TILE_N) = (real4)(a.s3, b.s3, c.s3, d.s3);
        }
        for (; k < count; k++, column += TILE_N) *(__local loose4 *)column = (real4)(p[k], q[k], r[k], s[k]);
    }
    for (; lane < TILE_N; lane++)
        for (int k = 0; k < count; k++)
            to[k * TILE_N + lane] = lane < lanes ? from[(size_t)lane * stride + k] : (real)0;
}

// TILE_M rows of X, `stride` apart, times the lanes: c[row * c_row + lane * c_lane] of `rows` rows and `lanes` lanes.
INNER void rows_tile(__global const real *restrict x, __local const real *restrict y, __global real *restrict c,
                     __global const real *restrict bias, const int bias_row, const int bias_lane, const int stride,
                     const int rows, const int lanes, const int count, const int c_row, const int c_lane,
                     const real alpha, const real beta)
{
    __global const real *row[TILE_M];
    vector sum[TILE_M][VECTORS];
    UNROLLED for (int i = 0; i < TILE_M; i++) {
        row[i] = x + (size_t)(i < rows ? i : rows - 1) * stride;
        UNROLLED for (int j = 0; j < VECTORS; j++) sum[i][j] = (vector)(0);
    }
    for (int k0 = 0; k0 < count; k0 += LINE) {
        UNROLLED for (int i = 0; i < TILE_M; i++) FETCH(row[i] + k0);
        const int end = k0 + LINE < count ? k0 + LINE : count;
        for (int k = k0; k < end; k++, y += TILE_N) {
            vector lane[VECTORS];
            UNROLLED for (int j = 0; j < VECTORS; j++) lane[j] = ((__local const vector *)y)[j];
            UNROLLED for (int i = 0; i < TILE_M; i++) {
                const vector element = (vector)(row[i][k]);
                UNROLLED for (int j = 0; j < VECTORS; j++) sum[i][j] += element * lane[j];
            }
        }
    }
    real edge[TILE_M * TILE_N];
    UNROLLED for (int i = 0; i < TILE_M; i++)
        UNROLLED for (int j = 0; j < VECTORS; j++) *(loose *)(edge + i * TILE_N + j * VECTOR) = sum[i][j];
    for (int l = 0; l < lanes; l++)
        for (int i = 0; i < rows && i < TILE_M; i++) {
            __global real *to = c + (size_t)i * c_row + (size_t)l * c_lane;
            const real value = alpha * edge[i * TILE_N + l] + (bias ? bias[i * bias_row + l * bias_lane] : (real)0);
            *to = beta == 0 ? value : value + beta * *to;
        }
}

// Work-items: (block of TILE_N lanes, share of the rows), the last fastest.
__kernel void multiply_rows(__global const real *restrict x, __global const real *restrict y,
                            __global real *restrict c,
                            __global const real *restrict bias,  // of each row or lane, as the steps say, or null
                            __local real *restrict panel,        // chunk * TILE_N
                            const int bias_row, const int bias_lane, const int row_count, const int lane_count,
                            const int k_count, const int c_row, const int c_lane,
                            const int chunk,   // how much of K is in local memory at a time
                            const int shares,  // how many share the rows
                            const real alpha, const real beta, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int first = id / shares * TILE_N, lanes = lane_count - first < TILE_N ? lane_count - first : TILE_N;
    const int top = share(row_count, TILE_M, id % shares, shares);
    const int bottom = share(row_count, TILE_M, id % shares + 1, shares);
    for (int k0 = 0; k0 == 0 || k0 < k_count; k0 += chunk) {
        const int count = k_count - k0 < chunk ? k_count - k0 : chunk;
        turn(y + (size_t)first * k_count + k0, panel, lanes, k_count, count);
        for (int row = top; row < bottom; row += TILE_M)
            rows_tile(x + (size_t)row * k_count + k0, panel, c + (size_t)row * c_row + (size_t)first * c_lane,
                      k0 || !bias ? 0 : bias + row * bias_row + first * bias_lane, bias_row, bias_lane, k_count,
                      bottom - row, lanes, count, c_row, c_lane, alpha, k0 ? (real)1 : beta);
    }
}

// Copy TILE_M rows of X: to[k][row] = from[row * row_stride + k * k_stride], rows beyond `rows` repeat the last.
static void gather(__global const real *restrict from, __local real *restrict to, const int rows, const int row_stride,
                   const int count, const int k_stride)
{
    if (row_stride == 1 && rows >= TILE_M) {
        for (int k = 0; k < count; k++)
            for (int i = 0; i < TILE_M; i++) to[k * TILE_M + i] = from[(size_t)k * k_stride + i];
        return;
    }
    for (int i = 0; i < TILE_M; i++) {
        __global const real *restrict row = from + (size_t)(i < rows ? i : rows - 1) * row_stride;
        for (int k = 0; k < count; k++) to[k * TILE_M + i] = row[(size_t)k * k_stride];
    }
}

// A tile of C, of which the first `skip` columns and rows from number `rows` on are left alone.
INNER void columns_tile(__local const real *restrict x, __global const real *restrict y, __global real *restrict c,
                        __global const real *restrict bias, const int y_stride, const int c_stride, const int rows,
                        const int skip, const int count, const real alpha, const real beta, const int past)
{
    vector sum[TILE_M][VECTORS];
    UNROLLED for (int i = 0; i < TILE_M; i++)
        UNROLLED for (int j = 0; j < VECTORS; j++) sum[i][j] = (vector)(0);
    for (int k = 0; k < count; k++, x += TILE_M, y += y_stride) {
        vector row[VECTORS];
        UNROLLED for (int j = 0; j < VECTORS; j++) {
            row[j] = ((__global const loose *)y)[j];
            FETCH(y + j * VECTOR);
        }
        UNROLLED for (int i = 0; i < TILE_M; i++) {
            const vector element = (vector)(x[i]);
            UNROLLED for (int j = 0; j < VECTORS; j++) sum[i][j] += element * row[j];
        }
    }
    vector shift[VECTORS];
    UNROLLED for (int j = 0; j < VECTORS; j++)
        shift[j] = bias ? ((__global const loose *)bias)[j] : (vector)(0);
    if (rows >= TILE_M && !skip && past) {
        UNROLLED for (int i = 0; i < TILE_M; i++)
            UNROLLED for (int j = 0; j < VECTORS; j++)
                __builtin_nontemporal_store(alpha * sum[i][j] + shift[j],
                                            (__global vector *)(c + (size_t)i * c_stride) + j);
    } else if (rows >= TILE_M && !skip) {
        UNROLLED for (int i = 0; i < TILE_M; i++) {
            __global loose *to = (__global loose *)(c + (size_t)i * c_stride);
            UNROLLED for (int j = 0; j < VECTORS; j++) {
                const vector value = alpha * sum[i][j] + shift[j];
                to[j] = beta == 0 ? value : value + beta * to[j];
            }
        }
    } else {
        real edge[TILE_M * TILE_N];
        UNROLLED for (int i = 0; i < TILE_M; i++)
            UNROLLED for (int j = 0; j < VECTORS; j++)
                *(loose *)(edge + i * TILE_N + j * VECTOR) = alpha * sum[i][j] + shift[j];
        for (int i = 0; i < rows && i < TILE_M; i++)
            for (int j = skip; j < TILE_N; j++) {
                __global real *to = c + (size_t)i * c_stride + j;
                *to = beta == 0 ? edge[i * TILE_N + j] : edge[i * TILE_N + j] + beta * *to;
            }
    }
}

// Work-items: (share of the rows, share of the columns), the last fastest.  N is TILE_N or more.
__kernel void multiply_columns(__global const real *restrict x, __global const real *restrict y,
                               __global real *restrict c,
                               __global const real *restrict bias,  // of each column, or null
                               __local real *restrict panels,       // chunk * block
                               const int x_row, const int x_k,      // from row to row of X, and along K
                               const int m_count, const int n_count, const int k_count,
                               const int chunk,     // how much of K is in local memory at a time
                               const int block,     // rows of C that a row of tiles in Y is used for, whole tiles
                               const int row_shares, const int column_shares,
                               const int past,      // whether C goes past the caches where it is only written
                               const real alpha, const real beta, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int column_share = id % column_shares, row_share = id / column_shares;
    const int left = share(n_count, TILE_N, column_share, column_shares);
    const int right = share(n_count, TILE_N, column_share + 1, column_shares);
    const int top = share(m_count, TILE_M, row_share, row_shares);
    const int bottom = share(m_count, TILE_M, row_share + 1, row_shares);
    const int streams = past && beta == 0 && k_count <= chunk && n_count % VECTOR == 0
                        && (size_t)c % sizeof(vector) == 0;
    for (int k0 = 0; k0 == 0 || k0 < k_count; k0 += chunk) {
        const int count = k_count - k0 < chunk ? k_count - k0 : chunk;
        for (int b0 = top; b0 < bottom; b0 += block) {
            const int end = b0 + block < bottom ? b0 + block : bottom;
            for (int m0 = b0; m0 < end; m0 += TILE_M)
                gather(x + (size_t)m0 * x_row + (size_t)k0 * x_k, panels + (m0 - b0) * count, end - m0, x_row, count,
                       x_k);
            for (int n0 = left; n0 < right; n0 += TILE_N) {
                const int n = n0 + TILE_N <= n_count ? n0 : n_count - TILE_N;
                for (int m0 = b0; m0 < end; m0 += TILE_M)
                    columns_tile(panels + (m0 - b0) * count, y + (size_t)k0 * n_count + n,
                                 c + (size_t)m0 * n_count + n, k0 || !bias ? 0 : bias + n, n_count, n_count, end - m0,
                                 n0 - n, count, alpha, k0 ? (real)1 : beta, streams);
            }
        }
    }
}
