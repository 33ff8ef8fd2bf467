// Tiles of matrix products that are summed in registers: their sizes, types and inner functions; included by its files.

#ifndef REAL
#define REAL float  // element type: float, or double where the device has cl_khr_fp64
#endif
#ifndef TILE_M
#define TILE_M 6    // rows of a tile: 1 or more; TILE_M * VECTORS + VECTORS + 1 vector registers hold it
#endif
#ifndef VECTOR
#define VECTOR 8    // elements of a vector: 2, 4, 8 or 16
#endif
#ifndef VECTORS
#define VECTORS 2   // vectors in a row of a tile: 1 or more
#endif
#ifndef AVX512
#define AVX512 0    // 1: inner loops are compiled for x86-64 with AVX-512 (F, VL, DQ, BW), which the processor has
#endif
#ifndef APART
#define APART       // what else keeps an inner function out of the kernel: nothing, or __attribute__((noinline))
#endif

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
typedef REAL real;
typedef JOIN(REAL, VECTOR) vector;
typedef JOIN(REAL, 4) real4;
typedef vector loose __attribute__((aligned(sizeof(real))));
typedef real4 loose4 __attribute__((aligned(sizeof(real))));

// The target belongs on a function of its own: on the kernel it would hold for PoCL's work-item loops too.
#if AVX512
#define INNER __attribute__((noinline, target("avx512f,avx512vl,avx512dq,avx512bw"))) static
#else
#define INNER APART static
#endif
