// Barista's array: C = A B over tiles, a mesh of TR x TC processing elements (thesis, section 4.1.3).
//
//   memory a -> read_tiles -> tile_memory -+
//                                          +-> multiply_tiles -> write_tiles -> memory c
//   memory b -> read_tiles -> tile_memory -+
//
// Operands lie in the order in which the array reads them, zeros beyond the edges:
//   a  [nr][np][TP][TR]    b  [nc][np][TP][TC]    c  [nr][nc][TR][TC]
#ifndef BARISTA_GEMM_H
#define BARISTA_GEMM_H

// PRECISION, TR, TC, TP, PARTIAL_SUMS, A_PORT_BITS, B_PORT_BITS, C_PORT_BITS; `barista bitstream configure` writes it.
#include "config.h"

#include "../common/dataflow.h"
#include "../common/number.h"
#include "../common/on_chip.h"
#include "../common/port.h"

// ---- what is legal ----------------------------------------------------------------------------------------

static_assert(TR >= 1 && TR <= 128, "TR, rows of the mesh, must be 1 to 128");
static_assert(TC >= 1 && TC <= 128, "TC, columns of the mesh, must be 1 to 128");
static_assert(TP >= 1 && TP <= 1024, "TP, products of a tile along the common dimension, must be 1 to 1024");
static_assert(PARTIAL_SUMS >= 1 && PARTIAL_SUMS <= 32, "PARTIAL_SUMS, S + 1, must be 1 to 32");
static_assert(PRECISION == 32 || PARTIAL_SUMS == 1, "integers are added up in one cycle: PARTIAL_SUMS must be 1");

constexpr bool is_port(int bits) { return bits >= 8 && bits <= 1024 && (bits & (bits - 1)) == 0; }
static_assert(is_port(A_PORT_BITS) && is_port(B_PORT_BITS) && is_port(C_PORT_BITS),
              "a port must be 8 to 1024 bits wide, a power of 2");

// ---- types ------------------------------------------------------------------------------------------------

// One operand: LANES words enter the mesh side by side, TP times a tile.
struct OperandA {
    static constexpr int LANES = TR;
    static constexpr int PORT_BITS = A_PORT_BITS;
    static constexpr bool IS_ROWS = true;
    static constexpr const char *MEMORY = "tile_a";
};

struct OperandB {
    static constexpr int LANES = TC;
    static constexpr int PORT_BITS = B_PORT_BITS;
    static constexpr bool IS_ROWS = false;
    static constexpr const char *MEMORY = "tile_b";
};

template <typename Operand>
struct Layout {
    typedef ap_uint<Operand::PORT_BITS> Beat;
    static constexpr int BEAT_WORDS = Operand::PORT_BITS / STORED_BITS;
    static constexpr int TILE_BEATS = TP * Operand::LANES / BEAT_WORDS;
    static_assert(BEAT_WORDS >= 1, "a port must carry a whole word");
    static_assert(BEAT_WORDS <= Operand::LANES, "a beat must hold no more words than enter the mesh at once");
    static_assert(TILE_BEATS * BEAT_WORDS == TP * Operand::LANES, "a tile must fill whole beats of its port");
};

typedef Layout<OperandA>::Beat a_beat;
typedef Layout<OperandB>::Beat b_beat;
typedef ap_uint<C_PORT_BITS> c_beat;

constexpr int C_BEAT_WORDS = C_PORT_BITS / RESULT_BITS;
static_assert(C_BEAT_WORDS >= 1, "port c must carry a whole word");
static_assert(TC % C_BEAT_WORDS == 0, "a row of a tile of C must fill whole beats of its port");

// Words that go from one process to the next at once.
template <int LANES>
struct Vector {
    word_t lane[LANES];
};

struct ResultRow {
    sum_t column[TC];
};

// Beats that a reader may be ahead of its tile memory: a block of 16, in which bursts come. Vectors and rows are
// taken as they are made.
constexpr int BEATS_AHEAD = 16;
constexpr int VECTORS_AHEAD = 2;

template <typename Operand>
using BeatStream = Stream<typename Layout<Operand>::Beat, BEATS_AHEAD>;
template <typename Operand>
using VectorStream = Stream<Vector<Operand::LANES>, VECTORS_AHEAD>;
using RowStream = Stream<ResultRow, VECTORS_AHEAD>;

// Steps of a tile: the last element meets its first product TR + TC - 2 steps after the first one (Eq. 4.4).
constexpr int STEPS = TP + TR + TC - 2;

// Multiply nr x nc tiles of C, np tiles along the common dimension; counts are at least 1.
extern "C" void barista_gemm(const a_beat *a, const b_beat *b, c_beat *c, int nr, int nc, int np);

#endif
