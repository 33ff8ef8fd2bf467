// An operand on its way into the mesh: burst reader and double-buffered tile memory.
#ifndef BARISTA_TILE_MEMORY_H
#define BARISTA_TILE_MEMORY_H

#include "barista_gemm.h"

// Read the tiles in the order in which the mesh wants them: for each tile of C a strip of np tiles, which lie one behind
// the other. The innermost loop is one burst; nothing depends on what was read.
template <typename Operand>
void read_tiles(const typename Layout<Operand>::Beat *port, BeatStream<Operand> &beats, int nr, int nc, int np) {
    const int strip_beats = np * Layout<Operand>::TILE_BEATS;
rows:
    for (int row = 0; row < nr; row++) {
    columns:
        for (int column = 0; column < nc; column++) {
            const int first = (Operand::IS_ROWS ? row : column) * strip_beats;
        strip:
            for (int beat = 0; beat < strip_beats; beat++) {
#pragma HLS PIPELINE II=1
                beats.write(read_beat(port, first + beat));
            }
        }
    }
}

// Put the beats of a tile where the mesh finds them. A beat holds no more words than there are lanes, so each lane's
// memory takes one word a cycle at most: the word of the beat that is its own, if there is one.
template <typename Operand>
void fill_tile(BeatStream<Operand> &beats, word_t tile[TP][Operand::LANES]) {
    constexpr int LANES = Operand::LANES, WORDS = Layout<Operand>::BEAT_WORDS;
    int product = 0, first_lane = 0;  // of the beat's first word
fill:
    for (int beat = 0; beat < Layout<Operand>::TILE_BEATS; beat++) {
#pragma HLS PIPELINE II=1
        const typename Layout<Operand>::Beat read = beats.read();
        word_t words[WORDS];
#pragma HLS ARRAY_PARTITION variable=words type=complete
        for (int word = 0; word < WORDS; word++) {
#pragma HLS UNROLL
            words[word] = load_word(word_of<STORED_BITS>(read, word));
        }
        for (int lane = 0; lane < LANES; lane++) {
#pragma HLS UNROLL
            const bool is_next = lane < first_lane;  // a word behind the end of the row, for the next product
            const int word = is_next ? lane - first_lane + LANES : lane - first_lane;
            // Where rows are whole beats, a lane always takes the same word: no multiplexer.
            if (word < WORDS)
                tile[is_next ? product + 1 : product][lane] = words[LANES % WORDS == 0 ? lane % WORDS : word];
        }
        first_lane += WORDS;
        if (first_lane >= LANES) {
            first_lane -= LANES;
            product++;
        }
    }
}

// Give the mesh a tile, lane l delayed by l steps: it gets product k at step k + l, and zeros before and after.
template <typename Operand>
void feed_tile(const word_t tile[TP][Operand::LANES], VectorStream<Operand> &vectors) {
feed:
    for (int step = 0; step < STEPS; step++) {
#pragma HLS PIPELINE II=1
        Vector<Operand::LANES> vector;
        for (int lane = 0; lane < Operand::LANES; lane++) {
#pragma HLS UNROLL
            const int product = step - lane;
            vector.lane[lane] = product >= 0 && product < TP ? tile[product][lane] : word_t(0);
        }
        vectors.write(vector);
    }
}

// The memory of a tile, twice: DATAFLOW fills the one while the mesh is fed from the other.
template <typename Operand>
void tile_memory(BeatStream<Operand> &beats, VectorStream<Operand> &vectors, int tiles) {
tiles:
    for (int index = 0; index < tiles; index++) {
#pragma HLS DATAFLOW
        word_t tile[TP][Operand::LANES];
#pragma HLS ARRAY_PARTITION variable=tile type=complete dim=2
#pragma HLS STREAM variable=tile type=pipo depth=2
        ON_CHIP(Operand::MEMORY, tile, 2)
        fill_tile<Operand>(beats, tile);
        feed_tile<Operand>(tile, vectors);
    }
}

#endif
