// Ports to the card's memory: beats of several words, read and written one behind the other.
//
// In C-simulation every access is held against the size of the buffer behind the port, and the reads of each beat are
// counted.
#ifndef BARISTA_PORT_H
#define BARISTA_PORT_H

#include <ap_int.h>

#ifndef __SYNTHESIS__
#include "../csim/simulation.h"
#endif

template <int BITS>
inline ap_uint<BITS> read_beat(const ap_uint<BITS> *port, int beat) {
#pragma HLS INLINE
#ifndef __SYNTHESIS__
    simulation::count_read(port, beat);
#endif
    return port[beat];
}

template <int BITS>
inline void write_beat(ap_uint<BITS> *port, int beat, const ap_uint<BITS> &value) {
#pragma HLS INLINE
#ifndef __SYNTHESIS__
    simulation::count_write(port, beat);
#endif
    port[beat] = value;
}

// Word `index` of a beat that holds words of WORD_BITS.
template <int WORD_BITS, int BITS>
inline ap_uint<WORD_BITS> word_of(const ap_uint<BITS> &beat, int index) {
#pragma HLS INLINE
    return beat.range(WORD_BITS * index + WORD_BITS - 1, WORD_BITS * index);
}

template <int WORD_BITS, int BITS>
inline void set_word(ap_uint<BITS> &beat, int index, const ap_uint<WORD_BITS> &word) {
#pragma HLS INLINE
    beat.range(WORD_BITS * index + WORD_BITS - 1, WORD_BITS * index) = word;
}

#endif
