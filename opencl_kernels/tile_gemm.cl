// Product of tiles at a CPU device's full speed: same arguments and layouts as semi_systolic.cl, without the mesh.
//
//   a  [nr][np][TP][TR]    b  [nc][np][TP][TC]    c  [nr][nc][TR][TC]
//
//        B tile [TP][TC]                 a block of ROWS x COLUMNS sums stays in registers for the whole common
//             | | | |                    dimension: operands lie as the registers want them, so that both are
//   A tile   +-------+                   read straight through
//   [TP][TR] | block |
//            +-------+
//
// Sums are added up in order of k, with whatever contraction of a * b + c the device has: float results equal
// those of the array within rounding, integers exactly.
//
// Any one-dimensional range is right: work-items share the tiles of C among them, in an order in which some strips of
// A, as many as half a core's cache holds, stay there while the strips of B pass by once.

#ifndef TR
#define TR 16         // rows of a tile: 1 to 128
#endif
#ifndef TC
#define TC 16         // columns of a tile: 1 to 128
#endif
#ifndef TP
#define TP 64         // products of a tile along the common dimension: 1 to 1024
#endif
#ifndef CACHED_BYTES
#define CACHED_BYTES 524288  // of A that a core is to keep: 1 or more
#endif
#ifndef PRECISION
#define PRECISION 32  // 32: float; 8: integers of 8 bits; 12, 14 or 16: integers in 16 bits
#endif

#if PRECISION == 32
#define STORED float
#define SUM float
#define RESULT float
#elif PRECISION == 8
#define STORED char
#define SUM uint      // wraps around at 32 bits, which signed integers of C need not
#define RESULT int
#elif PRECISION == 12 || PRECISION == 14 || PRECISION == 16
#define STORED short
#define SUM uint
#define RESULT int
#else
#error "PRECISION must be 32, 8, 12, 14 or 16"
#endif

// The widest block whose sums, with a row of B and an element of A, the registers of an x86 core hold.
#if TC % 8 == 0
#define VECTOR 8
#elif TC % 4 == 0
#define VECTOR 4
#elif TC % 2 == 0
#define VECTOR 2
#else
#define VECTOR 1
#endif
#if VECTOR > 1 && TC % (2 * VECTOR) == 0
#define VECTORS 2
#else
#define VECTORS 1
#endif
#if TR % 6 == 0
#define ROWS 6
#elif TR % 4 == 0
#define ROWS 4
#elif TR % 5 == 0
#define ROWS 5
#elif TR % 3 == 0
#define ROWS 3
#elif TR % 2 == 0
#define ROWS 2
#else
#define ROWS 1
#endif
#define COLUMNS (VECTOR * VECTORS)

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#if VECTOR > 1
typedef JOIN(SUM, VECTOR) sums;
// Memory of the host that is used in place may begin anywhere.
typedef JOIN(STORED, VECTOR) row_t __attribute__((aligned(sizeof(STORED))));
typedef JOIN(SUM, VECTOR) stored_sums __attribute__((aligned(4)));
#else
typedef SUM sums;
typedef STORED row_t;
typedef SUM stored_sums;
#endif
#if PRECISION == 32 || VECTOR == 1
#define WIDEN(row) ((sums)(row))
#else
#define WIDEN(row) __builtin_convertvector(row, sums)
#endif

__kernel void tile_gemm(__global const STORED *restrict a, __global const STORED *restrict b,
                        __global RESULT *restrict c, const int nr, const int nc, const int np)
{
    const int k_count = np * TP, kept = CACHED_BYTES / ((size_t)k_count * TR * sizeof(STORED));
    const int most = kept < 1 ? 1 : kept < nr ? kept : nr;  // strips of A in a block
    for (int turn = get_global_id(0); turn < nr * nc; turn += get_global_size(0)) {
        const int first = turn / (most * nc) * most, within = turn - first * nc;
        const int strips = nr - first < most ? nr - first : most;
        const int tile_row = first + within % strips, tile_column = within / strips;
        __global RESULT *restrict c_tile = c + ((size_t)tile_row * nc + tile_column) * TR * TC;
        for (int r = 0; r < TR; r += ROWS)
            for (int col = 0; col < TC; col += COLUMNS) {
                __global const STORED *restrict a_k = a + (size_t)tile_row * k_count * TR + r;
                __global const STORED *restrict b_k = b + (size_t)tile_column * k_count * TC + col;
                sums sum[ROWS][VECTORS];
#pragma unroll
                for (int i = 0; i < ROWS; i++)
#pragma unroll
                    for (int j = 0; j < VECTORS; j++) sum[i][j] = (sums)(0);
                for (int k = 0; k < k_count; k++) {
                    sums row[VECTORS];
#pragma unroll
                    for (int j = 0; j < VECTORS; j++) row[j] = WIDEN(((__global const row_t *)b_k)[j]);
#pragma unroll
                    for (int i = 0; i < ROWS; i++) {
                        const sums element = (sums)((SUM)a_k[i]);
#pragma unroll
                        for (int j = 0; j < VECTORS; j++) sum[i][j] += element * row[j];
                    }
                    a_k += TR;
                    b_k += TC;
                }
#pragma unroll
                for (int i = 0; i < ROWS; i++)
#pragma unroll
                    for (int j = 0; j < VECTORS; j++)
                        *(__global stored_sums *)(c_tile + (r + i) * TC + col + j * VECTOR) = sum[i][j];
            }
    }
}
