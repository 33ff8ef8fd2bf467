// An element-wise program: the same STATEMENTS on element after element of the tensors of one or more sets.
//
// A set is what the program needs once: one array for each of its tensors, and their count.  The work of all
// sets lies side by side in one range, block by block:
//
//   set 0: | BLOCK | BLOCK | re- |  set 1: | rest |  set 2: | BLOCK | rest |       a block: LANES work-items,
//          0       1       2               3                4       5              RUN elements of each
//
// On a CPU device a block is one work-item with a long run, a vector loop; elsewhere each work-item has one element.
//
// Tensors may lie on one memory, hence no restrict.  Still the elements are independent: all of an element
// is read before any of it is written, and no other element sees it.
//
// max, min, abs and sign stand here because the builtins of the same meaning are function calls on some CPU
// platforms, which keeps the compiler from making vector loops.

#include "functions.cl"

#ifndef REAL
#define REAL float  // element type: float, or double where the device has cl_khr_fp64
#endif
#ifndef RUN
#define RUN 1       // elements of one work-item: 1 or more
#endif
#ifndef LANES
#define LANES 256   // work-items of a block: 1 or more
#endif
#ifndef AVX512
#define AVX512 0    // 1: the loop is compiled for x86-64 with AVX-512 (F, VL, DQ, BW), which the processor must have
#endif

#ifndef SETS        // what follows is made from a program, here y = s * x
#define SETS 1                                                           // sets: 1 or more
#define ARGUMENTS __global const real *a_x_0, __global real *a_y_0, const int count_0, const real s_s  // of all sets
#define TABLES const int counts[] = {count_0}; \
    __global const real *const all_x[] = {a_x_0}; __global real *const all_y[] = {a_y_0};  // the same, set by set
#define PARAMETERS __global const real *at_x, __global real *at_y, const real s_s         // of one set
#define CHOSEN all_x[set], all_y[set], s_s                                               // those of set number `set`
#define STATEMENTS real t_x = at_x[i]; real t_y; t_y = s_s * t_x; at_y[i] = t_y;          // on element i of one set
#endif

typedef REAL real;

#define BLOCK (RUN * LANES)
#define BLOCKS(count) ((count) / BLOCK + ((count) % BLOCK != 0))

// The target belongs on a function of its own: on the kernel it would hold for PoCL's work-item loops too.
#if AVX512
#define INNER __attribute__((noinline, target("avx512f,avx512vl,avx512dq,avx512bw"))) static
#else
#define INNER static
#endif

// NaN comes through, as in NumPy.
static real larger(real a, real b) { return ((a > b) | (a != a)) ? a : b; }
static real smaller(real a, real b) { return ((a < b) | (a != a)) ? a : b; }
static real magnitude(real a) { return a > 0 ? a : (real)0 - a; }
static real signum(real a) { return a > 0 ? (real)1 : a < 0 ? (real)-1 : a; }

INNER void run(PARAMETERS, const int begin, const int end)
{
#ifdef __clang__
#pragma clang loop vectorize(assume_safety)
#endif
    for (int i = begin; i < end; i++) {
        STATEMENTS
    }
}

__kernel void elementwise(ARGUMENTS, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    TABLES
    int block = id / LANES, set = 0;
    for (; block >= BLOCKS(counts[set]); set++) block -= BLOCKS(counts[set]);
    const int count = counts[set];
    const int begin = block * BLOCK + (int)(id % LANES) * RUN;
    if (begin >= count) return;
    run(CHOSEN, begin, count - begin < RUN ? count : begin + RUN);
}
