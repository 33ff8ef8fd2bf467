// INP on its way into the array: which words are read, and im2col on the fly (thesis, sections 5.3.6 and A.1).
//
// Positions of KERN are taken in sets of X. For each set and each channel a piece of a plane comes in, which holds all
// words that the set needs of it. Pieces follow one another as the array takes them:
//   A, then N, then blocks of Y filters, then sets, then channels
#ifndef BARISTA_INP_H
#define BARISTA_INP_H

#include "parameters.h"
#include "ranges.h"

// A line buffer is Z banks, word w of a piece in bank w mod Z.
constexpr int LINE_ROWS = LINE_WORDS / Z;

inline int pieces_of(const Shape &s) {
#pragma HLS INLINE
    return s.rounds * s.blocks * s.sets * s.channels;
}

// Find the pieces, ahead of who reads them. None reaches beyond its plane.
inline void find_pieces(const Shape s, RangeStream &to_read, RangeStream &to_cut) {
    Position first = first_position(s);
    int round_start = s.inp_start, tensor_start = s.inp_start, start = round_start;
    int n = 0, block = 0, set = 0, channel = 0;
    const int pieces = pieces_of(s);
pieces:
    for (int piece = 0; piece < pieces; piece++) {
#pragma HLS PIPELINE II=1
        const int begin = piece_start(first.place, s);
        const Range range = range_of(start + begin, s.z_channel < s.plane - begin ? s.z_channel : s.plane - begin);
        to_read.write(range);
        to_cut.write(range);
        start += s.plane;
        if (++channel < s.channels) continue;
        channel = 0;
        start = round_start;
        first = position_of_next_set(first, s);
        if (++set < s.sets) continue;
        set = 0;
        first = first_position(s);
        if (++block < s.blocks) continue;
        block = 0;
        round_start += s.inp_n_next;
        if (++n == s.inp_n) {
            n = 0;
            tensor_start += s.inp_a_next;
            round_start = tensor_start;
        }
        start = round_start;
    }
}

inline void read_inp(const Shape s, const inp_beat *port, RangeStream &ranges, BeatStream &beats) {
    read_ranges(port, ranges, beats, pieces_of(s));
}

// Each piece is cut by itself.
inline void cut_inp(const Shape s, RangeStream &ranges, BeatStream &beats, VectorStream<Z> &groups) {
    regroup<Z, false>(ranges, beats, groups, pieces_of(s), 1, s.z_channel);
}

// Give the array X words for each product, from two line buffers: one is filled with the next piece while words are
// taken from the other. A piece takes as many cycles as it has groups of Z words or as KERN has products on a plane,
// whichever are more.
//
// The words of a product, one a position, rise from position to position and lie within Z words of each other. So with
// the lowest of them in bank b and row r, every bank is read once, in row r or, banks before b, in row r + 1.
//
// A bank is written once and read once a cycle. The halves change places from one cycle to the next, so no pragma may
// promise that accesses do not depend on each other: a write has to come after the reads of the cycle before and before
// those of the cycle after, which is no hindrance to a new cycle every cycle.
inline void im2col(const Shape s, VectorStream<Z> &groups, VectorStream<X> &vectors) {
    word_t line[2][LINE_ROWS][Z];
#pragma HLS ARRAY_PARTITION variable=line type=complete dim=3
#pragma HLS BIND_STORAGE variable=line type=ram_s2p
    ON_CHIP("line", line, 1)
    Position first[X], now[X];
#pragma HLS ARRAY_PARTITION variable=first type=complete dim=1
#pragma HLS ARRAY_PARTITION variable=now type=complete dim=1
    Position next = first_position(s);
columns:
    for (int column = 0; column < X; column++) {
#pragma HLS PIPELINE II=1
        first[column] = next;
        now[column] = next;
        next = next_position(next, s);
    }
    const int piece_groups = ceil_div(s.z_channel, Z);
first_fill:
    for (int group = 0; group < piece_groups; group++) {
#pragma HLS PIPELINE II=1
        const Vector<Z> words = groups.read();
        for (int bank = 0; bank < Z; bank++) {
#pragma HLS UNROLL
            line[0][group][bank] = words.word[bank];
        }
    }

    const int pieces = pieces_of(s), turns = s.taps > piece_groups ? s.taps : piece_groups;
    const Place no_way = {{0, 0}, {0, 0}, 0};
    Place tap = no_way, tap_row = no_way;  // from KERN's first word to the product's, and to the first of its row
    int tap_column = 0, channel = 0, set = 0, half = 0;
    int piece = 0, turn = 0;
    // A single loop: of two, the inner one, whose turns are known at run time alone, would run empty for each piece.
    const long all_turns = long(pieces) * turns;
turns:
    for (long count = 0; count < all_turns; count++) {
#pragma HLS PIPELINE II=1
        // One half is written and the other one is read.
#pragma HLS DEPENDENCE variable=line type=intra dependent=false
        if (turn < piece_groups && piece + 1 < pieces) {
            const Vector<Z> words = groups.read();
            for (int bank = 0; bank < Z; bank++) {
#pragma HLS UNROLL
                line[1 - half][turn][bank] = words.word[bank];
            }
        }
        if (turn < s.taps) {
            const int start = piece_start(now[0].place, s);
            bool is_real[X];
            int address[X];
            int lowest = 0;
            for (int column = X - 1; column >= 0; column--) {
#pragma HLS UNROLL
                const Place at = moved(now[column].place, tap, s);
                is_real[column] = now[column].index < s.positions && at.row.r == 0 && at.column.r == 0 &&
                                  at.row.q >= 0 && at.row.q < s.inp_h && at.column.q >= 0 && at.column.q < s.inp_w;
                address[column] = at.address - start;
                if (is_real[column]) lowest = address[column];
            }
            const int row = lowest / Z, bank_of_lowest = lowest % Z;
            word_t words[Z];
#pragma HLS ARRAY_PARTITION variable=words type=complete
            for (int bank = 0; bank < Z; bank++) {
#pragma HLS UNROLL
                // The row after the last is asked for where nobody wants its words.
                const int bank_row = bank < bank_of_lowest ? row + 1 : row;
                words[bank] = line[half][bank_row < LINE_ROWS ? bank_row : LINE_ROWS - 1][bank];
            }
            Vector<X> vector;
            for (int column = 0; column < X; column++) {
#pragma HLS UNROLL
                const int bank = bank_of_lowest + address[column] - lowest;
                vector.word[column] = is_real[column] ? words[bank < Z ? bank : bank - Z] : word_t(0);
            }
            vectors.write(vector);
            if (++tap_column < s.spread_w) {
                tap = moved(tap, s.tap_right, s);
            } else {
                tap_column = 0;
                tap_row = moved(tap_row, s.tap_down, s);
                tap = tap_row;
            }
        }
        if (++turn == turns) {
            turn = 0;
            piece++;
            tap = no_way;
            tap_row = no_way;
            half = 1 - half;
            if (++channel == s.channels) {
                channel = 0;
                const bool again = ++set == s.sets;
                if (again) set = 0;
                for (int column = 0; column < X; column++) {
#pragma HLS UNROLL
                    now[column] = again ? first[column] : position_of_next_set(now[column], s);
                }
            }
        }
    }
}

#endif
