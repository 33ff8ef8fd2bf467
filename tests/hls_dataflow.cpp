// Little designs that go wrong on purpose, and their like that do not: what C-simulation has to tell apart.
#include "../hls/common/dataflow.h"
#include "../hls/common/on_chip.h"
#include "../hls/common/port.h"

namespace {

constexpr int WORDS = 4;

// All words to the left, then all to the right: who takes them in turns needs a left stream of WORDS - 1 entries.
template <int DEPTH>
void split(Stream<int, DEPTH> &left, Stream<int, DEPTH> &right) {
    for (int word = 0; word < WORDS; word++) left.write(word);
    for (int word = 0; word < WORDS; word++) right.write(10 * word);
}

template <int DEPTH>
void join(Stream<int, DEPTH> &left, Stream<int, DEPTH> &right, ap_uint<32> *port) {
    for (int word = 0; word < WORDS; word++) {
        const int first = left.read();
        write_beat(port, word, ap_uint<32>(first + right.read()));
    }
}

template <int DEPTH>
void add(ap_uint<32> *port) {
    Stream<int, DEPTH> left, right;
    NAME_STREAM(left)
    NAME_STREAM(right)
    DATAFLOW_BEGIN
    PROCESS(split<DEPTH>, left, right)
    PROCESS(join<DEPTH>, left, right, port)
    DATAFLOW_END
}

template <int DEPTH>
int simulate_add(void *port) {
    return simulation::run([=] {
        simulation::open_port("sums", port, WORDS);
        add<DEPTH>(static_cast<ap_uint<32> *>(port));
    });
}

}  // namespace

extern "C" {

int deep_csim(void *port) { return simulate_add<WORDS - 1>(port); }

int shallow_csim(void *port) { return simulate_add<WORDS - 2>(port); }

// A stream from which somebody reads that nobody fills, outside of any region.
int alone_csim() {
    return simulation::run([] {
        Stream<int, 1> empty;
        NAME_STREAM(empty)
        empty.read();
    });
}

// Reads beat `beat`, and writes it to the same place of a copy; the buffers hold `beats`.
int copy_csim(const void *from, void *to, int beats, int read, int write) {
    return simulation::run([=] {
        ap_uint<32> memory[3][5];
        ON_CHIP("memory", memory, 2)
        simulation::open_port("from", from, std::size_t(beats));
        simulation::open_port("to", to, std::size_t(beats));
        memory[0][0] = read_beat(static_cast<const ap_uint<32> *>(from), read);
        write_beat(static_cast<ap_uint<32> *>(to), write, memory[0][0]);
    });
}

// A port that no run opened.
int closed_csim(const void *from) {
    return simulation::run([=] { read_beat(static_cast<const ap_uint<32> *>(from), 0); });
}

}
