#include "simulation.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <cstdint>
#include <exception>
#include <map>
#include <sstream>
#include <stdexcept>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace simulation {

namespace {

// Room for a process's memories: pages are taken when they are touched.
constexpr std::size_t STACK_BYTES = std::size_t(256) << 20;

struct Port {
    std::string name;
    const void *buffer = nullptr;
    std::vector<unsigned> reads;
    std::size_t writes = 0;
};

struct StreamUse {
    int depth = 0, most = 0;
};

struct Run {
    std::map<std::string, std::size_t> on_chip;
    std::map<std::string, StreamUse> streams;
    std::vector<Port> ports;
    std::string message, report;
};

Run current;
Fiber *running = nullptr;  // the process that runs now; none outside of Dataflow::run

// Unwinds a process that is given up.
struct GivenUp {};

// Tells the address sanitiser which stack is in use.
#if defined(__SANITIZE_ADDRESS__)
void leave(void **fake, const void *stack, std::size_t size) { __sanitizer_start_switch_fiber(fake, stack, size); }
void arrive(void *fake, const void **stack, std::size_t *size) { __sanitizer_finish_switch_fiber(fake, stack, size); }
#else
void leave(void **, const void *, std::size_t) {}
void arrive(void *, const void **, std::size_t *) {}
#endif

}  // namespace

struct Fiber {
    const char *name = "";
    std::function<void()> body;
    std::function<bool()> ready;  // what it waits for; empty where it can go on
    std::string waits_for;
    bool ended = false, give_up = false;
    std::exception_ptr error;
    void *stack = nullptr;
    ucontext_t here, caller;
    // The scheduler's stack, and fake stacks of both sides, for the sanitiser.
    const void *caller_stack = nullptr;
    std::size_t caller_bytes = 0;
    void *fake = nullptr, *caller_fake = nullptr;

    ~Fiber() {
        if (stack) munmap(stack, STACK_BYTES);
    }

    void start();
    void resume();
    void pause();
    void work();
};

namespace {

// makecontext passes ints, so the pointer goes in two halves.
void enter(unsigned high, unsigned low) {
    reinterpret_cast<Fiber *>((std::uintptr_t(high) << 32) | low)->work();
}

}  // namespace

void Fiber::start() {
    stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) {
        stack = nullptr;
        throw std::runtime_error("there is no address space for the stack of a process");
    }
    getcontext(&here);
    here.uc_stack.ss_sp = stack;
    here.uc_stack.ss_size = STACK_BYTES;
    here.uc_link = &caller;
    const auto address = reinterpret_cast<std::uintptr_t>(this);
    makecontext(&here, reinterpret_cast<void (*)()>(enter), 2, unsigned(address >> 32), unsigned(address));
}

void Fiber::resume() {
    Fiber *before = running;
    running = this;
    leave(&caller_fake, stack, STACK_BYTES);
    swapcontext(&caller, &here);
    arrive(caller_fake, nullptr, nullptr);
    running = before;
}

void Fiber::pause() {
    leave(&fake, caller_stack, caller_bytes);
    swapcontext(&here, &caller);
    arrive(fake, &caller_stack, &caller_bytes);
    if (give_up) throw GivenUp();
}

void Fiber::work() {
    arrive(nullptr, &caller_stack, &caller_bytes);
    try {
        if (!give_up) body();
    } catch (const GivenUp &) {
    } catch (...) {
        error = std::current_exception();
    }
    ended = true;
    leave(nullptr, caller_stack, caller_bytes);  // NULL: this stack is not used again
}

Dataflow::Dataflow() = default;
Dataflow::~Dataflow() = default;

void Dataflow::add(const char *name, std::function<void()> body) {
    std::unique_ptr<Fiber> fiber(new Fiber);
    fiber->name = name;
    fiber->body = std::move(body);
    fiber->start();
    fibers_.push_back(std::move(fiber));
}

void Dataflow::run() {
    std::exception_ptr error;
    for (;;) {
        bool waiting = false, moved = false;
        for (const auto &fiber : fibers_) {
            if (fiber->ended) continue;
            waiting = true;
            if (fiber->ready && !fiber->ready()) continue;
            fiber->ready = nullptr;
            fiber->resume();
            moved = true;
            if (fiber->error && !error) error = fiber->error;
        }
        if (!waiting || error) break;
        if (moved) continue;
        // A region inside another one's process: who could go on may be outside.
        std::ostringstream text;
        text << "the design stands still:";
        for (const auto &fiber : fibers_)
            if (!fiber->ended) text << " " << fiber->name << " waits " << fiber->waits_for << ";";
        text << " raise the depth of a stream";
        error = std::make_exception_ptr(std::runtime_error(text.str()));
        break;
    }
    for (const auto &fiber : fibers_) {
        if (fiber->ended) continue;
        fiber->give_up = true;
        fiber->ready = nullptr;
        fiber->resume();
    }
    fibers_.clear();
    if (error) std::rethrow_exception(error);
}

void wait_until(const std::function<bool()> &ready, const char *what, const char *stream) {
    if (ready()) return;
    const std::string waits_for = std::string(what) + " " + stream;
    if (!running) throw std::runtime_error("the kernel waits " + waits_for + ", and no process would ever come");
    Fiber *self = running;
    self->ready = ready;
    self->waits_for = waits_for;
    self->pause();
}

// ---- counts -----------------------------------------------------------------------------------------------

void open_port(const char *name, const void *buffer, std::size_t beats) {
    Port port;
    port.name = name;
    port.buffer = buffer;
    port.reads.assign(beats, 0);
    current.ports.push_back(port);
}

namespace {

// The port of a buffer; of the few that there are.
Port &port_of(const void *buffer, long beat, const char *what) {
    for (Port &port : current.ports) {
        if (port.buffer != buffer) continue;
        if (beat >= 0 && std::size_t(beat) < port.reads.size()) return port;
        std::ostringstream text;
        text << what << " of beat " << beat << " at port " << port.name << ", whose buffer has " << port.reads.size()
             << " beats";
        throw std::runtime_error(text.str());
    }
    throw std::runtime_error(std::string(what) + " at a port that is not open");
}

}  // namespace

void count_read(const void *buffer, long beat) { port_of(buffer, beat, "read").reads[std::size_t(beat)]++; }

void count_write(const void *buffer, long beat) { port_of(buffer, beat, "write").writes++; }

void on_chip(const char *name, std::size_t words) { current.on_chip[name] = words; }

void report_stream(const char *name, int depth, int most) {
    StreamUse &use = current.streams[name];
    use.depth = depth;
    if (most > use.most) use.most = most;
}

int run(const std::function<void()> &kernel) {
    current.on_chip.clear();
    current.streams.clear();
    current.ports.clear();
    current.message.clear();
    int failed = 0;
    try {
        kernel();
    } catch (const std::exception &error) {
        current.message = error.what();
        failed = 1;
    }
    std::ostringstream report;
    for (const auto &entry : current.on_chip) report << "on_chip " << entry.first << " " << entry.second << "\n";
    for (const auto &entry : current.streams)
        report << "stream " << entry.first << " " << entry.second.depth << " " << entry.second.most << "\n";
    for (const Port &port : current.ports) {
        std::size_t reads = 0;
        for (unsigned count : port.reads) reads += count;
        report << "port " << port.name << " " << reads << " " << port.writes << "\n";
    }
    current.report = report.str();
    return failed;
}

}  // namespace simulation

const char *simulation_message() { return simulation::current.message.c_str(); }

const char *simulation_report() { return simulation::current.report.c_str(); }

const unsigned *simulation_reads(const char *port, std::size_t *beats) {
    for (const simulation::Port &open : simulation::current.ports) {
        if (open.name != port) continue;
        *beats = open.reads.size();
        return open.reads.data();
    }
    return nullptr;
}
