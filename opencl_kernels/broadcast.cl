// A vector v(AXIS) against x(outer, AXIS, INNER).

#ifndef REAL
#define REAL float  // element type: float, or double where the device has cl_khr_fp64
#endif
#ifndef AXIS
#define AXIS 1      // elements of the vector: 1 or more
#endif
#ifndef INNER
#define INNER 1     // elements of x that share one element of the vector: 1 or more
#endif

typedef REAL real;

// y = x + v, in place too.  Work-items: elements of x.
__kernel void add(__global const real *x, __global const real *restrict v, __global real *y, const uint items)
{
    const uint id = get_global_id(0);
    if (id < items) y[id] = x[id] + v[id / INNER % AXIS];
}

// y = x * v + bias, in place too; bias a vector or null.  Work-items: elements of x.
__kernel void multiply(__global const real *x, __global const real *restrict v, __global const real *restrict bias,
                       __global real *y, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const uint at = id / INNER % AXIS;
    y[id] = x[id] * v[at] + (bias ? bias[at] : (real)0);
}

// partial(outer, AXIS) = sums over INNER of dy, or of dy * x where x is not null.
// Work-items: (outer, AXIS).  LANES sums side by side make it a vector loop, and keep rounding small.
#ifndef LANES
#define LANES 16    // 1 or more
#endif
__kernel void sum_inner(__global const real *restrict dy, __global const real *restrict x,
                        __global real *restrict partial, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    dy += (size_t)id * INNER;
    real lanes[LANES];
    for (int lane = 0; lane < LANES; lane++) lanes[lane] = 0;
    if (x) {
        x += (size_t)id * INNER;
        for (int i = 0; i + LANES <= INNER; i += LANES)
            for (int lane = 0; lane < LANES; lane++) lanes[lane] += dy[i + lane] * x[i + lane];
        for (int i = INNER / LANES * LANES; i < INNER; i++) lanes[i % LANES] += dy[i] * x[i];
    } else {
        for (int i = 0; i + LANES <= INNER; i += LANES)
            for (int lane = 0; lane < LANES; lane++) lanes[lane] += dy[i + lane];
        for (int i = INNER / LANES * LANES; i < INNER; i++) lanes[i % LANES] += dy[i];
    }
    real sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += lanes[lane];
    partial[id] = sum;
}

// v (+)= sums over outer of dy(outer, AXIS), or of dy * x where x is not null.  Work-items: AXIS.
__kernel void sum_outer(__global const real *restrict dy, __global const real *restrict x, __global real *restrict v,
                        const int outer, const int accumulate, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    real sum = 0;
    for (int o = 0; o < outer; o++) {
        const size_t at = (size_t)o * AXIS + id;
        sum += x ? dy[at] * x[at] : dy[at];
    }
    v[id] = accumulate ? v[id] + sum : sum;
}
