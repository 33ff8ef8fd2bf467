// Matrix product of packed operands: C(M, N) = alpha A(M, K) B(K, N) + beta C, row-major.
//
//   A is cut into panels of TILE_M rows, B into panels of TILE_N columns.  A panel lies as
//   [K][tile], zeros beyond the edge, so that the product reads both straight through:
//
//        B panel [K][TILE_N]                 one work-item = one tile of C:
//             | | | |                          for k: TILE_M numbers of A times
//   A panel  +-------+                                TILE_N numbers of B, summed in
//   [K][TILE_M] tile |                                registers
//            +-------+
//
// No local memory and no barriers: on CPU devices a work-item is a loop on one core.
//
// Several products at once ("batch") differ in B and C and share A in turn: product z takes
// A number z % groups.

#ifndef REAL
#define REAL float  // element type: float, or double where the device has cl_khr_fp64
#endif
#ifndef TILE_M
#define TILE_M 6    // rows of a tile: 1 or more; TILE_M * VECTORS + VECTORS + 1 vector registers hold it
#endif
#ifndef VECTOR
#define VECTOR 8    // elements of a vector: 2, 4, 8 or 16
#endif
#ifndef VECTORS
#define VECTORS 2   // vectors in a row of a tile: 1 or more
#endif
#define TILE_N (VECTOR * VECTORS)

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
typedef REAL real;
typedef JOIN(REAL, VECTOR) vector;

// Rows k of one panel that a work-item of pack_a or pack_b copies.
#ifndef PACK_ROWS
#define PACK_ROWS 64  // 1 or more
#endif

// Copy rows [k0, k1) of one panel.  Row k of the operand is (k / inner, k % inner), whose two parts
// have strides of their own: that is how images stand one behind the other along K.
static void pack(__global const real *restrict source, __global real *restrict panel, const int tile,
                 const int lanes, const int lane_stride, const int k0, const int k1, const int inner,
                 const int inner_stride, const int outer_stride)
{
    for (int k = k0; k < k1; k++) {
        __global const real *restrict row =
            source + (size_t)(k / inner) * outer_stride + (size_t)(k % inner) * inner_stride;
        __global real *restrict to = panel + (size_t)k * tile;
        if (lanes >= tile) {
            for (int lane = 0; lane < tile; lane++)
                to[lane] = row[(size_t)lane * lane_stride];
        } else {
            for (int lane = 0; lane < tile; lane++)
                to[lane] = lane < lanes ? row[(size_t)lane * lane_stride] : (real)0;
        }
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

// Work-items: (product z, panel of B, panel of A), the last fastest, so that a panel of B stays in the
// cache while the panels of A pass by.
__kernel void multiply(__global const real *restrict a_packed, __global const real *restrict b_packed,
                       __global real *restrict c,
                       __global const real *restrict bias,  // groups x M, added to the rows of C, or null
                       const int c_offset, const int m_count, const int n_count, const int k_count,
                       const int groups, const real alpha, const real beta, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int m_panels = (m_count + TILE_M - 1) / TILE_M, n_panels = (n_count + TILE_N - 1) / TILE_N;
    const int m_panel = id % m_panels, n_panel = id / m_panels % n_panels, z = id / m_panels / n_panels;
    const int group = z % groups;

    __global const real *restrict a = a_packed + ((size_t)group * m_panels + m_panel) * k_count * TILE_M;
    __global const vector *restrict b =
        (__global const vector *)(b_packed + ((size_t)z * n_panels + n_panel) * k_count * TILE_N);
    vector sum[TILE_M][VECTORS];
#pragma unroll
    for (int i = 0; i < TILE_M; i++)
#pragma unroll
        for (int j = 0; j < VECTORS; j++) sum[i][j] = (vector)(0);

    for (int k = 0; k < k_count; k++) {
        vector row[VECTORS];
#pragma unroll
        for (int j = 0; j < VECTORS; j++) row[j] = b[j];
#pragma unroll
        for (int i = 0; i < TILE_M; i++) {
            const vector element = (vector)(a[i]);
#pragma unroll
            for (int j = 0; j < VECTORS; j++) sum[i][j] += element * row[j];
        }
        a += TILE_M;
        b += VECTORS;
    }

    const int m0 = m_panel * TILE_M, n0 = n_panel * TILE_N;
    const int rows = m_count - m0 < TILE_M ? m_count - m0 : TILE_M;
    const int columns = n_count - n0 < TILE_N ? n_count - n0 : TILE_N;
    __global real *restrict tile = c + c_offset + ((size_t)z * m_count + m0) * n_count + n0;
    for (int i = 0; i < rows; i++) {
        const real *result = (const real *)sum[i];
        const real shift = bias ? bias[group * m_count + m0 + i] : (real)0;
        for (int j = 0; j < columns; j++) {
            const real value = alpha * result[j] + shift;
            const size_t at = (size_t)i * n_count + j;
            // beta = 0 must not read C, which may hold NaN.
            tile[at] = beta == 0 ? value : value + beta * tile[at];
        }
    }
}
