// What test benches share: buffers of exactly the beats behind a port, and numbers of both signs.
#ifndef BARISTA_BENCH_H
#define BARISTA_BENCH_H

#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <type_traits>

#include "../common/number.h"

#if PRECISION == 32
typedef float host_word_t;  // as memory holds words
typedef float host_sum_t;   // as memory holds results
#else
typedef std::conditional<STORED_BITS == 8, std::int8_t, std::int16_t>::type host_word_t;
typedef std::int32_t host_sum_t;
#endif

// Words in whole beats. A buffer of its own size on the heap, so that a sanitiser sees what reaches beyond it.
template <typename Word, typename Beat>
class Buffer {
public:
    explicit Buffer(std::size_t words)
        : words_(words), beats_((words * sizeof(Word) + sizeof(Beat) - 1) / sizeof(Beat)), memory_(new Beat[beats_]) {
        std::memset(static_cast<void *>(memory_.get()), 0, beats_ * sizeof(Beat));
    }
    Beat *beats() const { return memory_.get(); }
    std::size_t beat_count() const { return beats_; }
    std::size_t words() const { return words_; }
    Word get(std::size_t index) const {
        Word word;
        std::memcpy(&word, bytes() + index * sizeof(Word), sizeof(Word));
        return word;
    }
    void set(std::size_t index, Word word) { std::memcpy(bytes() + index * sizeof(Word), &word, sizeof(Word)); }

private:
    char *bytes() const { return reinterpret_cast<char *>(memory_.get()); }

    std::size_t words_, beats_;
    std::unique_ptr<Beat[]> memory_;
};

// Fill a buffer with numbers of both signs, over the whole range of a fixed-point word; every tenth is zero.
template <typename Word, typename Beat>
void fill(Buffer<Word, Beat> &buffer, std::mt19937 &random) {
#if PRECISION == 32
    std::uniform_real_distribution<float> number(-2.0f, 2.0f);
#else
    std::uniform_int_distribution<int> number(-(1 << (PRECISION - 1)), (1 << (PRECISION - 1)) - 1);
#endif
    for (std::size_t index = 0; index < buffer.words(); index++)
        buffer.set(index, index % 10 == 3 ? Word(0) : Word(number(random)));
}

// As the array adds up: floats as they are, integers wrapping around.
inline host_sum_t add(host_sum_t sum, host_sum_t term) {
#if PRECISION == 32
    return sum + term;
#else
    return host_sum_t(std::uint32_t(sum) + std::uint32_t(term));
#endif
}

inline host_sum_t product(host_word_t a, host_word_t b) {
    return host_sum_t(a) * host_sum_t(b);
}

// Whether two results are the same bits.
inline bool is_same(host_sum_t a, host_sum_t b) { return std::memcmp(&a, &b, sizeof a) == 0; }

#endif
