// Ranges of words, which lie one behind the other in memory, on their way in: read in bursts, cut into groups.
#ifndef BARISTA_RANGES_H
#define BARISTA_RANGES_H

#include "fpgpt_conv.h"

// Beats of memory, and the words of the first one that come before the range.
struct Range {
    int first, beats, lead;
};

constexpr int RANGES_AHEAD = 4;
using RangeStream = Stream<Range, RANGES_AHEAD>;

inline Range range_of(int start, int words) {
#pragma HLS INLINE
    Range range;
    range.first = start / BAND;
    range.lead = start % BAND;
    range.beats = (range.lead + words + BAND - 1) / BAND;
    return range;
}

// Each range is a burst; nothing depends on what was read.
inline void read_ranges(const inp_beat *port, RangeStream &ranges, BeatStream &beats, int count) {
ranges:
    for (int index = 0; index < count; index++) {
        const Range range = ranges.read();
    burst:
        for (int beat = 0; beat < range.beats; beat++) {
#pragma HLS PIPELINE II=1
            beats.write(read_beat(port, range.first + beat));
        }
    }
}

// Cut each range into runs, and each run into groups of GROUP words, the last of which may hold fewer. A cycle takes a
// beat, gives a group, or both. Words that a range ought to have and memory has not are zeros.
//
// RUNS: a range may hold several runs. Then the words that wait move up by as many as the last group of a run holds,
// and not just by GROUP, which asks for much wider multiplexers.
template <int GROUP, bool RUNS>
void regroup(RangeStream &ranges, BeatStream &beats, VectorStream<GROUP> &groups, int count, int runs, int run_words) {
    constexpr int WAITING = GROUP - 1 + BAND;
    word_t waiting[WAITING] = {};
#pragma HLS ARRAY_PARTITION variable=waiting type=complete dim=1
    Range range = {0, 0, 0};
    int held = 0, run = 0, left = 0;
    bool begins = true;
    int index = 0;
cut:
    while (index < count) {
#pragma HLS PIPELINE II=1
        if (begins) {
            range = ranges.read();
            held = 0;
            run = 0;
            left = run_words;
            begins = false;
        }
        const int wanted = left < GROUP ? left : GROUP;
        if (held < wanted) {
            inp_beat beat = 0;
            if (range.beats > 0) beat = beats.read();
            range.beats--;
            word_t words[BAND];
#pragma HLS ARRAY_PARTITION variable=words type=complete
            for (int word = 0; word < BAND; word++) {
#pragma HLS UNROLL
                words[word] = load_word(word_of<STORED_BITS>(beat, word));
            }
            // Each place chooses its word: a multiplexer for each, where words that chose their places would need BAND of
            // them one behind the other.
            for (int place = 0; place < WAITING; place++) {
#pragma HLS UNROLL
                const int word = place - held + range.lead;
                if (word >= range.lead && word < BAND) waiting[place] = words[word];
            }
            held += BAND - range.lead;
            range.lead = 0;
        }
        if (held >= wanted) {
            Vector<GROUP> group;
            for (int word = 0; word < GROUP; word++) {
#pragma HLS UNROLL
                group.word[word] = waiting[word];
            }
            groups.write(group);
            const int gone = RUNS ? wanted : GROUP;
            for (int word = 0; word < BAND - 1; word++) {
#pragma HLS UNROLL
                waiting[word] = waiting[gone + word];
            }
            held -= wanted;
            left -= wanted;
            if (left == 0) {
                run++;
                left = run_words;
                begins = run == runs;
                if (begins) index++;
            }
        }
    }
}

#endif
