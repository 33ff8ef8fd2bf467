#include "barista_gemm.h"

#include "mesh.h"
#include "tile_memory.h"

// Write tiles of C one behind the other, a single burst from the first beat to the last.
static void write_tiles(RowStream &rows, c_beat *port, int tiles) {
    constexpr int ROW_BEATS = TC / C_BEAT_WORDS;
    int beat = 0;
    ResultRow row;
rows:
    for (int index = 0; index < tiles * TR; index++) {
    parts:
        for (int part = 0; part < ROW_BEATS; part++) {
#pragma HLS PIPELINE II=1
            if (part == 0) row = rows.read();
            c_beat words = 0;
            for (int word = 0; word < C_BEAT_WORDS; word++) {
#pragma HLS UNROLL
                set_word<RESULT_BITS>(words, word, store_sum(row.column[part * C_BEAT_WORDS + word]));
            }
            write_beat(port, beat, words);
            beat++;
        }
    }
}

extern "C" void barista_gemm(const a_beat *a, const b_beat *b, c_beat *c, int nr, int nc, int np) {
#pragma HLS INTERFACE mode=m_axi port=a bundle=gmem_a offset=slave max_read_burst_length=256 num_read_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=b bundle=gmem_b offset=slave max_read_burst_length=256 num_read_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=c bundle=gmem_c offset=slave max_write_burst_length=256 num_write_outstanding=16
#pragma HLS INTERFACE mode=s_axilite port=nr
#pragma HLS INTERFACE mode=s_axilite port=nc
#pragma HLS INTERFACE mode=s_axilite port=np
#pragma HLS INTERFACE mode=s_axilite port=return
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
    PROCESS(tile_memory<OperandA>, a_beats, a_vectors, nr * nc * np)
    PROCESS(tile_memory<OperandB>, b_beats, b_vectors, nr * nc * np)
    PROCESS(multiply_tiles, a_vectors, b_vectors, rows, nr * nc, np)
    PROCESS(write_tiles, rows, c, nr * nc)
    DATAFLOW_END
}
