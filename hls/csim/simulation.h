// What runs a kernel on the host: processes as coroutines, and counts of what they do. No part of the hardware.
#ifndef BARISTA_SIMULATION_H
#define BARISTA_SIMULATION_H

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

namespace simulation {

// ---- processes --------------------------------------------------------------------------------------------

struct Fiber;

// The processes of one region, which run until all have ended.
class Dataflow {
public:
    Dataflow();
    ~Dataflow();
    void add(const char *name, std::function<void()> body);
    // Throws Stuck where no process can go on; those that wait are unwound first.
    void run();

private:
    std::vector<std::unique_ptr<Fiber>> fibers_;
};

// Let others go on until `ready` holds. Outside of any Dataflow nobody else could make it true: that is an error.
void wait_until(const std::function<bool()> &ready, const char *what, const char *stream);

// ---- counts -----------------------------------------------------------------------------------------------

// The buffer behind a port, opened in the run that uses it: accesses beyond it end the run.
void open_port(const char *name, const void *buffer, std::size_t beats);
void count_read(const void *buffer, long beat);
void count_write(const void *buffer, long beat);
void on_chip(const char *name, std::size_t words);
void report_stream(const char *name, int depth, int most);

template <typename Array>
constexpr std::size_t words_of(const Array &array) {
    return sizeof(array) / sizeof(std::remove_all_extents_t<Array>);
}

// Run a kernel: 0, or 1 where it failed, which simulation_message() then explains.
int run(const std::function<void()> &kernel);

}  // namespace simulation

extern "C" {
// Why the last run failed.
const char *simulation_message();
// What the last run did, a line each: `on_chip NAME WORDS`, `stream NAME DEPTH MOST`, `port NAME READS WRITES` (beats).
const char *simulation_report();
// How often each beat of a port was read; NULL where there is no such port.
const unsigned *simulation_reads(const char *port, std::size_t *beats);
}

#endif
