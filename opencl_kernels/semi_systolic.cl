// The semi-systolic array: a mesh of TR x TC processing elements that multiplies tiles, as a functional model.
//
//                B[0][c]    B[k] enters from above, column c delayed by c steps
//                  |  |  |
//   A[0][r] --->  PE-PE-PE    every step each element multiplies what stands in its two registers, adds the
//   row r    ---> PE-PE-PE    product to one of S + 1 sums, and passes A to the right and B down
//   delayed  ---> PE-PE-PE
//   by r steps
//
// An adder of S steps cannot take its own result at once, so S + 1 sums take turns: sum j of an element gets the
// products k = j, j + (S + 1), j + 2 (S + 1), ... of the whole common dimension.  The tile of C stays in the
// array for np products of tiles; then each element adds up its sums, p0 + p1 + ... + pS, from the left.
//
// Element (r, c) meets product k at step k + r + c.  Sums are therefore kept by the step's number modulo S + 1, a
// plane for the whole mesh, and are read back turned by r + c.  Between two products of tiles the mesh is fed
// zeros until it has run dry, TP + TR + TC - 2 steps for a product: adding 0 * 0 changes no sum, which begins at
// +0 and so is never -0.
//
// Operands lie in the order in which the array reads them, zeros beyond the edges:
//   a  [nr][np][TP][TR]    b  [nc][np][TP][TC]    c  [nr][nc][TR][TC]
//
// Any one-dimensional range is right: work-items share the tiles of C among them.  One work-item is the
// hardware's task; as many as there are tiles suits a CPU, where a work-item is a loop on one core.

#ifndef TR
#define TR 16         // rows of the mesh: 1 to 128
#endif
#ifndef TC
#define TC 16         // columns of the mesh: 1 to 128
#endif
#ifndef TP
#define TP 64         // products of a tile along the common dimension: 1 to 1024
#endif
#ifndef PRECISION
#define PRECISION 32  // 32: float; 8: integers of 8 bits; 12, 14 or 16: integers in 16 bits
#endif
#ifndef S
#define S (PRECISION == 32 ? 10 : 0)  // steps of latency of the adder: 0 to 31
#endif

#if PRECISION == 32
typedef float stored;
typedef float sum_t;
typedef float result_t;
#elif PRECISION == 8
typedef char stored;
typedef uint sum_t;  // wraps around at 32 bits, which signed integers of C need not
typedef int result_t;
#elif PRECISION == 12 || PRECISION == 14 || PRECISION == 16
typedef short stored;
typedef uint sum_t;
typedef int result_t;
#else
#error "PRECISION must be 32, 8, 12, 14 or 16"
#endif

// The multiplier and the adder of an element each round: a product is rounded before it is added.
#pragma OPENCL FP_CONTRACT OFF

#define SUMS ((S) + 1)
#define STEPS (TP + TR + TC - 2)

__kernel void semi_systolic(__global const stored *restrict a, __global const stored *restrict b,
                            __global result_t *restrict c, const int nr, const int nc, const int np)
{
    sum_t sums[SUMS][TR][TC];
    // The registers of a row that pass A to the right are a window on a line: it moves by one place to the left
    // at every step, where the next element has been put.  So do those that pass B down, a row of B a place.
    sum_t a_line[TR][STEPS + TC - 1], b_line[STEPS + TR - 1][TC];
    for (int tile = get_global_id(0); tile < nr * nc; tile += get_global_size(0)) {
        __global const stored *restrict a_tile = a + (size_t)(tile / nc) * np * TP * TR;
        __global const stored *restrict b_tile = b + (size_t)(tile % nc) * np * TP * TC;
        for (int plane = 0; plane < SUMS; plane++)
            for (int r = 0; r < TR; r++)
                for (int col = 0; col < TC; col++) sums[plane][r][col] = 0;
        for (int r = 0; r < TR; r++)
            for (int place = 0; place < STEPS + TC - 1; place++) a_line[r][place] = 0;
        for (int place = 0; place < STEPS + TR - 1; place++)
            for (int col = 0; col < TC; col++) b_line[place][col] = 0;

        int first = 0;  // plane of the first step of this product of tiles
        for (int p = 0; p < np; p++) {
            // What enters at step k + r of row r, and at step k + col of column col; zeros at all other steps.
            for (int k = 0; k < TP; k++) {
                for (int r = 0; r < TR; r++) a_line[r][STEPS - 1 - (k + r)] = a_tile[k * TR + r];
                for (int col = 0; col < TC; col++) b_line[STEPS - 1 - (k + col)][col] = b_tile[k * TC + col];
            }
            int plane = first;
            for (int step = 0; step < STEPS; step++) {
                const int window = STEPS - 1 - step;
                for (int r = 0; r < TR; r++)
                    for (int col = 0; col < TC; col++)
                        sums[plane][r][col] =
                            sums[plane][r][col] + a_line[r][window + col] * b_line[window + r][col];
                plane = plane + 1 == SUMS ? 0 : plane + 1;
            }
            first = (first + TP) % SUMS;
            a_tile += TP * TR;
            b_tile += TP * TC;
        }

        __global result_t *restrict c_tile = c + (size_t)tile * TR * TC;
        for (int r = 0; r < TR; r++)
            for (int col = 0; col < TC; col++) {
                sum_t total = sums[(r + col) % SUMS][r][col];
                for (int j = 1; j < SUMS; j++) total = total + sums[(r + col + j) % SUMS][r][col];
                c_tile[r * TC + col] = (result_t)total;
            }
    }
}
