// Matrix product of packed operands: C(M, N) = alpha A(M, K) B(K, N) + beta C, row-major.
//
//   A is cut into panels of TILE_M rows, B into panels of TILE_N columns.  A panel lies as
//   [K][tile], zeros beyond the edge, so that the product reads both straight through:
//
//        B panel [K][TILE_N]                 one tile of C:
//             | | | |                          for k: TILE_M numbers of A times
//   A panel  +-------+                                TILE_N numbers of B, summed in
//   [K][TILE_M] tile |                                registers
//            +-------+
//
// Two ways to go over the tiles:
//
//   multiply         B packed beforehand, whole; a work-item is one tile over all of K.
//   multiply_strips  a work-item is a strip of columns (of some rows): it packs CHUNK_K rows of its B
//                    into local memory, where they stay in the core's cache while all of A passes by,
//                    and adds chunk after chunk to C.  For CPU devices, where a work-group is one
//                    work-item and local memory is cache.
//
// No barriers: on CPU devices a work-item is a loop on one core.  Every element of C is one sum in one
// order, so that the same inputs give the same bits.
//
// Several products at once ("batch") differ in B and C and share A in turn: product z takes
// A number z % groups.

#ifndef CHUNK_K
#define CHUNK_K 256 // rows of B that a strip packs at a time: 1 or more
#endif
#ifndef PACK_ROWS
#define PACK_ROWS 64  // rows of one panel that a work-item of pack_a or pack_b copies: 1 or more
#endif
#include "tiles.cl"

#define TILE_N (VECTOR * VECTORS)
#define PREFETCHED_ROWS 8 // rows of a strip that are read side by side

// Copy `rows` rows of an operand into a panel: to[k][lane] = from[k * row_stride + lane * lane_stride], zeros
// from lane number `lanes` on; `space` is where the panel lies.
//
// Where a row's elements lie apart and a lane's side by side, squares of four by four are turned in
// registers, four lanes at a time: more streams at once would evict each other from the cache.
#define COPY(name, space)                                                                                   \
    static void name(__global const real *restrict from, space real *restrict to, const int tile,           \
                     const int lanes, const int lane_stride, const int rows, const int row_stride)          \
    {                                                                                                       \
        if (row_stride != 1 || lane_stride == 1) {                                                          \
            for (int k = 0; k < rows; k++, from += row_stride, to += tile) {                                \
                if (lanes >= tile && lane_stride == 1)                                                      \
                    for (int lane = 0; lane < tile; lane++) to[lane] = from[lane];                          \
                else                                                                                        \
                    for (int lane = 0; lane < tile; lane++)                                                 \
                        to[lane] = lane < lanes ? from[(size_t)lane * lane_stride] : (real)0;               \
            }                                                                                               \
            return;                                                                                         \
        }                                                                                                   \
        int lane = 0;                                                                                       \
        for (; lane + 4 <= tile && lane + 4 <= lanes; lane += 4) {                                          \
            __global const real *restrict p = from + (size_t)lane * lane_stride;                            \
            __global const real *restrict q = p + lane_stride, *restrict r = q + lane_stride;               \
            __global const real *restrict s = r + lane_stride;                                              \
            space real *restrict column = to + lane;                                                        \
            int k = 0;                                                                                      \
            for (; k + 4 <= rows; k += 4, column += 4 * tile) {                                             \
                const real4 a = *(__global const loose4 *)(p + k), b = *(__global const loose4 *)(q + k);   \
                const real4 c = *(__global const loose4 *)(r + k), d = *(__global const loose4 *)(s + k);   \
                *(space loose4 *)column = (real4)(a.s0, b.s0, c.s0, d.s0);                                  \
                *(space loose4 *)(column + tile) = (real4)(a.s1, b.s1, c.s1, d.s1);                         \
                *(space loose4 *)(column + 2 * tile) = (real4)(a.s2, b.s2, c.s2, d.s2);                     \
                *(space loose4 *)(column + 3 * tile) = (real4)(a.s3, b.s3, c.s3, d.s3);                     \
            }                                                                                               \
            for (; k < rows; k++, column += tile) *(space loose4 *)column = (real4)(p[k], q[k], r[k], s[k]); \
        }                                                                                                   \
        for (; lane < tile; lane++)                                                                         \
            for (int k = 0; k < rows; k++)                                                                  \
                to[k * tile + lane] = lane < lanes ? from[(size_t)lane * lane_stride + k] : (real)0;        \
    }

COPY(copy_to_global, __global)
COPY(copy_to_local, __local)

// Copy rows [k0, k1) of one panel.  Row k of the operand is (k / inner, k % inner), whose two parts
// have strides of their own: that is how images stand one behind the other along K.
static void pack(__global const real *restrict source, __global real *restrict panel, const int tile,
                 const int lanes, const int lane_stride, const int k0, const int k1, const int inner,
                 const int inner_stride, const int outer_stride)
{
    for (int k = k0; k < k1;) {
        const int within = k % inner, run = inner - within < k1 - k ? inner - within : k1 - k;
        copy_to_global(source + (size_t)(k / inner) * outer_stride + (size_t)within * inner_stride,
                       panel + (size_t)k * tile, tile, lanes, lane_stride, run, inner_stride);
        k += run;
    }
}

// Work-items: (operand z, panel, block of PACK_ROWS rows), the last fastest.
#define PACK(name, tile)                                                                                    \
    __kernel void name(__global const real *restrict source, __global real *restrict packed,                \
                       const int offset,       /* of the first operand in source */                        \
                       const int z_stride,     /* from operand to operand */                               \
                       const int lanes,        /* rows of A, columns of B */                               \
                       const int lane_stride, const int k_count, const int inner, const int inner_stride,  \
                       const int outer_stride, const uint items)                                            \
    {                                                                                                       \
        const uint id = get_global_id(0);                                                                   \
        if (id >= items) return;                                                                            \
        const int blocks = (k_count + PACK_ROWS - 1) / PACK_ROWS, panels = (lanes + (tile)-1) / (tile);     \
        const int block = id % blocks, panel = id / blocks % panels, z = id / blocks / panels;              \
        const int first = panel * (tile), k0 = block * PACK_ROWS;                                           \
        pack(source + offset + (size_t)z * z_stride + (size_t)first * lane_stride,                          \
             packed + ((size_t)z * panels + panel) * k_count * (tile), tile, lanes - first, lane_stride,    \
             k0, k0 + PACK_ROWS < k_count ? k0 + PACK_ROWS : k_count, inner, inner_stride, outer_stride);   \
    }

PACK(pack_a, TILE_M)
PACK(pack_b, TILE_N)

// C(rows, columns) = alpha A B + bias of each row + bias of each column + beta C for one tile or the part of one
// inside C; both biases may be null; `space` is where B lies.
// beta = 0 must not read C, which may hold NaN.
#define TILE(name, space)                                                                                   \
    INNER void name(__global const real *restrict a, space const real *restrict packed,                     \
                    __global real *restrict c, __global const real *restrict bias,                          \
                    __global const real *restrict column_bias, const int row_stride,                        \
                    const int rows, const int columns, const int k_count, const real alpha, const real beta) \
    {                                                                                                       \
        space const vector *restrict b = (space const vector *)packed;                                      \
        vector sum[TILE_M][VECTORS];                                                                        \
        _Pragma("unroll") for (int i = 0; i < TILE_M; i++)                                                  \
            _Pragma("unroll") for (int j = 0; j < VECTORS; j++) sum[i][j] = (vector)(0);                    \
        for (int k = 0; k < k_count; k++) {                                                                 \
            vector row[VECTORS];                                                                            \
            _Pragma("unroll") for (int j = 0; j < VECTORS; j++) row[j] = b[j];                              \
            _Pragma("unroll") for (int i = 0; i < TILE_M; i++) {                                            \
                const vector element = (vector)(a[i]);                                                      \
                _Pragma("unroll") for (int j = 0; j < VECTORS; j++) sum[i][j] += element * row[j];          \
            }                                                                                               \
            a += TILE_M;                                                                                    \
            b += VECTORS;                                                                                   \
        }                                                                                                   \
        if (rows >= TILE_M && columns >= TILE_N) {                                                          \
            vector along[VECTORS];                                                                          \
            _Pragma("unroll") for (int j = 0; j < VECTORS; j++)                                             \
                along[j] = column_bias ? ((__global const loose *)column_bias)[j] : (vector)(0);            \
            _Pragma("unroll") for (int i = 0; i < TILE_M; i++) {                                            \
                const vector shift = (vector)(bias ? bias[i] : (real)0);                                    \
                __global loose *to = (__global loose *)(c + (size_t)i * row_stride);                        \
                _Pragma("unroll") for (int j = 0; j < VECTORS; j++) {                                       \
                    const vector value = alpha * sum[i][j] + (shift + along[j]);                            \
                    to[j] = beta == 0 ? value : value + beta * to[j];                                       \
                }                                                                                           \
            }                                                                                               \
            return;                                                                                         \
        }                                                                                                   \
        real edge[TILE_M * TILE_N];                                                                         \
        _Pragma("unroll") for (int i = 0; i < TILE_M; i++)                                                  \
            _Pragma("unroll") for (int j = 0; j < VECTORS; j++)                                             \
                *(loose *)(edge + i * TILE_N + j * VECTOR) = sum[i][j];                                     \
        for (int i = 0; i < rows && i < TILE_M; i++) {                                                      \
            const real shift = bias ? bias[i] : (real)0;                                                    \
            for (int j = 0; j < columns && j < TILE_N; j++) {                                               \
                const real along = column_bias ? column_bias[j] : (real)0;                                  \
                const real value = alpha * edge[i * TILE_N + j] + (shift + along);                          \
                __global real *to = c + (size_t)i * row_stride + j;                                         \
                *to = beta == 0 ? value : value + beta * *to;                                               \
            }                                                                                               \
        }                                                                                                   \
    }

TILE(global_tile, __global)
TILE(local_tile, __local)

// Work-items: (product z, panel of B, panel of A), the last fastest, so that a panel of B stays in the
// cache while the panels of A pass by.
__kernel void multiply(__global const real *restrict a_packed, __global const real *restrict b_packed,
                       __global real *restrict c,
                       __global const real *restrict bias,  // groups x M, added to the rows of C, or null
                       __global const real *restrict column_bias,  // N, added to its columns, or null
                       const int c_offset, const int m_count, const int n_count, const int k_count,
                       const int groups, const real alpha, const real beta, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int m_panels = (m_count + TILE_M - 1) / TILE_M, n_panels = (n_count + TILE_N - 1) / TILE_N;
    const int m_panel = id % m_panels, n_panel = id / m_panels % n_panels, z = id / m_panels / n_panels;
    const int group = z % groups, m0 = m_panel * TILE_M, n0 = n_panel * TILE_N;
    global_tile(a_packed + ((size_t)group * m_panels + m_panel) * k_count * TILE_M,
                b_packed + ((size_t)z * n_panels + n_panel) * k_count * TILE_N,
                c + c_offset + ((size_t)z * m_count + m0) * n_count + n0,
                bias ? bias + group * m_count + m0 : bias, column_bias ? column_bias + n0 : column_bias, n_count,
                m_count - m0, n_count - n0, k_count, alpha, beta);
}

// Where share number `index` of `shares` begins, when `count` rows or columns are handed out in whole tiles.
static int share(const int count, const int tile, const int index, const int shares)
{
    const int first = (int)((long)((count + tile - 1) / tile) * index / shares) * tile;
    return first < count ? first : count;
}

// Copy `rows` rows of a strip of B into panels that lie one behind the other.
//
// Where the columns lie side by side, some rows of one panel are copied, then the same rows of the next: what is
// read goes on where it stopped, as prefetchers expect, and few of the panels' lines are open at a time.
INNER void pack_strip(__global const real *restrict from, __local real *restrict panels, const int columns,
                      const int column_stride, const int rows, const int row_stride)
{
    const int whole = column_stride == 1 ? columns / TILE_N * TILE_N : 0;
    for (int k0 = 0; k0 < rows; k0 += PREFETCHED_ROWS)
        for (int n0 = 0; n0 < whole; n0 += TILE_N)
            for (int k = k0; k < rows && k < k0 + PREFETCHED_ROWS; k++) {
                __global const loose *row = (__global const loose *)(from + (size_t)k * row_stride + n0);
                __local vector *to = (__local vector *)(panels + n0 * rows + k * TILE_N);
                _Pragma("unroll") for (int j = 0; j < VECTORS; j++) to[j] = row[j];
            }
    for (int n0 = whole; n0 < columns; n0 += TILE_N)
        copy_to_local(from + (size_t)n0 * column_stride, panels + n0 * rows, TILE_N, columns - n0, column_stride, rows,
                      row_stride);
}

// Work-items: (block of rows, strip of columns), the last fastest.
__kernel void multiply_strips(__global const real *restrict a,  // what each strip packs for itself; null: packed before
                              __global real *restrict a_packed, // one for all strips, or one for each
                              __global const real *restrict b, __global real *restrict c,
                              __global const real *restrict bias,  // N, added to the columns of C, or null
                              __local real *restrict panels,    // CHUNK_K rows of the widest strip
                              const int a_offset, const int a_lane_stride, const int a_row_stride,
                              const int b_offset, const int b_row_stride, const int b_column_stride,
                              const int m_count, const int n_count, const int k_count,
                              const int strips,  // how many share the columns of C
                              const int blocks,  // how many share its rows
                              const real alpha, const real beta, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int strip = id % strips, block = id / strips;
    const int left = share(n_count, TILE_N, strip, strips), top = share(m_count, TILE_M, block, blocks);
    const int columns = share(n_count, TILE_N, strip + 1, strips) - left;
    const int bottom = share(m_count, TILE_M, block + 1, blocks);
    if (a) {
        a_packed += (size_t)strip * ((m_count + TILE_M - 1) / TILE_M) * TILE_M * k_count;
        for (int m0 = top; m0 < bottom; m0 += TILE_M)
            copy_to_global(a + a_offset + (size_t)m0 * a_lane_stride, a_packed + (size_t)m0 * k_count, TILE_M,
                           m_count - m0, a_lane_stride, k_count, a_row_stride);
    }
    for (int k0 = 0; k0 == 0 || k0 < k_count; k0 += CHUNK_K) {
        const int rows = k_count - k0 < CHUNK_K ? k_count - k0 : CHUNK_K;
        pack_strip(b + b_offset + (size_t)k0 * b_row_stride + (size_t)left * b_column_stride, panels, columns,
                   b_column_stride, rows, b_row_stride);
        for (int n0 = 0; n0 < columns; n0 += TILE_N)
            for (int m0 = top; m0 < bottom; m0 += TILE_M)
                local_tile(a_packed + (size_t)m0 * k_count + (size_t)k0 * TILE_M, panels + n0 * rows,
                           c + (size_t)m0 * n_count + left + n0, 0, k0 || !bias ? 0 : bias + left + n0, n_count,
                           m_count - m0, columns - n0, rows, alpha, k0 ? (real)1 : beta);
    }
}
