// Maximum and average pooling of x(N*C, H, W) to y(N*C, OH, OW).
//
// Windows are separable: of the rows that a row of windows sees, each column gives one number first, and only then do
// columns meet.  A line holds those numbers as a row of windows needs them, with what changes nothing at both ends, so
// that no window is a special case:
//
//    padding   columns of x   padding
//    |<-PW->|<-- at most W -->|      |
//
// Column j * SW + p of a line lies at [p][j], so that windows side by side find what they need side by side.
//
// A work-item makes `rows` rows of the result, whichever plane they belong to; where maxima go back it owns a plane,
// so that overlapping windows add up in one order and without atomics.

#ifndef REAL
#define REAL float  // element type: float, or double where the device has cl_khr_fp64
#endif
#ifndef INTEGER
#define INTEGER int // an integer of the size of REAL: int or long
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
#ifndef LANES
#define LANES 2     // elements of a vector: 2, 4 or 8, and no more than SEEN unless that is 1
#endif

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
typedef REAL real;
typedef INTEGER integer;
typedef JOIN(REAL, LANES) vector;
typedef JOIN(INTEGER, LANES) integers;
typedef vector loose __attribute__((aligned(sizeof(real))));
typedef integers loose_integers __attribute__((aligned(sizeof(real))));

// Taps are numbered row by row, kh * KW + kw.
#if KH * KW < 256
typedef uchar tap;
#else
typedef int tap;
#endif

#define UP(size) (((size) + LANES - 1) / LANES * LANES)
// Columns that a row of windows spans, and those of x among them.
#define SPAN ((OW - 1) * SW + KW)
#define SEEN (SPAN - PW < W ? SPAN - PW : W)
// A line in SW parts, whose vectors may end behind what is needed.
#define PART UP(UP(OW) + (KW - 1) / SW)
#define LINE (PART * SW)
#if KW <= 8
#define UNROLL _Pragma("unroll")
#else
#define UNROLL
#endif

// Vectors of a row of x; the last overlaps the one before, so that none ends behind the row.
#define FOR_SEEN(w) for (int i = 0, w = 0; i < SEEN; i += LANES, w = SEEN - i < LANES ? SEEN - LANES : i)
#if SEEN == 1
#define LOAD(row) ((vector)((row)[0]))
#define STORE(type, line, numbers) (line)[0] = (numbers).s0
#else
#define LOAD(row) (*(__global const loose *)(row))
#define STORE(type, line, numbers) *(type *)(line) = (numbers)
#endif

static int least(int a, int b) { return a < b ? a : b; }
static int most(int a, int b) { return a > b ? a : b; }

// where: the tap of each maximum, the first of equals.  Work-items: `rows` rows of y.
__kernel void max_forward(__global const real *restrict x, __global real *restrict y, __global tap *restrict where,
                          __global real *restrict mask,  // takes h * W + w of each maximum as a number, or null
                          const int rows, const int all, const uint items)
{
    if (get_global_id(0) >= items) return;
    const int begin = (int)get_global_id(0) * rows, end = least(begin + rows, all);
    // Of each column the maximum and its tap, were the column the window's first.
    real value[LINE], values[SW][PART], best_of[UP(OW)];
    integer number[LINE], numbers[SW][PART], tap_of[UP(OW)];
    for (int i = 0; i < LINE; i++) {
        value[i] = -INFINITY;
        number[i] = KH * KW;  // behind every tap
    }
    for (int r = begin; r < end; r++) {
        const int top = r % OH * SH - PH, h0 = most(top, 0), h1 = least(top + KH, H);
        __global const real *restrict row = x + ((size_t)(r / OH) * H + h0) * W;
        FOR_SEEN(w) {
            vector best = LOAD(row + w);
            integers at = (integers)((h0 - top) * KW);
            for (int h = 1; h < h1 - h0; h++) {
                const vector other = LOAD(row + h * W + w);
                const integers larger = (other > best) | (other != other);  // NaN comes through
                best = larger ? other : best;
                at = larger ? (integers)((h0 - top + h) * KW) : at;
            }
            STORE(loose, value + PW + w, best);
            STORE(loose_integers, number + PW + w, at);
        }
        for (int j = 0; j < PART; j++)
            for (int p = 0; p < SW; p++) {
                values[p][j] = value[j * SW + p];
                numbers[p][j] = number[j * SW + p];
            }
        for (int ow = 0; ow < OW; ow += LANES) {
            vector best = *(loose *)(values[0] + ow);
            integers at = *(loose_integers *)(numbers[0] + ow);
            UNROLL
            for (int kw = 1; kw < KW; kw++) {
                const vector other = *(loose *)(values[kw % SW] + ow + kw / SW);
                const integers other_at = *(loose_integers *)(numbers[kw % SW] + ow + kw / SW) + kw;
                // Of equals the one in a row above comes first.
                const integers larger = (other > best) | (other != other) | ((other == best) & (other_at < at));
                best = larger ? other : best;
                at = larger ? other_at : at;
            }
            *(loose *)(best_of + ow) = best;
            *(loose_integers *)(tap_of + ow) = at;
        }
        for (int ow = 0; ow < OW; ow++) y[(size_t)r * OW + ow] = best_of[ow];
        for (int ow = 0; ow < OW; ow++) where[(size_t)r * OW + ow] = (tap)tap_of[ow];
        if (mask)
            for (int ow = 0; ow < OW; ow++) {
                const int at = (int)tap_of[ow];
                mask[(size_t)r * OW + ow] = (top + at / KW) * W + ow * SW - PW + at % KW;
            }
    }
}

// Work-items: `planes` planes.
__kernel void max_backward(__global const real *restrict dy, __global const tap *restrict where,
                           __global real *restrict dx, const int planes, const int all, const uint items)
{
    if (get_global_id(0) >= items) return;
    const int begin = (int)get_global_id(0) * planes, end = least(begin + planes, all);
#if KH * KW < 256
    int offset[KH * KW];
    for (int i = 0; i < KH * KW; i++) offset[i] = i / KW * W + i % KW;
#define OFFSET(at) offset[at]
#else
#define OFFSET(at) ((at) / KW * W + (at) % KW)
#endif
    dy += (size_t)begin * (OH * OW);
    where += (size_t)begin * (OH * OW);
    dx += (size_t)begin * (H * W);
    for (int plane = begin; plane < end; plane++, dx += H * W) {
        for (int i = 0; i < H * W; i++) dx[i] = 0;
        for (int oh = 0; oh < OH; oh++, dy += OW, where += OW)
            for (int ow = 0; ow < OW; ow++)
                dx[(oh * SH - PH) * W + ow * SW - PW + OFFSET(where[ow])] += dy[ow];
    }
}

// Elements of the window that begins at `start`, clipped to the padded input but not to the input.
#define WINDOW_SIZE(start, k, size, p) (least((start) + (k), (size) + (p)) - (start))
#define HEIGHT(oh) WINDOW_SIZE((oh) * SH - PH, KH, H, PH)
#define WIDTH(ow) WINDOW_SIZE((ow) * SW - PW, KW, W, PW)

// Work-items: `rows` rows of y.
__kernel void average_forward(__global const real *restrict x, __global real *restrict y, const int rows,
                              const int all, const uint items)
{
    if (get_global_id(0) >= items) return;
    const int begin = (int)get_global_id(0) * rows, end = least(begin + rows, all);
    real sum[LINE], sums[SW][PART], sum_of[UP(OW)], share[OW];
    for (int i = 0; i < LINE; i++) sum[i] = 0;
    for (int ow = 0; ow < OW; ow++) share[ow] = (real)1 / WIDTH(ow);
    for (int r = begin; r < end; r++) {
        const int top = r % OH * SH - PH, h0 = most(top, 0), h1 = least(top + KH, H);
        __global const real *restrict row = x + ((size_t)(r / OH) * H + h0) * W;
        FOR_SEEN(w) {
            vector total = LOAD(row + w);
            for (int h = 1; h < h1 - h0; h++) total += LOAD(row + h * W + w);
            STORE(loose, sum + PW + w, total);
        }
        for (int j = 0; j < PART; j++)
            for (int p = 0; p < SW; p++) sums[p][j] = sum[j * SW + p];
        for (int ow = 0; ow < OW; ow += LANES) {
            vector total = *(loose *)(sums[0] + ow);
            UNROLL
            for (int kw = 1; kw < KW; kw++) total += *(loose *)(sums[kw % SW] + ow + kw / SW);
            *(loose *)(sum_of + ow) = total;
        }
        const real by_height = (real)1 / HEIGHT(r % OH);
        for (int ow = 0; ow < OW; ow++) y[(size_t)r * OW + ow] = sum_of[ow] * (share[ow] * by_height);
    }
}

// Work-items: `rows` rows of dx.
#define BEFORE ((KW - 1) / SW)                 // windows that see a column and begin in strides before
#define STRIDES UP((W + PW + SW - 1) / SW)     // of a row of dx
#define AFTER (STRIDES > OW ? STRIDES - OW : 0)
__kernel void average_backward(__global const real *restrict dy, __global real *restrict dx, const int rows,
                               const int all, const uint items)
{
    if (get_global_id(0) >= items) return;
    const int begin = (int)get_global_id(0) * rows, end = least(begin + rows, all);
    real share[OW], part[BEFORE + OW + AFTER], parts[SW][STRIDES], line[STRIDES * SW];
    for (int ow = 0; ow < OW; ow++) share[ow] = (real)1 / WIDTH(ow);
    for (int i = 0; i < BEFORE + OW + AFTER; i++) part[i] = 0;
    for (int r = begin; r < end; r++) {
        // The rows of windows that see this row of x.
        const int h = r % H, o0 = h + PH < KH ? 0 : (h + PH - KH) / SH + 1, o1 = least((h + PH) / SH, OH - 1);
        for (int ow = 0; ow < OW; ow++) part[BEFORE + ow] = 0;
        for (int oh = o0; oh <= o1; oh++) {
            __global const real *restrict from = dy + ((size_t)(r / H) * OH + oh) * OW;
            const real by_height = (real)1 / HEIGHT(oh);
            for (int ow = 0; ow < OW; ow++) part[BEFORE + ow] += from[ow] * (share[ow] * by_height);
        }
        __global real *restrict to = dx + (size_t)r * W;
#if OW == 1
        for (int w = 0; w < W; w++) to[w] = w + PW < KW ? part[BEFORE] : 0;
#else
        UNROLL
        for (int p = 0; p < SW; p++)
            for (int j = 0; j < STRIDES; j += LANES) {
                vector total = 0;
                UNROLL
                for (int kw = p; kw < KW; kw += SW) total += *(loose *)(part + BEFORE + j - kw / SW);
                *(loose *)(parts[p] + j) = total;
            }
        for (int j = 0; j < STRIDES; j++)
            for (int p = 0; p < SW; p++) line[j * SW + p] = parts[p][j];
        for (int w = 0; w < W; w++) to[w] = line[w + PW];
#endif
    }
}
