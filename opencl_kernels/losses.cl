// Losses and their gradients.
//
// A loss is a sum of terms.  A work-item of a kernel ..._terms adds up `piece` terms and leaves their sum and how many
// of them count in partial(pieces, 2); `total` adds those up.  Every sum has one order.  Gradients are made piece by
// piece too.  functions.cl may come before.

#include "functions.cl"

#ifndef REAL
#define REAL float            // element type: float, or double where the device has cl_khr_fp64
#endif
#ifndef OWN_FUNCTIONS         // functions.cl says what these are
#define exponential exp
#define logarithm log
#endif
#ifndef SMALLEST
#define SMALLEST 1.17549435e-38f  // probabilities below count as this; above 0, Caffe's is FLT_MIN
#endif
#define LANES 16              // sums side by side, for vector loops and small rounding errors

// What a loss is divided by.
#define FULL 0        // all terms
#define VALID 1       // terms whose target is not ignored
#define BATCH_SIZE 2  // batch
#define NONE 3        // 1
#ifndef NORMALIZATION
#define NORMALIZATION VALID  // one of the four
#endif
#ifndef IGNORES
#define IGNORES 0     // 1: terms with the target `ignored` count nothing; 0: all count
#endif
#ifndef SQUARED
#define SQUARED 0     // 1: the hinge loss squares its margins (L2); 0: it does not (L1)
#endif

typedef REAL real;

// The work-item's part of `all` things.
#define FIND_PIECE                                                                      \
    if (get_global_id(0) >= items) return;                                              \
    const int begin = (int)get_global_id(0) * piece, end = all - begin < piece ? all : begin + piece;

static real largest(real a, real b) { return ((a > b) | (a != a)) ? a : b; }  // NaN comes through

static real sum_of(const real *lanes)
{
    real sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += lanes[lane];
    return sum;
}

static void leave(__global real *restrict partial, const real sum, const int valid)
{
    partial[2 * get_global_id(0)] = sum;
    partial[2 * get_global_id(0) + 1] = valid;
}

// loss = sum / normaliser, at least 1, so that nothing valid gives 0; both are kept.  One work-item, which carries
// along what rounding loses (Kahan).
__kernel void total(__global const real *restrict partial, __global real *restrict loss,
                    __global real *restrict normaliser, const int pieces, const int all, const int batch,
                    const uint items)
{
    if (get_global_id(0) >= items) return;
    real sum = 0, lost = 0;
    int valid = 0;
    for (int i = 0; i < pieces; i++) {
        const real term = partial[2 * i] - lost, next = sum + term;
        lost = (next - sum) - term;
        sum = next;
        valid += (int)partial[2 * i + 1];
    }
    const int count = NORMALIZATION == FULL ? all : NORMALIZATION == VALID ? valid
                    : NORMALIZATION == BATCH_SIZE ? batch : 1;
    const real by = count > 1 ? count : 1;
    normaliser[0] = by;
    loss[0] = sum / by;
}

// ---- cross entropy of probabilities p(outer, axis, inner) with labels(outer, inner) ---------------------------

// -log(probability of the label); a label that is no class makes NaN: a kernel cannot raise.
// Work-items: `piece` labels.
__kernel void entropy_terms(__global const real *restrict p, __global const real *restrict labels,
                            __global real *restrict partial, const int axis, const int inner, const int ignored,
                            const int piece, const int all, const uint items)
{
    FIND_PIECE
    real sum = 0, lost = 0;
    int valid = 0;
    for (int i = begin; i < end; i++) {
        const int label = (int)labels[i];
        if (IGNORES && label == ignored) continue;
        real term = NAN;
        if (label >= 0 && label < axis) {
            const real q = p[((size_t)(i / inner) * axis + label) * inner + i % inner];
            term = -logarithm(q < SMALLEST ? (real)SMALLEST : q);  // so written that NaN comes through
        }
        const real rest = term - lost, next = sum + rest;
        lost = (next - sum) - rest;
        sum = next;
        valid++;
    }
    leave(partial, sum, valid);
}

// dx = weight / normaliser * (p - one_hot(label)), 0 where the label is ignored.  Work-items: `piece` rows of x,
// which are (outer, axis) where inner is above 1, else outer.
__kernel void entropy_gradient(__global const real *restrict p, __global const real *restrict labels,
                               __global const real *restrict weight, __global const real *restrict normaliser,
                               __global real *restrict dx, const int axis, const int inner, const int ignored,
                               const int piece, const int all, const uint items)
{
    FIND_PIECE
    const real scale = weight[0] / normaliser[0];
    for (int row = begin; row < end; row++) {
        if (inner > 1) {
            __global const real *restrict from = p + (size_t)row * inner, *restrict label = labels + (size_t)(row / axis) * inner;
            __global real *restrict to = dx + (size_t)row * inner;
            const int class = row % axis;
            for (int i = 0; i < inner; i++) {
                const real gradient = scale * (from[i] - ((int)label[i] == class ? (real)1 : (real)0));
                to[i] = IGNORES && (int)label[i] == ignored ? (real)0 : gradient;
            }
        } else {
            __global const real *restrict from = p + (size_t)row * axis;
            __global real *restrict to = dx + (size_t)row * axis;
            const int label = (int)labels[row];
            const real by = IGNORES && label == ignored ? (real)0 : scale;
            for (int i = 0; i < axis; i++) to[i] = by * from[i];
            if (label >= 0 && label < axis) to[label] = by * (from[label] - 1);
        }
    }
}

// ---- half the squared distance -------------------------------------------------------------------------------

// (x - t)^2 / 2.  Work-items: `piece` elements.
__kernel void euclidean_terms(__global const real *restrict x, __global const real *restrict t,
                              __global real *restrict partial, const int piece, const int all, const uint items)
{
    FIND_PIECE
    real lanes[LANES];
    for (int lane = 0; lane < LANES; lane++) lanes[lane] = 0;
    int i = begin;
    for (; i + LANES <= end; i += LANES)
        for (int lane = 0; lane < LANES; lane++)
            lanes[lane] += (x[i + lane] - t[i + lane]) * (x[i + lane] - t[i + lane]);
    for (; i < end; i++) lanes[0] += (x[i] - t[i]) * (x[i] - t[i]);
    leave(partial, sum_of(lanes) / 2, end - begin);
}

// dx = weight / normaliser * (x - t).  Work-items: `piece` elements.
__kernel void euclidean_gradient(__global const real *restrict x, __global const real *restrict t,
                                 __global const real *restrict weight, __global const real *restrict normaliser,
                                 __global real *restrict dx, const int piece, const int all, const uint items)
{
    FIND_PIECE
    const real scale = weight[0] / normaliser[0];
    for (int i = begin; i < end; i++) dx[i] = scale * (x[i] - t[i]);
}

// ---- cross entropy of sigmoid(x) with targets in [0, 1] -------------------------------------------------------

// log(1 + e) for e in [0, 1], exact also where 1 + e rounds to 1: 2 artanh(e / (2 + e)), whose series is short.
static real log_of_one_and(const real e)
{
    if (sizeof(real) == 8) return log1p(e);
    const real u = e / (2 + e), z = u * u;
    real series = (real)1 / 15;
    series = series * z + (real)1 / 13;
    series = series * z + (real)1 / 11;
    series = series * z + (real)1 / 9;
    series = series * z + (real)1 / 7;
    series = series * z + (real)1 / 5;
    series = series * z + (real)1 / 3;
    return 2 * u * (series * z + 1);
}

// max(x, 0) - x t + log(1 + exp(-|x|)), 0 where ignored.
static real sigmoid_term(const real x, const real t, const int ignored)
{
    const real term = largest(x, 0) - x * t + log_of_one_and(exponential(x > 0 ? -x : x));
    return IGNORES && (int)t == ignored ? (real)0 : term;
}

// Work-items: `piece` elements.
__kernel void sigmoid_terms(__global const real *restrict x, __global const real *restrict t,
                            __global real *restrict partial, const int ignored, const int piece, const int all,
                            const uint items)
{
    FIND_PIECE
    real lanes[LANES];
    for (int lane = 0; lane < LANES; lane++) lanes[lane] = 0;
    int valid = 0, i = begin;
    for (; i + LANES <= end; i += LANES)
        for (int lane = 0; lane < LANES; lane++) lanes[lane] += sigmoid_term(x[i + lane], t[i + lane], ignored);
    for (; i < end; i++) lanes[0] += sigmoid_term(x[i], t[i], ignored);
    for (i = begin; i < end; i++) valid += !(IGNORES && (int)t[i] == ignored);
    leave(partial, sum_of(lanes), valid);
}

// dx = weight / normaliser * (sigmoid(x) - t), 0 where ignored.  Work-items: `piece` elements.
__kernel void sigmoid_gradient(__global const real *restrict x, __global const real *restrict t,
                               __global const real *restrict weight, __global const real *restrict normaliser,
                               __global real *restrict dx, const int ignored, const int piece, const int all,
                               const uint items)
{
    FIND_PIECE
    const real scale = weight[0] / normaliser[0];
    for (int i = begin; i < end; i++) {
        const real e = exponential(x[i] > 0 ? -x[i] : x[i]);
        const real gradient = scale * ((x[i] > 0 ? (real)1 : e) / (1 + e) - t[i]);
        dx[i] = IGNORES && (int)t[i] == ignored ? (real)0 : gradient;
    }
}

// ---- one-against-all hinge loss of scores x(all, axis) with labels(all) ----------------------------------------

// margins = max(0, 1 + x), or max(0, 1 - x) at the label; terms are margins, or their squares.  A label that is no
// class makes NaN.  Work-items: `piece` rows.
__kernel void hinge_terms(__global const real *restrict x, __global const real *restrict labels,
                          __global real *restrict margins, __global real *restrict partial, const int axis,
                          const int piece, const int all, const uint items)
{
    FIND_PIECE
    real lanes[LANES];
    for (int lane = 0; lane < LANES; lane++) lanes[lane] = 0;
    for (int row = begin; row < end; row++) {
        __global const real *restrict from = x + (size_t)row * axis;
        __global real *restrict to = margins + (size_t)row * axis;
        for (int i = 0; i < axis; i++) to[i] = largest(1 + from[i], 0);
        const int label = (int)labels[row];
        if (label >= 0 && label < axis)
            to[label] = largest(1 - from[label], 0);
        else
            lanes[0] = NAN;
        int i = 0;
        for (; i + LANES <= axis; i += LANES)
            for (int lane = 0; lane < LANES; lane++) lanes[lane] += SQUARED ? to[i + lane] * to[i + lane] : to[i + lane];
        for (; i < axis; i++) lanes[i % LANES] += SQUARED ? to[i] * to[i] : to[i];
    }
    leave(partial, sum_of(lanes), end - begin);
}

// The margins become weight / normaliser * the gradient with respect to x.  Work-items: `piece` rows.
__kernel void hinge_gradient(__global const real *restrict labels, __global const real *restrict weight,
                             __global const real *restrict normaliser, __global real *restrict margins,
                             const int axis, const int piece, const int all, const uint items)
{
    FIND_PIECE
    const real scale = weight[0] / normaliser[0];
    for (int row = begin; row < end; row++) {
        __global real *restrict to = margins + (size_t)row * axis;
        for (int i = 0; i < axis; i++) {
            const real margin = to[i];
            to[i] = scale * (SQUARED ? 2 * margin : margin > 0 ? (real)1 : margin);
        }
        const int label = (int)labels[row];
        if (label >= 0 && label < axis) to[label] = -to[label];
    }
}
