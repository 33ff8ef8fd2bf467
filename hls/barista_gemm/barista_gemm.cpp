#include "barista_gemm.h"

#include "mesh.h"
#include "tile_memory.h"

// Write tiles of C one behind the other, a single burst from the first beat to the last.
static void write_tiles(RowStream &rows, c_beat *port, int tiles) {
    constexpr int ROW_BEATS = TC / C_BEAT_WORDS;
    sum_t waiting[TC];  // words of a row, those of the next beat first
#pragma HLS ARRAY_PARTITION variable=waiting type=complete
    int part = 0;
    const int beats = tiles * TR * ROW_BEATS;
burst:
    for (int beat = 0; beat < beats; beat++) {
#pragma HLS PIPELINE II=1
        if (part == 0) {
            const ResultRow row = rows.read();
            for (int column = 0; column < TC; column++) {
#pragma HLS UNROLL
                waiting[column] = row.column[column];
            }
        }
        c_beat words = 0;
        for (int word = 0; word < C_BEAT_WORDS; word++) {
#pragma HLS UNROLL
            set_word<RESULT_BITS>(words, word, store_sum(waiting[word]));
        }
        write_beat(port, beat, words);
        for (int column = 0; column + C_BEAT_WORDS < TC; column++) {
#pragma HLS UNROLL
            waiting[column] = waiting[column + C_BEAT_WORDS];
        }
        part = part == ROW_BEATS - 1 ? 0 : part + 1;
    }
}

// All processes at once. Their counts of tiles come as arguments, since nothing is computed between processes.
static void multiply_matrices(const a_beat *a, const b_beat *b, c_beat *c, int nr, int nc, int np, int c_tiles,
                              int tiles) {
#pragma HLS INLINE off
#pragma HLS DATAFLOW
    BeatStream<OperandA> a_beats;
    BeatStream<OperandB> b_beats;
    VectorStream<OperandA> a_vectors;
    VectorStream<OperandB> b_vectors;
    RowStream rows;
    NAME_STREAM(a_beats)
    NAME_STREAM(b_beats)
    NAME_STREAM(a_vectors)
    NAME_STREAM(b_vectors)
    NAME_STREAM(rows)
    DATAFLOW_BEGIN
    PROCESS(read_tiles<OperandA>, a, a_beats, nr, nc, np)
    PROCESS(read_tiles<OperandB>, b, b_beats, nr, nc, np)
    PROCESS(tile_memory<OperandA>, a_beats, a_vectors, tiles)
    PROCESS(tile_memory<OperandB>, b_beats, b_vectors, tiles)
    PROCESS(multiply_tiles, a_vectors, b_vectors, rows, c_tiles, np)
    PROCESS(write_tiles, rows, c, c_tiles)
    DATAFLOW_END
}

// Bursts of 64 beats, which are 4 KB at 512 bits: none may be longer, and a port has room for all that are under way.
extern "C" void barista_gemm(const a_beat *a, const b_beat *b, c_beat *c, int nr, int nc, int np) {
#pragma HLS INTERFACE mode=m_axi port=a bundle=gmem_a offset=slave max_read_burst_length=64 num_read_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=b bundle=gmem_b offset=slave max_read_burst_length=64 num_read_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=c bundle=gmem_c offset=slave max_write_burst_length=64 num_write_outstanding=16
#pragma HLS INTERFACE mode=s_axilite port=nr
#pragma HLS INTERFACE mode=s_axilite port=nc
#pragma HLS INTERFACE mode=s_axilite port=np
#pragma HLS INTERFACE mode=s_axilite port=return
    const int c_tiles = nr * nc;
    multiply_matrices(a, b, c, nr, nc, np, c_tiles, c_tiles * np);
}
