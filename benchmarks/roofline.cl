// The limits of a device: multiply-adds that wait for nothing, and a copy that does nothing else.

#ifndef VECTOR
#define VECTOR 8   // elements of a vector: 4, 8 or 16
#endif
#ifndef SUMS
#define SUMS 12    // sums side by side, to hide the latency of one: 1 or more
#endif
#ifndef AVX512
#define AVX512 0   // 1: compiled for x86-64 with AVX-512, which the processor must have
#endif

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
typedef JOIN(float, VECTOR) vector;

#if AVX512
#define INNER __attribute__((noinline, target("avx512f,avx512vl,avx512dq,avx512bw"))) static
#else
#define INNER static
#endif

INNER void multiply_adds(__global float *result, const float start, const int rounds)
{
    vector sum[SUMS];
#pragma unroll
    for (int i = 0; i < SUMS; i++) sum[i] = (vector)(start + i);
    const vector factor = (vector)(start + 0.999f), term = (vector)(start);
    for (int round = 0; round < rounds; round++)
#pragma unroll
        for (int i = 0; i < SUMS; i++) sum[i] = sum[i] * factor + term;
    vector total = sum[0];
#pragma unroll
    for (int i = 1; i < SUMS; i++) total += sum[i];
    float lanes = 0;
    for (int lane = 0; lane < VECTOR; lane++) lanes += ((float *)&total)[lane];
    *result = lanes;
}

// Work-items: each makes rounds * SUMS * VECTOR multiply-adds and keeps one number.
__kernel void peak(__global float *result, const float start, const int rounds, const uint items)
{
    const uint id = get_global_id(0);
    if (id < items) multiply_adds(result + id, start, rounds);
}

#ifndef STREAMED
#define STREAMED 0 // 1: stores go past the caches, which then need not read what they will overwrite
#endif

// Work-items: runs of `count` elements, a multiple of VECTOR.
__kernel void copy(__global const float *restrict from, __global float *restrict to, const int count, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    from += (size_t)id * count;
    to += (size_t)id * count;
    for (int i = 0; i < count; i += VECTOR) {
        const vector value = *(__global const vector *)(from + i);
#if STREAMED
        __builtin_nontemporal_store(value, (__global vector *)(to + i));
#else
        *(__global vector *)(to + i) = value;
#endif
    }
}
