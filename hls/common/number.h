// Words, products and sums of a precision.
//
//   PRECISION  word in the array   in memory   sum and result
//   32         float               32 bit      float
//   8          ap_int<8>            8 bit      32 bit, wraps around
//   12 14 16   ap_int<PRECISION>   16 bit      32 bit, wraps around
#ifndef BARISTA_NUMBER_H
#define BARISTA_NUMBER_H

#include <ap_int.h>

#include "config.h"

static_assert(PRECISION == 32 || PRECISION == 8 || PRECISION == 12 || PRECISION == 14 || PRECISION == 16,
              "PRECISION must be 32 (float), 8, 12, 14 or 16 (fixed point)");

// Bits of a word of an operand in memory, and of a word of the result.
constexpr int STORED_BITS = PRECISION == 32 ? 32 : PRECISION == 8 ? 8 : 16;
constexpr int RESULT_BITS = 32;

#if PRECISION == 32
typedef float word_t;
typedef float sum_t;
#else
typedef ap_int<PRECISION> word_t;
typedef ap_int<32> sum_t;
#endif

// A product as an element adds it up. Floats are rounded here: multiplier and adder are two operators, never a fused one.
inline sum_t multiply(word_t a, word_t b) {
#pragma HLS INLINE
    return a * b;
}

// The bits of a float as they are, which HLS reads out of a union.
union FloatBits {
    float value;
    unsigned bits;
};

// A word of an operand as memory holds it.
inline word_t load_word(ap_uint<STORED_BITS> stored) {
#pragma HLS INLINE
#if PRECISION == 32
    FloatBits word;
    word.bits = stored.to_uint();
    return word.value;
#else
    return word_t(stored);
#endif
}

// A word of the result as memory holds it.
inline ap_uint<RESULT_BITS> store_sum(sum_t sum) {
#pragma HLS INLINE
#if PRECISION == 32
    FloatBits word;
    word.value = sum;
    return word.bits;
#else
    return ap_uint<RESULT_BITS>(sum);
#endif
}

#endif
