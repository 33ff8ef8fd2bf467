// OUT on its way from the array to memory: kept until it can go in order, packed into beats, written in place (thesis,
// sections 5.3.8 and A.3.2 to A.3.4). Positions and filters in excess of the convolution's are dropped.
#ifndef BARISTA_OUT_H
#define BARISTA_OUT_H

#include "../common/pragma.h"
#include "mesh.h"
#include "parameters.h"

// Up to X words of OUT that lie one behind the other.
struct OutVector {
    int words;
    sum_t word[X];
};

constexpr int OUT_VECTORS_AHEAD = 8;
using OutStream = Stream<OutVector, OUT_VECTORS_AHEAD>;
using OutBeatStream = Stream<out_beat, BEATS_AHEAD>;

// Cycles at least between two additions to one word: more than an adder and a memory take.
constexpr int ADD_DISTANCE = 16;

inline OutVector out_vector(const sum_t kept[X], int set, const Shape &s) {
#pragma HLS INLINE
    OutVector vector;
    const int left = s.positions - set * X;
    vector.words = left < X ? left : X;
    for (int column = 0; column < X; column++) {
#pragma HLS UNROLL
        vector.word[column] = kept[column];
    }
    return vector;
}

// Forward and grad_input: one block of Y filters comes from the array while the one before it goes on.
inline void keep_blocks(const Shape &s, ResultStream &results, OutStream &vectors, sum_t kept[OUT_WORDS][X]) {
    const int blocks = s.rounds * s.blocks, turns = s.sets * Y;
    int taken = 0, sent = OUT_WORDS / 2;  // where the halves begin
    int filter = 0, row = 0, set = 0;     // sent next; of the filters, the first of the block
blocks:
    for (int block = 0; block < blocks + 1; block++) {
    turns:
        for (int turn = 0; turn < turns; turn++) {
#pragma HLS PIPELINE II=1
            // One half is written and the other one is read.
#pragma HLS DEPENDENCE variable=kept type=intra dependent=false
            if (block < blocks) {
                const ResultRow result = results.read();
                for (int column = 0; column < X; column++) {
#pragma HLS UNROLL
                    kept[taken + result.row * s.sets + result.set][column] = result.word[column];
                }
            }
            if (block > 0) {
                if (filter + row < s.filters) vectors.write(out_vector(kept[sent + turn], set, s));
                if (++set == s.sets) {
                    set = 0;
                    if (++row == Y) {
                        row = 0;
                        filter = filter + Y < s.filters ? filter + Y : 0;
                    }
                }
            }
            if (turn == turns - 1) {
                const int other = taken;
                taken = sent;
                sent = other;
            }
        }
    }
}

// grad_weight: all of OUT is kept, [filter][plane][set], and what comes image by image is added to it; then it goes on.
// A word comes again after as many cycles as an image has, which is never less than ADD_DISTANCE.
inline void keep_sums(const Shape &s, ResultStream &results, OutStream &vectors, sum_t kept[OUT_WORDS][X]) {
    const int block_turns = s.sets * Y, image_turns = block_turns * s.blocks * s.planes;
    const int turns = image_turns > ADD_DISTANCE ? image_turns : ADD_DISTANCE;
    const int filter_words = s.planes * s.sets;
    int turn_of_block = 0, first_filter = 0, plane = 0;
images:
    for (int image = 0; image < s.a; image++) {
    turns:
        for (int turn = 0; turn < turns; turn++) {
#pragma HLS PIPELINE II=1
            HLS_PRAGMA(DEPENDENCE variable=kept type=inter direction=RAW distance=ADD_DISTANCE dependent=true)
            if (turn < image_turns) {
                const ResultRow result = results.read();
                const int filter = first_filter + result.row;
                if (filter < s.filters) {
                    const int address = filter * filter_words + plane * s.sets + result.set;
                    for (int column = 0; column < X; column++) {
#pragma HLS UNROLL
                        kept[address][column] = (image == 0 ? sum_t(0) : kept[address][column]) + result.word[column];
                    }
                }
                if (++turn_of_block == block_turns) {
                    turn_of_block = 0;
                    first_filter += Y;
                    if (first_filter >= s.filters) {
                        first_filter = 0;
                        plane = plane + 1 == s.planes ? 0 : plane + 1;
                    }
                }
            }
        }
    }
    int set = 0;
send:
    for (int address = 0; address < s.filters * filter_words; address++) {
#pragma HLS PIPELINE II=1
        vectors.write(out_vector(kept[address], set, s));
        set = set + 1 == s.sets ? 0 : set + 1;
    }
}

inline void keep(const Shape s, ResultStream &results, OutStream &vectors) {
    sum_t kept[OUT_WORDS][X];
#pragma HLS ARRAY_PARTITION variable=kept type=complete dim=2
#pragma HLS BIND_STORAGE variable=kept type=ram_s2p
    ON_CHIP("out", kept, 1)
    if (s.sums_up)
        keep_sums(s, results, vectors, kept);
    else
        keep_blocks(s, results, vectors, kept);
}

// ---- memory -----------------------------------------------------------------------------------------------

// Pack vectors into beats. The first beat of a range has the range's words where memory has them; what stands before
// them, and behind the last word, is of no account. A cycle takes a vector, gives a beat, or both.
inline void encode(const Shape s, OutStream &vectors, OutBeatStream &beats) {
    constexpr int WAITING = OUT_BAND - 1 + X;
    sum_t waiting[WAITING] = {};
#pragma HLS ARRAY_PARTITION variable=waiting type=complete dim=1
    int range = 0, start = s.out_start;
    int held = 0, left = 0;  // words that wait, words of the range that are to come
    bool begins = true;
pack:
    while (range < s.out_ranges) {
#pragma HLS PIPELINE II=1
        if (begins) {
            held = start % OUT_BAND;
            left = s.out_words;
            begins = false;
        }
        if (held < OUT_BAND && left > 0) {
            const OutVector vector = vectors.read();
            sum_t words[X];
#pragma HLS ARRAY_PARTITION variable=words type=complete
            for (int column = 0; column < X; column++) {
#pragma HLS UNROLL
                words[column] = vector.word[column];
            }
            for (int place = 0; place < WAITING; place++) {
#pragma HLS UNROLL
                const int column = place - held;
                if (column >= 0 && column < X) waiting[place] = words[column];
            }
            held += vector.words;
            left -= vector.words;
        }
        if (held >= OUT_BAND || left == 0) {
            out_beat beat = 0;
            for (int word = 0; word < OUT_BAND; word++) {
#pragma HLS UNROLL
                if (word < WAITING) set_word<RESULT_BITS>(beat, word, store_sum(waiting[word]));
            }
            beats.write(beat);
            for (int word = 0; word < X - 1; word++) {
#pragma HLS UNROLL
                waiting[word] = waiting[OUT_BAND + word];
            }
            held -= OUT_BAND;
            if (held <= 0 && left == 0) {
                begins = true;
                range++;
                start += s.out_next;
            }
        }
    }
}

// Replace words `from` to before `to` of a beat in memory, and leave the others as they are.
inline void patch_beat(out_beat *port, int beat, const out_beat &words, int from, int to) {
    out_beat patched = read_beat(port, beat);
    for (int word = 0; word < OUT_BAND; word++) {
#pragma HLS UNROLL
        if (word >= from && word < to) set_word<RESULT_BITS>(patched, word, word_of<RESULT_BITS>(words, word));
    }
    write_beat(port, beat, patched);
}

// Write each range in bursts. Only a beat that holds words of others is read first; that of the range before may be the
// same one, so these steps stand outside of the pipeline, one after the other.
inline void write_ranges(const Shape s, OutBeatStream &beats, out_beat *port) {
    int start = s.out_start;
ranges:
    for (int range = 0; range < s.out_ranges; range++) {
        const int lead = start % OUT_BAND, end = lead + s.out_words, tail = end % OUT_BAND;
        int beat = start / OUT_BAND;
        int whole = end / OUT_BAND;  // beats that the range fills, its first one among them if it has no lead
        if (lead > 0) {
            patch_beat(port, beat, beats.read(), lead, end < OUT_BAND ? end : OUT_BAND);
            beat++;
            whole--;
        }
    burst:
        for (int index = 0; index < whole; index++) {
#pragma HLS PIPELINE II=1
            write_beat(port, beat + index, beats.read());
        }
        if (tail > 0 && whole >= 0) patch_beat(port, beat + whole, beats.read(), 0, tail);
        start += s.out_next;
    }
}

#endif
