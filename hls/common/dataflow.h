// Processes that run at once, coupled by streams of a fixed depth.
//
//     DATAFLOW_BEGIN                    in synthesis: `#pragma HLS DATAFLOW` stands above, and the calls are plain calls
//     PROCESS(read, port, beats, n)     read(port, beats, n)
//     PROCESS(compute, beats, sums, n)
//     DATAFLOW_END
//
// In C-simulation each process is a coroutine and a stream has its declared depth: a process that reads from an empty
// stream or writes to a full one waits while others go on. Where all wait, the hardware would stand still for good; the
// simulation says so, and who waits for what. It runs on one core in a fixed order, so every run is the same.
#ifndef BARISTA_DATAFLOW_H
#define BARISTA_DATAFLOW_H

#include <hls_stream.h>

#ifdef __SYNTHESIS__

template <typename T, int DEPTH>
using Stream = hls::stream<T, DEPTH>;

#define DATAFLOW_BEGIN
#define PROCESS(function, ...) function(__VA_ARGS__);
#define DATAFLOW_END
#define NAME_STREAM(stream)

#else

#include "../csim/simulation.h"

// hls::stream as the open headers have it never fills; here it holds DEPTH entries, as in hardware.
template <typename T, int DEPTH>
class Stream {
    static_assert(DEPTH >= 1, "a stream holds at least one entry");

public:
    Stream() = default;
    Stream(const Stream &) = delete;
    Stream &operator=(const Stream &) = delete;

    // A run that was given up leaves entries behind, of which hls::stream would complain.
    ~Stream() {
        while (!entries_.empty()) entries_.read();
        simulation::report_stream(name_, DEPTH, most_);
    }

    void name(const char *name) { name_ = name; }

    T read() {
        if (entries_.empty()) simulation::wait_until([this] { return !entries_.empty(); }, "to read from", name_);
        return entries_.read();
    }

    void write(const T &entry) {
        if (held() == DEPTH) simulation::wait_until([this] { return held() < DEPTH; }, "to write to", name_);
        entries_.write(entry);
        if (held() > most_) most_ = held();
    }

private:
    int held() { return int(entries_.size()); }

    hls::stream<T> entries_{"stream"};
    const char *name_ = "a stream";
    int most_ = 0;
};

#define DATAFLOW_BEGIN simulation::Dataflow dataflow_;
#define PROCESS(function, ...) dataflow_.add(#function, [&] { function(__VA_ARGS__); });
#define DATAFLOW_END dataflow_.run();
#define NAME_STREAM(stream) stream.name(#stream);

#endif

#endif
