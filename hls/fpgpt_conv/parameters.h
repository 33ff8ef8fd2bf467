// Run-time parameters of a launch, the set beta of the thesis (Eq. 5.5), and what follows from them.
//
// Each pass is a convolution of INP with KERN into OUT, tensors of A x N x C x H x W (Table 5.3). Addresses are in words.
#ifndef BARISTA_PARAMETERS_H
#define BARISTA_PARAMETERS_H

#include "fpgpt_conv.h"

static_assert(BETA_LAYOUT == 1, "BETA_LAYOUT: the host writes other parameters than this kernel reads; configure it again");

// Which pass; it says how KERN is kept and whether OUT is added up.
enum Pass { PASS_FORWARD, PASS_GRAD_WEIGHT, PASS_GRAD_INPUT };

enum Parameter {
    BETA_PASS,
    BETA_A,  // tensors that are added up in OUT: the batch in grad_weight, else 1
    BETA_INP_N,
    BETA_INP_C,
    BETA_INP_H,
    BETA_INP_W,
    BETA_KERN_N,
    BETA_KERN_H,  // as KERN is stored, without zeros between its words
    BETA_KERN_W,
    BETA_OUT_H,
    BETA_OUT_W,
    BETA_STEP_H,  // between neighbouring positions of KERN, in words of INP with its zeros
    BETA_STEP_W,
    BETA_PAD_H,  // zeros around INP with its zeros; below 0 where positions begin inside of it
    BETA_PAD_W,
    BETA_INP_DILATION_H,  // distance of INP's words with zeros between them
    BETA_INP_DILATION_W,
    BETA_KERN_DILATION_H,
    BETA_KERN_DILATION_W,
    BETA_Z_CHANNEL,  // words of a plane of INP that a set of X positions needs
    BETA_INP_START,  // the group's first word
    BETA_INP_A_NEXT,  // words from one A to the next
    BETA_INP_N_NEXT,
    BETA_KERN_START,
    BETA_KERN_A_NEXT,
    BETA_OUT_START,
    BETA_OUT_N_NEXT,
    PARAMETERS
};

// A row or a column of INP with zeros between its words: word `q`, and `r` zeros further on.
struct Split {
    int q, r;
};

// A place on a plane of INP, or a way across it; `address` is that of its words q.
struct Place {
    Split row, column;
    int address;
};

// What a launch computes. Divisions happen here, once, and no process has to divide by a run-time size. Scalars alone,
// since every process gets a copy.
struct Shape {
    bool sums_up, is_turned;        // OUT is added up over A; KERN is turned and permuted
    int a, inp_n, channels;         // of INP; `channels` is KERN's C as well
    int inp_h, inp_w, plane;        // of INP: a plane is H W words
    int dilation_h, dilation_w;     // of INP
    int step_words;                 // words of INP from a row of positions to the next
    int filters;                    // N of KERN
    int kern_h, kern_w, kern_plane; // of KERN, stored
    int spread_h, spread_w;         // of KERN with zeros between its words
    int gap_h, gap_w;               // distance of its words then
    int out_w, positions;           // O: words of a plane of OUT
    int taps, products, stored;     // of a plane of KERN with its zeros; M, M0: of a filter with and without them
    int sets, blocks, rounds;       // of X positions; of Y filters; how often all filters are gone through
    int z_channel;
    int inp_start, inp_a_next, inp_n_next;
    int kern_start, kern_a_next;
    int out_start, out_next, out_ranges, out_words;  // ranges of `out_words` that lie one behind the other
    int planes;                     // of OUT that a filter has on the chip: INP's N where OUT is added up
    Place origin;                   // of the first position's first word of KERN
    Place one, one_past_row;        // to the next position; where a row of OUT ends between
    Place set, set_past_row;        // to the next set
    Place tap_right, tap_down;      // to the next word of a row of KERN with its zeros, and to the next row
    int set_columns;                // columns of OUT from a set to the next, whole rows aside
};

inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Rounded down, also below 0.
inline Split split(int words, int dilation) {
    Split result;
    result.q = words >= 0 ? words / dilation : -((dilation - 1 - words) / dilation);
    result.r = words - result.q * dilation;
    return result;
}

inline Place place(int rows, int columns, const Shape &s) {
    Place result;
    result.row = split(rows, s.dilation_h);
    result.column = split(columns, s.dilation_w);
    result.address = result.row.q * s.inp_w + result.column.q;
    return result;
}

inline Shape shape_of(const int beta[PARAMETERS]) {
    Shape s;
    s.sums_up = beta[BETA_PASS] == PASS_GRAD_WEIGHT;
    s.is_turned = beta[BETA_PASS] == PASS_GRAD_INPUT;
    s.a = beta[BETA_A];
    s.inp_n = beta[BETA_INP_N];
    s.channels = beta[BETA_INP_C];
    s.inp_h = beta[BETA_INP_H];
    s.inp_w = beta[BETA_INP_W];
    s.plane = s.inp_h * s.inp_w;
    s.dilation_h = beta[BETA_INP_DILATION_H];
    s.dilation_w = beta[BETA_INP_DILATION_W];
    s.step_words = beta[BETA_STEP_H] * s.inp_w;
    s.filters = beta[BETA_KERN_N];
    s.kern_h = beta[BETA_KERN_H];
    s.kern_w = beta[BETA_KERN_W];
    s.kern_plane = s.kern_h * s.kern_w;
    s.gap_h = beta[BETA_KERN_DILATION_H];
    s.gap_w = beta[BETA_KERN_DILATION_W];
    s.spread_h = (s.kern_h - 1) * s.gap_h + 1;
    s.spread_w = (s.kern_w - 1) * s.gap_w + 1;
    s.out_w = beta[BETA_OUT_W];
    s.positions = beta[BETA_OUT_H] * s.out_w;
    s.taps = s.spread_h * s.spread_w;
    s.products = s.channels * s.taps;
    s.stored = s.channels * s.kern_plane;
    s.sets = ceil_div(s.positions, X);
    s.blocks = ceil_div(s.filters, Y);
    s.rounds = s.a * s.inp_n;
    s.z_channel = beta[BETA_Z_CHANNEL];
    s.inp_start = beta[BETA_INP_START];
    s.inp_a_next = beta[BETA_INP_A_NEXT];
    s.inp_n_next = beta[BETA_INP_N_NEXT];
    s.kern_start = beta[BETA_KERN_START];
    s.kern_a_next = beta[BETA_KERN_A_NEXT];
    s.out_start = beta[BETA_OUT_START];
    s.out_next = beta[BETA_OUT_N_NEXT];
    s.planes = s.sums_up ? s.inp_n : 1;
    s.out_ranges = s.sums_up ? 1 : s.inp_n;
    s.out_words = s.filters * s.planes * s.positions;
    if (s.out_next == s.out_words) {  // images without a gap between them are one range
        s.out_words *= s.out_ranges;
        s.out_ranges = 1;
    }
    const int step_h = beta[BETA_STEP_H], step_w = beta[BETA_STEP_W], rows = X / s.out_w;
    s.set_columns = X - rows * s.out_w;
    s.origin = place(-beta[BETA_PAD_H], -beta[BETA_PAD_W], s);
    s.tap_right = place(0, 1, s);
    s.tap_down = place(1, 0, s);
    s.one = place(0, step_w, s);
    s.one_past_row = place(step_h, -step_w * (s.out_w - 1), s);
    s.set = place(step_h * rows, step_w * s.set_columns, s);
    s.set_past_row = place(step_h * (rows + 1), step_w * (s.set_columns - s.out_w), s);
    return s;
}

// ---- places of positions ----------------------------------------------------------------------------------

// `from`, moved on by `way`.
inline Place moved(const Place &from, const Place &way, const Shape &s) {
#pragma HLS INLINE
    Place to;
    to.row.q = from.row.q + way.row.q;
    to.row.r = from.row.r + way.row.r;
    to.column.q = from.column.q + way.column.q;
    to.column.r = from.column.r + way.column.r;
    to.address = from.address + way.address;
    if (to.row.r >= s.dilation_h) {
        to.row.r -= s.dilation_h;
        to.row.q++;
        to.address += s.inp_w;
    }
    if (to.column.r >= s.dilation_w) {
        to.column.r -= s.dilation_w;
        to.column.q++;
        to.address++;
    }
    return to;
}

// A position of KERN on INP, that is a word of a plane of OUT.
struct Position {
    Place place;  // of KERN's first word
    int column;   // of OUT
    int index;
};

inline Position first_position(const Shape &s) {
#pragma HLS INLINE
    Position first;
    first.place = s.origin;
    first.column = 0;
    first.index = 0;
    return first;
}

inline Position next_position(const Position &from, const Shape &s) {
#pragma HLS INLINE
    const bool ends_row = from.column + 1 == s.out_w;
    Position to;
    to.place = moved(from.place, ends_row ? s.one_past_row : s.one, s);
    to.column = ends_row ? 0 : from.column + 1;
    to.index = from.index + 1;
    return to;
}

// The position of the same column of the array, a set further on.
inline Position position_of_next_set(const Position &from, const Shape &s) {
#pragma HLS INLINE
    const bool ends_row = from.column + s.set_columns >= s.out_w;
    Position to;
    to.place = moved(from.place, ends_row ? s.set_past_row : s.set, s);
    to.column = from.column + s.set_columns - (ends_row ? s.out_w : 0);
    to.index = from.index + X;
    return to;
}

// Where in a plane of INP the words begin that a set needs whose first position is at `first`: at or before the lowest
// of them, and no more than z_channel words before the highest.
inline int piece_start(const Place &first, const Shape &s) {
#pragma HLS INLINE
    const int row_address = first.address - first.column.q;
    const int column = first.column.q + (first.column.r > 0 ? 1 : 0);
    int start;
    if (s.dilation_h == 1 && column >= s.inp_w)
        start = row_address + s.step_words;  // KERN stands right of INP; the next row of positions comes first
    else if (first.row.q < 0)
        start = 0;
    else if (first.row.r > 0)
        start = row_address + s.inp_w;  // between two rows
    else
        start = row_address + (column < 0 ? 0 : column > s.inp_w ? s.inp_w : column);
    return start < 0 ? 0 : start < s.plane ? start : s.plane - 1;
}

#endif
