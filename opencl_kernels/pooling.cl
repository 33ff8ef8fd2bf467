// Maximum and average pooling of x(N*C, H, W) to y(N*C, OH, OW).
//
// Forward a work-item makes one element of y; backward it owns a plane of x, so that overlapping windows add
// up in one order and without atomics.

#ifndef REAL
#define REAL float  // element type: float, or double where the device has cl_khr_fp64
#endif
#ifndef H           // sizes of the input: 1 or more
#define H 1
#define W 1
#endif
#ifndef OH          // sizes of the output: 1 or more
#define OH 1
#define OW 1
#endif
#ifndef KH          // sizes of the window: 1 or more
#define KH 1
#define KW 1
#endif
#ifndef SH          // strides: 1 or more
#define SH 1
#define SW 1
#endif
#ifndef PH          // padding before and behind: 0 to the window's size - 1
#define PH 0
#define PW 0
#endif

typedef REAL real;

static int least(int a, int b) { return a < b ? a : b; }
static int most(int a, int b) { return a > b ? a : b; }

// Work-items: elements of y.  where: h*W + w of the first maximum of each window.
__kernel void max_forward(__global const real *restrict x, __global real *restrict y, __global int *restrict where,
                          __global real *restrict mask,  // takes `where` as numbers, or null
                          const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int top = (int)(id / OW % OH) * SH - PH, left = (int)(id % OW) * SW - PW;
    const int h0 = most(top, 0), w0 = most(left, 0), h1 = least(top + KH, H), w1 = least(left + KW, W);
    __global const real *restrict plane = x + (size_t)(id / (OH * OW)) * (H * W);
    int best = h0 * W + w0;
    real value = plane[best];
    for (int h = h0; h < h1; h++)
        for (int w = w0; w < w1; w++) {
            const real other = plane[h * W + w];
            const int larger = (other > value) | (other != other);  // NaN comes through
            best = larger ? h * W + w : best;
            value = larger ? other : value;
        }
    y[id] = value;
    where[id] = best;
    if (mask) mask[id] = best;
}

// Work-items: planes.
__kernel void max_backward(__global const real *restrict dy, __global const int *restrict where,
                           __global real *restrict dx, const uint items)
{
    const uint plane = get_global_id(0);
    if (plane >= items) return;
    dy += (size_t)plane * (OH * OW);
    where += (size_t)plane * (OH * OW);
    dx += (size_t)plane * (H * W);
    for (int i = 0; i < H * W; i++) dx[i] = 0;
    for (int o = 0; o < OH * OW; o++) dx[where[o]] += dy[o];
}

// Elements of the window that begins at `start`, clipped to the padded input but not to the input.
#define WINDOW_SIZE(start, k, size, p) (least((start) + (k), (size) + (p)) - (start))

// Work-items: elements of y.
__kernel void average_forward(__global const real *restrict x, __global real *restrict y, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int top = (int)(id / OW % OH) * SH - PH, left = (int)(id % OW) * SW - PW;
    const int h0 = most(top, 0), w0 = most(left, 0), h1 = least(top + KH, H), w1 = least(left + KW, W);
    __global const real *restrict plane = x + (size_t)(id / (OH * OW)) * (H * W);
    real sum = 0;
    for (int h = h0; h < h1; h++)
        for (int w = w0; w < w1; w++) sum += plane[h * W + w];
    y[id] = sum / (WINDOW_SIZE(top, KH, H, PH) * WINDOW_SIZE(left, KW, W, PW));
}

// Work-items: planes.
__kernel void average_backward(__global const real *restrict dy, __global real *restrict dx, const uint items)
{
    const uint plane = get_global_id(0);
    if (plane >= items) return;
    dy += (size_t)plane * (OH * OW);
    dx += (size_t)plane * (H * W);
    for (int i = 0; i < H * W; i++) dx[i] = 0;
    for (int oh = 0; oh < OH; oh++)
        for (int ow = 0; ow < OW; ow++) {
            const int top = oh * SH - PH, left = ow * SW - PW;
            const int h0 = most(top, 0), w0 = most(left, 0), h1 = least(top + KH, H), w1 = least(left + KW, W);
            const real share = dy[oh * OW + ow] / (WINDOW_SIZE(top, KH, H, PH) * WINDOW_SIZE(left, KW, W, PW));
            for (int h = h0; h < h1; h++)
                for (int w = w0; w < w1; w++) dx[h * W + w] += share;
        }
}
