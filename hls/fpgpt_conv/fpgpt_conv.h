// FPGPT's array: a whole convolution on the device, im2col included (thesis, section 5.3 and appendix A).
//
//   memory inp  -> read_inp  -> cut_inp  -> im2col -----+
//                                                       +-> multiply_blocks -> add_up
//   memory kern -> read_kern -> cut_kern -> feed_kern --+                        |
//                                                                                v
//                                memory out <- write_ranges <- encode <------- keep
//
// One launch computes one group of one pass; forward, grad_weight and grad_input differ in run-time parameters alone
// (parameters.h). Tensors lie in memory exactly as the framework holds them, N x C x H x W:
//
//   pass         inp   kern   out
//   forward      x     w      y
//   grad_input   dy    w      dx
//   grad_weight  x     dy     dw
#ifndef BARISTA_FPGPT_CONV_H
#define BARISTA_FPGPT_CONV_H

// BETA_LAYOUT, PRECISION, ARRAY_X, ARRAY_Y, ARRAY_Z, LINE_WORDS, KERN_WORDS, OUT_WORDS, PORT_BITS; `barista bitstream
// configure` writes it.
#include "config.h"

#include "../common/dataflow.h"
#include "../common/number.h"
#include "../common/on_chip.h"
#include "../common/port.h"

// Columns and rows of the array, and words of INP that are at hand at once. No macros: headers use such short names.
constexpr int X = ARRAY_X, Y = ARRAY_Y, Z = ARRAY_Z;

// ---- what is legal ----------------------------------------------------------------------------------------

static_assert(X >= 1 && X <= 1024, "X, columns of the array, must be 1 to 1024");
static_assert(Y >= 1 && Y <= 1024, "Y, rows of the array, must be 1 to 1024");
static_assert(Z >= 1, "Z, words of INP at hand at once, must be at least 1");
static_assert(LINE_WORDS >= 2 * Z && LINE_WORDS % (2 * Z) == 0,
              "LINE_WORDS, of one line buffer, must be a multiple of 2 Z");
static_assert(KERN_WORDS >= 2 * Y && KERN_WORDS % (2 * Y) == 0,
              "KERN_WORDS, of a row of the array, must be a multiple of 2 Y: two halves of Y banks");
static_assert(OUT_WORDS >= 2 && OUT_WORDS % 2 == 0, "OUT_WORDS, of a column of the array, must be even: two halves");
static_assert(PORT_BITS >= 32 && PORT_BITS <= 1024 && (PORT_BITS & (PORT_BITS - 1)) == 0,
              "PORT_BITS must be 32 to 1024, a power of 2");

// ---- types ------------------------------------------------------------------------------------------------

typedef ap_uint<PORT_BITS> inp_beat;
typedef ap_uint<PORT_BITS> out_beat;

// BAND: words of a beat, of operands and of results.
constexpr int BAND = PORT_BITS / STORED_BITS;
constexpr int OUT_BAND = PORT_BITS / RESULT_BITS;

// Sums that an element adds its products to in turn, so that an adder of 4 cycles never waits for its own result.
constexpr int SUMS = PRECISION == 32 ? 4 : 1;

// Words that go from one process to the next at once.
template <int WORDS>
struct Vector {
    word_t word[WORDS];
};

// Beats that a reader may be ahead: a block of 16, in which bursts come. Of vectors enough to even out neighbours.
constexpr int BEATS_AHEAD = 16;
constexpr int VECTORS_AHEAD = 8;

using BeatStream = Stream<inp_beat, BEATS_AHEAD>;
template <int WORDS>
using VectorStream = Stream<Vector<WORDS>, VECTORS_AHEAD>;

// Compute one group of one pass. `beta` holds PARAMETERS ints in the order of parameters.h; what they ask for must fit
// the sizes that were compiled, which the host has to see to.
extern "C" void fpgpt_conv(const inp_beat *inp, const inp_beat *kern, out_beat *out, const int *beta);

#endif
