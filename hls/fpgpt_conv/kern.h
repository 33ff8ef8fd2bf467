// KERN on its way into the array: kept on the chip, and fed row by row (thesis, sections 5.3.7, A.2 and A.3.1).
//
// Forward and grad_input keep all of KERN; it is read once. grad_weight, whose KERN is a feature map, reads it anew for
// each plane of INP and keeps two blocks of Y filters: one is filled while the other is fed.
#ifndef BARISTA_KERN_H
#define BARISTA_KERN_H

#include "parameters.h"
#include "ranges.h"

// Row y of the array has a memory of its own, of Y banks, word w in bank w mod Y: Y words of a filter come in at once.
constexpr int KERN_GROUPS = KERN_WORDS / Y;

inline int readings_of(const Shape &s) {
#pragma HLS INLINE
    return s.sums_up ? s.rounds : 1;
}

// All of KERN, once or for each plane of INP.
inline void find_readings(const Shape s, RangeStream &to_read, RangeStream &to_cut) {
    const int readings = readings_of(s);
    int start = s.kern_start, n = 0;
readings:
    for (int reading = 0; reading < readings; reading++) {
        const Range range = range_of(start, s.filters * s.stored);
        to_read.write(range);
        to_cut.write(range);
        if (++n == s.inp_n) {
            n = 0;
            start += s.kern_a_next;
        }
    }
}

inline void read_kern(const Shape s, const inp_beat *port, RangeStream &ranges, BeatStream &beats) {
    read_ranges(port, ranges, beats, readings_of(s));
}

// Groups of grad_weight begin anew with each filter, as the banks of a row do.
inline void cut_kern(const Shape s, RangeStream &ranges, BeatStream &beats, VectorStream<Y> &groups) {
    const int runs = s.sums_up ? s.filters : 1, run_words = s.sums_up ? s.stored : s.filters * s.stored;
    regroup<Y, true>(ranges, beats, groups, readings_of(s), runs, run_words);
}

// Keep all of KERN, a word a cycle. Filter f goes to row f mod Y, the word of product p to p words behind the filter's
// first. For grad_input, filters and channels change places and each kernel is turned by half a turn, by where its words
// are written.
inline void keep_kern(const Shape &s, VectorStream<Y> &groups, word_t kept[Y][KERN_GROUPS][Y]) {
    const int words = s.filters * s.stored;
    int tap = 0, channel_words = 0;        // of the filter, before this word
    int filter = 0, row = 0, row_words = 0;  // the filter, its row, and words there before it
    int slot = 0;                          // word of the group
    word_t waiting[Y];
#pragma HLS ARRAY_PARTITION variable=waiting type=complete
keep:
    for (int word = 0; word < words; word++) {
#pragma HLS PIPELINE II=1
        if (slot == 0) {
            const Vector<Y> group = groups.read();
            for (int bank = 0; bank < Y; bank++) {
#pragma HLS UNROLL
                waiting[bank] = group.word[bank];
            }
        }
        const int address = row_words + channel_words + (s.is_turned ? s.kern_plane - 1 - tap : tap);
        kept[row][address / Y][address % Y] = waiting[slot];
        slot = slot == Y - 1 ? 0 : slot + 1;
        if (++tap < s.kern_plane) continue;
        tap = 0;
        bool is_filter_done = true;  // where all filters' words of a channel lie one behind the other
        if (!s.is_turned) {
            channel_words += s.kern_plane;
            is_filter_done = channel_words == s.stored;
            if (is_filter_done) channel_words = 0;
        }
        if (!is_filter_done) continue;
        filter++;
        row_words += row == Y - 1 ? s.stored : 0;
        row = row == Y - 1 ? 0 : row + 1;
        if (s.is_turned && filter == s.filters) {
            filter = 0;
            row = 0;
            row_words = 0;
            channel_words += s.kern_plane;
        }
    }
}

// Keep the next group of up to Y words of a block of filters.
inline void keep_group(VectorStream<Y> &groups, word_t kept[Y][KERN_GROUPS][Y], int row, int group) {
#pragma HLS INLINE
    const Vector<Y> words = groups.read();
    for (int bank = 0; bank < Y; bank++) {
#pragma HLS UNROLL
        kept[row][group][bank] = words.word[bank];
    }
}

// What row 0 is fed, and the rows below a step later each: where the product's word of KERN is kept.
struct Fed {
    bool is_stored;  // not one of the zeros between KERN's words, nor a step without a product
    int group, bank;
};

// Give the array a word for each of its rows: row y gets product s - y at step s of a block, zeros before and after. The
// products of a block are those of all sets, one behind the other. Halves change places as those of INP's line do.
inline void feed_kern(const Shape s, VectorStream<Y> &groups, VectorStream<Y> &vectors) {
    word_t kept[Y][KERN_GROUPS][Y];
#pragma HLS ARRAY_PARTITION variable=kept type=complete dim=1
#pragma HLS ARRAY_PARTITION variable=kept type=complete dim=3
#pragma HLS BIND_STORAGE variable=kept type=ram_s2p
    ON_CHIP("kern", kept, 1)
    const int filter_groups = ceil_div(s.stored, Y);
    int fill_row = 0, fill_group = 0;
    if (!s.sums_up) {
        keep_kern(s, groups, kept);
    } else {
    first_block:
        for (int group = 0; group < (s.filters < Y ? s.filters : Y) * filter_groups; group++) {
#pragma HLS PIPELINE II=1
            keep_group(groups, kept, fill_row, fill_group);
            if (++fill_group == filter_groups) {
                fill_group = 0;
                fill_row++;
            }
        }
    }

    const int blocks = s.rounds * s.blocks, fed = s.products * s.sets, steps = fed + Y - 1;
    const int stored_groups = s.stored / Y, stored_banks = s.stored % Y;
    Fed rows[Y] = {};
#pragma HLS ARRAY_PARTITION variable=rows type=complete dim=1
    int block = 0, used = 0, next_used = 0;  // of a round: the block, and filters of this one and of the next
    int begin_group = 0, begin_bank = 0;     // where the block's filters begin
    int group = 0, bank = 0;
    int channel = 0, tap_row = 0, tap_column = 0, gap_row = 0, gap_column = 0;
    int index = 0, step = 0;                 // of all blocks; of a block
    // A single loop: of two, the inner one, whose steps are known at run time alone, would run empty for each block.
    const long all_steps = long(blocks) * steps;
steps:
    for (long count = 0; count < all_steps; count++) {
#pragma HLS PIPELINE II=1
        // Where words are written, one half is, and the other one is read.
#pragma HLS DEPENDENCE variable=kept type=intra dependent=false
        if (step == 0) {
            const int left = s.filters - block * Y, after = block + 1 == s.blocks ? s.filters : left - Y;
            used = left < Y ? left : Y;
            next_used = !s.sums_up || index + 1 == blocks ? 0 : after < Y ? after : Y;
            fill_row = 0;
            fill_group = 0;
            group = begin_group;
            bank = begin_bank;
        }
        // There are at least as many steps as groups, since every stored word is fed.
        if (fill_row < next_used) {
            keep_group(groups, kept, fill_row, (begin_group == 0 ? KERN_GROUPS / 2 : 0) + fill_group);
            if (++fill_group == filter_groups) {
                fill_group = 0;
                fill_row++;
            }
        }
        Vector<Y> vector;
        for (int row = Y - 1; row >= 0; row--) {
#pragma HLS UNROLL
            if (row > 0) {
                rows[row] = rows[row - 1];
            } else {
                rows[0].is_stored = step < fed && gap_row == 0 && gap_column == 0;
                rows[0].group = group;
                rows[0].bank = bank;
            }
            const bool is_fed = rows[row].is_stored && row < used;
            vector.word[row] = is_fed ? kept[row][rows[row].group][rows[row].bank] : word_t(0);
        }
        vectors.write(vector);
        if (rows[0].is_stored) {
            group += bank == Y - 1 ? 1 : 0;
            bank = bank == Y - 1 ? 0 : bank + 1;
        }
        if (step < fed) {
            gap_column = gap_column == s.gap_w - 1 ? 0 : gap_column + 1;
            if (++tap_column == s.spread_w) {
                tap_column = 0;
                gap_column = 0;
                gap_row = gap_row == s.gap_h - 1 ? 0 : gap_row + 1;
                if (++tap_row == s.spread_h) {
                    tap_row = 0;
                    gap_row = 0;
                    if (++channel == s.channels) {  // the next set has the same filters
                        channel = 0;
                        group = begin_group;
                        bank = begin_bank;
                    }
                }
            }
        }
        if (++step == steps) {
            step = 0;
            index++;
            block = block + 1 == s.blocks ? 0 : block + 1;
            if (s.sums_up) {
                begin_group = begin_group == 0 ? KERN_GROUPS / 2 : 0;
            } else if (block == 0) {
                begin_group = 0;
                begin_bank = 0;
            } else {
                begin_group += stored_groups;
                begin_bank += stored_banks;
                if (begin_bank >= Y) {
                    begin_bank -= Y;
                    begin_group++;
                }
            }
        }
    }
}

#endif
