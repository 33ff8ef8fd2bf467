// The kernel against plain loops, bit for bit, in C-simulation.
#include <cstdio>

#include "../csim/bench.h"
#include "barista_gemm.h"

namespace {

// Entry (row, column) of tile (i, j) of C, its products in the order in which an element adds them up.
template <typename A, typename B>
host_sum_t expected(const A &a, const B &b, int i, int j, int row, int column, int np) {
    host_sum_t sums[PARTIAL_SUMS] = {};
    for (int k = 0; k < np * TP; k++)
        sums[k % PARTIAL_SUMS] = add(sums[k % PARTIAL_SUMS], product(a.get((std::size_t(i) * np * TP + k) * TR + row),
                                                                     b.get((std::size_t(j) * np * TP + k) * TC + column)));
    host_sum_t total = sums[0];
    for (int index = 1; index < PARTIAL_SUMS; index++) total = add(total, sums[index]);
    return total;
}

// How many entries of nr x nc tiles of C differ, along np tiles.
long differences(int nr, int nc, int np, std::mt19937 &random) {
    Buffer<host_word_t, a_beat> a(std::size_t(nr) * np * TP * TR);
    Buffer<host_word_t, b_beat> b(std::size_t(nc) * np * TP * TC);
    Buffer<host_sum_t, c_beat> c(std::size_t(nr) * nc * TR * TC);
    fill(a, random);
    fill(b, random);
    const int failed = simulation::run([&] {
        simulation::open_port("a", a.beats(), a.beat_count());
        simulation::open_port("b", b.beats(), b.beat_count());
        simulation::open_port("c", c.beats(), c.beat_count());
        barista_gemm(a.beats(), b.beats(), c.beats(), nr, nc, np);
    });
    if (failed) {
        std::printf("%d x %d tiles along %d: %s\n", nr, nc, np, simulation_message());
        return 1;
    }
    long wrong = 0;
    std::size_t index = 0;
    for (int i = 0; i < nr; i++)
        for (int j = 0; j < nc; j++)
            for (int row = 0; row < TR; row++)
                for (int column = 0; column < TC; column++, index++)
                    if (!is_same(c.get(index), expected(a, b, i, j, row, column, np))) wrong++;
    std::printf("%d x %d tiles along %d: %ld of %ld results differ\n", nr, nc, np, wrong, long(index));
    return wrong;
}

}  // namespace

int main() {
    std::mt19937 random(1);
    const int counts[][3] = {{1, 1, 1}, {2, 3, 2}, {1, 2, 5}, {3, 1, 1}};
    long wrong = 0;
    for (const auto &count : counts) wrong += differences(count[0], count[1], count[2], random);
    std::printf("%s\n", wrong ? "FAILED" : "PASSED");
    return wrong ? 1 : 0;
}
