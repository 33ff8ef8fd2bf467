// The mesh, and the buffer of C in which its elements add up.
//
// Product k of a tile of C, counted over all its np tiles along the common dimension, is added to partial sum
// k mod PARTIAL_SUMS, S + 1, of each element: an adder of S cycles never waits for its own result. The result is
// ((p0 + p1) + p2) + ... + pS.
#ifndef BARISTA_MESH_H
#define BARISTA_MESH_H

#include "../common/pragma.h"
#include "barista_gemm.h"

// What an element holds and passes on: a word of A and of B, and which product they belong to.
struct Element {
    word_t a, b;
    bool is_live;     // a product, not one of the steps between tiles
    bool is_first;    // of its partial sum
    ap_uint<5> slot;  // its partial sum, of 32 at the most
};

// Multiply np tiles into `sums`. Words of A move right and words of B move down, an element a step, and everything that
// says what to do with them moves along: elements are wired to their neighbours alone.
inline void mesh(VectorStream<OperandA> &a_vectors, VectorStream<OperandB> &b_vectors, sum_t sums[PARTIAL_SUMS][TR][TC],
                 int np) {
    Element elements[TR][TC] = {};  // no product anywhere
#pragma HLS ARRAY_PARTITION variable=elements type=complete dim=0
#if PARTIAL_SUMS == 1
    // No memory is read, added to and written in one cycle: a single sum stays in a register until its tile is done.
    sum_t running[TR][TC];
#pragma HLS ARRAY_PARTITION variable=running type=complete dim=0
#endif
    int slot = 0;
    bool is_first = true;
products:
    for (int tile = 0; tile < np; tile++) {
    steps:
        for (int step = 0; step < STEPS; step++) {
#pragma HLS PIPELINE II=1
#if PARTIAL_SUMS > 1
            // A partial sum comes again after PARTIAL_SUMS products at the earliest.
            HLS_PRAGMA(DEPENDENCE variable=sums type=inter direction=RAW distance=PARTIAL_SUMS dependent=true)
#endif
            const Vector<TR> a = a_vectors.read();
            const Vector<TC> b = b_vectors.read();
            // From the last element to the first, so that each finds what its neighbours held a step ago.
            for (int row = TR - 1; row >= 0; row--) {
#pragma HLS UNROLL
                for (int column = TC - 1; column >= 0; column--) {
#pragma HLS UNROLL
                    Element now;
                    if (column > 0) {
                        now = elements[row][column - 1];
                    } else if (row > 0) {
                        now = elements[row - 1][0];
                    } else {
                        now.is_live = step < TP;
                        now.is_first = is_first;
                        now.slot = slot;
                    }
                    if (column == 0) now.a = a.lane[row];
                    now.b = row > 0 ? elements[row - 1][column].b : b.lane[column];
                    elements[row][column] = now;
#if PARTIAL_SUMS == 1
                    sum_t &sum = running[row][column];
#else
                    sum_t &sum = sums[now.slot][row][column];
#endif
                    if (now.is_live) sum = (now.is_first ? sum_t(0) : sum) + multiply(now.a, now.b);
                }
            }
            if (step < TP) {
                if (slot == PARTIAL_SUMS - 1) is_first = false;
                slot = slot == PARTIAL_SUMS - 1 ? 0 : slot + 1;
            }
        }
    }
#if PARTIAL_SUMS == 1
    for (int row = 0; row < TR; row++) {
#pragma HLS UNROLL
        for (int column = 0; column < TC; column++) {
#pragma HLS UNROLL
            sums[0][row][column] = running[row][column];
        }
    }
#endif
}

// Rows of the mesh, and more turns where those are fewer than the cycles of an addition.
#if TR > PARTIAL_SUMS
#define TURNS TR
#else
#define TURNS PARTIAL_SUMS
#endif

// Add up the partial sums of each element, outside of the mesh, while that goes on with the next tile of C. The rows
// take turns, so that an adder's result is there when its row comes again; TC adders serve all of them.
inline void add_up(const sum_t sums[PARTIAL_SUMS][TR][TC], RowStream &rows, int np) {
    sum_t totals[TURNS][TC];
#pragma HLS ARRAY_PARTITION variable=totals type=complete dim=2
sums:
    for (int index = 0; index < PARTIAL_SUMS; index++) {
    turns:
        for (int row = 0; row < TURNS; row++) {
#pragma HLS PIPELINE II=1
            HLS_PRAGMA(DEPENDENCE variable=totals type=inter direction=RAW distance=TURNS dependent=true)
            if (row < TR) {
                // Partial sums beyond the number of products were never begun.
                const bool is_begun = index < np * TP;
                ResultRow result;
                for (int column = 0; column < TC; column++) {
#pragma HLS UNROLL
                    const sum_t partial = is_begun ? sums[index][row][column] : sum_t(0);
                    const sum_t total = index == 0 ? partial : sum_t(totals[row][column] + partial);
                    totals[row][column] = total;
                    result.column[column] = total;
                }
                if (index == PARTIAL_SUMS - 1) rows.write(result);
            }
        }
    }
}

// Tile of C after tile of C; the buffer of C is there twice, one being added to while the other is added up.
inline void multiply_tiles(VectorStream<OperandA> &a_vectors, VectorStream<OperandB> &b_vectors, RowStream &rows, int tiles,
                           int np) {
tiles:
    for (int tile = 0; tile < tiles; tile++) {
#pragma HLS DATAFLOW
        sum_t sums[PARTIAL_SUMS][TR][TC];
#pragma HLS ARRAY_PARTITION variable=sums type=complete dim=2
#pragma HLS ARRAY_PARTITION variable=sums type=complete dim=3
#pragma HLS STREAM variable=sums type=pipo depth=2
#pragma HLS BIND_STORAGE variable=sums type=ram_s2p impl=lutram
        ON_CHIP("sums_c", sums, 2)
        mesh(a_vectors, b_vectors, sums, np);
        add_up(sums, rows, np);
    }
}

#endif
