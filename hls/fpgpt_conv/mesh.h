// The array of X columns and Y rows (thesis, section 5.3.3).
//
// X words of INP enter at row 0 each step and move down a row a step; a word of KERN reaches all elements of its row.
// Product p of a word of OUT, zeros of KERN included, is added to sum p mod 4 of its element; the word is
// (s0 + s1) + (s2 + s3). Fixed point has one sum.
#ifndef BARISTA_MESH_H
#define BARISTA_MESH_H

#include "parameters.h"

// The sums of a row's X words of OUT, the latest first: that of the last product, then those of the ones before it.
struct Sums {
    sum_t sum[SUMS][X];
};

// A row has room for the words that are being added up while it goes on with the next ones: the second set of sums that
// the thesis gives each element.
constexpr int SUMS_AHEAD = 2;
using SumsStream = Stream<Sums, SUMS_AHEAD>;

// X words of OUT of a filter, `row` of the block.
struct ResultRow {
    int row, set;
    sum_t word[X];
};

constexpr int ROWS_AHEAD = 8;
using ResultStream = Stream<ResultRow, ROWS_AHEAD>;

// What a row is told about its product.
struct Control {
    bool is_first, is_last;  // of a word of OUT
};

// Multiply a product a step in every element. The sums of an element move on by one each step, so that the oldest one
// is always the one to add to, and an addition may take as many cycles as there are sums: 4, as at the thesis's 100 MHz.
inline void multiply_blocks(const Shape s, VectorStream<X> &inp_vectors, VectorStream<Y> &kern_vectors,
                            SumsStream finished[Y]) {
    word_t passing[Y][X] = {};  // words of INP on their way down
    Control control[Y] = {};
    sum_t sums[Y][SUMS][X] = {};
#pragma HLS ARRAY_PARTITION variable=passing type=complete dim=0
#pragma HLS ARRAY_PARTITION variable=control type=complete dim=0
#pragma HLS ARRAY_PARTITION variable=sums type=complete dim=0
    const int blocks = s.rounds * s.blocks, fed = s.products * s.sets, steps = fed + Y - 1;
    int product = 0, step = 0;
    const long all_steps = long(blocks) * steps;
steps:
    for (long count = 0; count < all_steps; count++) {
#pragma HLS PIPELINE II=1
        const bool is_live = step < fed;
        const Vector<Y> kern = kern_vectors.read();
        Vector<X> inp = {};
        if (is_live) inp = inp_vectors.read();
        // From the last row to the first, so that each finds what the row above it held a step ago.
        for (int row = Y - 1; row >= 0; row--) {
#pragma HLS UNROLL
            Control now;
            if (row > 0) {
                now = control[row - 1];
            } else {
                now.is_first = is_live && product == 0;
                now.is_last = is_live && product == s.products - 1;
            }
            control[row] = now;
            for (int column = 0; column < X; column++) {
#pragma HLS UNROLL
                const word_t word = row > 0 ? passing[row - 1][column] : inp.word[column];
                passing[row][column] = word;
                const sum_t oldest = now.is_first ? sum_t(0) : sums[row][SUMS - 1][column];
                for (int sum = SUMS - 1; sum > 0; sum--) {
#pragma HLS UNROLL
                    sums[row][sum][column] = now.is_first ? sum_t(0) : sums[row][sum - 1][column];
                }
                sums[row][0][column] = oldest + multiply(word, kern.word[row]);
            }
            if (now.is_last) {
                Sums done;
                for (int sum = 0; sum < SUMS; sum++) {
#pragma HLS UNROLL
                    for (int column = 0; column < X; column++) {
#pragma HLS UNROLL
                        done.sum[sum][column] = sums[row][sum][column];
                    }
                }
                finished[row].write(done);
            }
        }
        if (is_live) product = product == s.products - 1 ? 0 : product + 1;
        step = step == steps - 1 ? 0 : step + 1;
    }
}

// The word of OUT that an element's sums make, (s0 + s1) + (s2 + s3). Where M is odd the latest of them is s0 or s2,
// whose partner came 3 products before; else it is s1 or s3, whose partner came just before.
inline sum_t total(const Sums &sums, int column, bool is_even) {
#pragma HLS INLINE
    sum_t latest[4] = {};
    for (int sum = 0; sum < SUMS; sum++) {
#pragma HLS UNROLL
        latest[sum] = sums.sum[sum][column];
    }
    if (SUMS == 1) return latest[0];
    const sum_t left = latest[0] + (is_even ? latest[1] : latest[3]);
    const sum_t right = latest[2] + (is_even ? latest[3] : latest[1]);
    return left + right;
}

// Add up the sums of the rows, one row a cycle, in the order in which they finish: 3 X adders serve the whole array.
//
// Row y finishes set k at step k M + M - 1 + y of its block. Where M < Y, several rows finish in a step, each with
// another set; then the earlier set goes first.
inline void add_up(const Shape s, SumsStream finished[Y], ResultStream &results) {
    const int blocks = s.rounds * s.blocks, turns = s.sets * Y;
    const bool is_even = s.products % 2 == 0;
    int head_row = 0, head_set = 0;  // the earliest set of the step
    int row = 0, set = 0;
    const long all_turns = long(blocks) * turns;
turns:
    for (long turn = 0; turn < all_turns; turn++) {
#pragma HLS PIPELINE II=1
        Sums sums = {};
        for (int index = 0; index < Y; index++) {
#pragma HLS UNROLL
            if (index == row) sums = finished[index].read();
        }
        ResultRow result;
        result.row = row;
        result.set = set;
        for (int column = 0; column < X; column++) {
#pragma HLS UNROLL
            result.word[column] = total(sums, column, is_even);
        }
        results.write(result);
        if (row >= s.products && set + 1 < s.sets) {  // finished in the same step
            row -= s.products;
            set++;
            continue;
        }
        // The next step in which a row finishes.
        if (++head_row == Y) {
            head_row = s.products < Y ? Y - s.products : 0;
            head_set++;
        }
        if (head_set == s.sets) {
            head_row = 0;
            head_set = 0;
        }
        row = head_row;
        set = head_set;
    }
}

#endif
