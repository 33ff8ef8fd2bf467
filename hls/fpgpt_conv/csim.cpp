// The kernel as a library that a host program loads: buffers of whole beats, one run at a time.
#include "fpgpt_conv.h"

// 0, or 1 where the run failed, see simulation_message().
extern "C" int fpgpt_conv_csim(const void *inp, std::size_t inp_beats, const void *kern, std::size_t kern_beats,
                               void *out, std::size_t out_beats, const int *beta) {
    return simulation::run([=] {
        simulation::open_port("inp", inp, inp_beats);
        simulation::open_port("kern", kern, kern_beats);
        simulation::open_port("out", out, out_beats);
        fpgpt_conv(static_cast<const inp_beat *>(inp), static_cast<const inp_beat *>(kern),
                   static_cast<out_beat *>(out), beta);
    });
}
