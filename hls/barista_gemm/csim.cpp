// The kernel as a library that a host program loads: buffers of whole tiles, one run at a time.
#include "barista_gemm.h"

// 0, or 1 where the run failed, see simulation_message().
extern "C" int barista_gemm_csim(const void *a, const void *b, void *c, int nr, int nc, int np) {
    return simulation::run([=] {
        simulation::open_port("a", a, std::size_t(nr) * np * Layout<OperandA>::TILE_BEATS);
        simulation::open_port("b", b, std::size_t(nc) * np * Layout<OperandB>::TILE_BEATS);
        simulation::open_port("c", c, std::size_t(nr) * nc * TR * TC / C_BEAT_WORDS);
        barista_gemm(static_cast<const a_beat *>(a), static_cast<const b_beat *>(b), static_cast<c_beat *>(c), nr, nc, np);
    });
}
