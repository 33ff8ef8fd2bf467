// Sums over all elements, in pieces: partial sums that the caller adds up.

#ifndef REAL
#define REAL float  // element type: float, or double where the device has cl_khr_fp64
#endif
#ifndef LANES
#define LANES 64    // sums side by side, for vector loops and small rounding errors: 1 or more
#endif

typedef REAL real;

#define SQUARE(v) ((v) * (v))
#define MAGNITUDE(v) ((v) > 0 ? (v) : -(v))

// Work-items: pieces of `piece` elements each, the last may be shorter; partial has one sum for each, from `first` on.
#define REDUCE(name, f)                                                                                     \
    __kernel void name(__global const real *restrict x, __global real *restrict partial, const int first,   \
                       const int count, const int piece, const uint items)                                  \
    {                                                                                                       \
        const uint id = get_global_id(0);                                                                   \
        if (id >= items) return;                                                                            \
        const int begin = id * piece, end = count - begin < piece ? count : begin + piece;                  \
        real lanes[LANES];                                                                                  \
        for (int lane = 0; lane < LANES; lane++) lanes[lane] = 0;                                           \
        int i = begin;                                                                                      \
        for (; i + LANES <= end; i += LANES)                                                                \
            for (int lane = 0; lane < LANES; lane++) lanes[lane] += f(x[i + lane]);                         \
        for (int lane = 0; i < end; i++, lane++) lanes[lane] += f(x[i]);                                    \
        real sum = 0;                                                                                       \
        for (int lane = 0; lane < LANES; lane++) sum += lanes[lane];                                        \
        partial[first + id] = sum;                                                                          \
    }

REDUCE(sum_squares, SQUARE)
REDUCE(sum_absolute, MAGNITUDE)
