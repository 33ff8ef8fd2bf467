#include "fpgpt_conv.h"

#include "inp.h"
#include "kern.h"
#include "mesh.h"
#include "out.h"

// All processes at once, each of which counts for itself what it has to do.
static void convolve(const inp_beat *inp, const inp_beat *kern, out_beat *out, const Shape s) {
#pragma HLS INLINE off
#pragma HLS DATAFLOW
    RangeStream inp_ranges, inp_pieces, kern_ranges, kern_readings;
    BeatStream inp_beats, kern_beats;
    VectorStream<Z> inp_groups;
    VectorStream<Y> kern_groups, kern_vectors;
    VectorStream<X> inp_vectors;
    SumsStream finished[Y];
    ResultStream results;
    OutStream out_vectors;
    OutBeatStream out_beats;
    NAME_STREAM(inp_ranges)
    NAME_STREAM(inp_pieces)
    NAME_STREAM(kern_ranges)
    NAME_STREAM(kern_readings)
    NAME_STREAM(inp_beats)
    NAME_STREAM(kern_beats)
    NAME_STREAM(inp_groups)
    NAME_STREAM(kern_groups)
    NAME_STREAM(kern_vectors)
    NAME_STREAM(inp_vectors)
#ifndef __SYNTHESIS__
    for (int row = 0; row < Y; row++) finished[row].name("finished");
#endif
    NAME_STREAM(results)
    NAME_STREAM(out_vectors)
    NAME_STREAM(out_beats)
    DATAFLOW_BEGIN
    PROCESS(find_pieces, s, inp_ranges, inp_pieces)
    PROCESS(read_inp, s, inp, inp_ranges, inp_beats)
    PROCESS(cut_inp, s, inp_pieces, inp_beats, inp_groups)
    PROCESS(im2col, s, inp_groups, inp_vectors)
    PROCESS(find_readings, s, kern_ranges, kern_readings)
    PROCESS(read_kern, s, kern, kern_ranges, kern_beats)
    PROCESS(cut_kern, s, kern_readings, kern_beats, kern_groups)
    PROCESS(feed_kern, s, kern_groups, kern_vectors)
    PROCESS(multiply_blocks, s, inp_vectors, kern_vectors, finished)
    PROCESS(add_up, s, finished, results)
    PROCESS(keep, s, results, out_vectors)
    PROCESS(encode, s, out_vectors, out_beats)
    PROCESS(write_ranges, s, out_beats, out)
    DATAFLOW_END
}

extern "C" void fpgpt_conv(const inp_beat *inp, const inp_beat *kern, out_beat *out, const int *beta) {
#pragma HLS INTERFACE mode=m_axi port=inp bundle=gmem_inp offset=slave max_read_burst_length=64 num_read_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=kern bundle=gmem_kern offset=slave max_read_burst_length=64 num_read_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=out bundle=gmem_out offset=slave max_write_burst_length=64 num_write_outstanding=16
#pragma HLS INTERFACE mode=m_axi port=beta bundle=gmem_beta offset=slave
#pragma HLS INTERFACE mode=s_axilite port=return
    int values[PARAMETERS];
parameters:
    for (int parameter = 0; parameter < PARAMETERS; parameter++) {
#pragma HLS PIPELINE II=1
        values[parameter] = beta[parameter];
    }
    convolve(inp, kern, out, shape_of(values));
}
