// Softmax over the axis of x(outer, axis, inner), and the cross entropy of its result with integer labels.
//
// A column is one (outer, inner): `axis` elements, `inner` apart.  Work-items are columns where not said
// otherwise.

#ifndef REAL
#define REAL float            // element type: float, or double where the device has cl_khr_fp64
#endif
#ifndef SMALLEST
#define SMALLEST 1.17549435e-38f  // probabilities below count as this; above 0, Caffe's is FLT_MIN
#endif

typedef REAL real;

// What a loss is divided by.
#define FULL 0        // columns
#define VALID 1       // columns whose label is not ignored
#define BATCH_SIZE 2  // outer
#define NONE 3        // 1
#ifndef NORMALIZATION
#define NORMALIZATION VALID  // one of the four
#endif
#ifndef IGNORES
#define IGNORES 0     // 1: columns with the label ignore_label count nothing; 0: every label is a class
#endif

#define COLUMN(id) ((size_t)((id) / inner) * axis * inner + (id) % inner)

// y = exp(x - max) / sum, in place too.
__kernel void softmax_forward(__global const real *x, __global real *y, const int axis, const int inner,
                              const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    x += COLUMN(id);
    y += COLUMN(id);
    real largest = x[0];
    for (int i = 1; i < axis; i++) largest = x[i * inner] > largest ? x[i * inner] : largest;
    real sum = 0;
    for (int i = 0; i < axis; i++) {
        const real e = exp(x[i * inner] - largest);
        y[i * inner] = e;
        sum += e;
    }
    for (int i = 0; i < axis; i++) y[i * inner] = y[i * inner] / sum;
}

// dx = y * (dy - sum(dy * y)), in place too.
__kernel void softmax_backward(__global const real *restrict y, __global const real *dy, __global real *dx,
                               const int axis, const int inner, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    y += COLUMN(id);
    dy += COLUMN(id);
    dx += COLUMN(id);
    real dot = 0;
    for (int i = 0; i < axis; i++) dot += dy[i * inner] * y[i * inner];
    for (int i = 0; i < axis; i++) dx[i * inner] = y[i * inner] * (dy[i * inner] - dot);
}

// terms = -log(probability of the label); a label that is no class makes NaN: a kernel cannot raise.
__kernel void entropy_terms(__global const real *restrict p, __global const real *restrict labels,
                            __global real *restrict terms, const int axis, const int inner, const int ignore_label,
                            const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int label = (int)labels[id];
    if (IGNORES && label == ignore_label) {
        terms[id] = 0;
    } else if (label < 0 || label >= axis) {
        terms[id] = NAN;
    } else {
        const real q = p[COLUMN(id) + (size_t)label * inner];
        // So written that NaN comes through.
        terms[id] = -log(q < SMALLEST ? (real)SMALLEST : q);
    }
}

// loss = sum of terms / normaliser; both are kept.  One work-item: the sum has one order, and carries what
// rounding loses along (Kahan), as there may be millions of terms.
__kernel void entropy_total(__global const real *restrict terms, __global const real *restrict labels,
                            __global real *restrict loss, __global real *restrict normaliser, const int columns,
                            const int outer, const int ignore_label, const uint items)
{
    if (get_global_id(0) >= items) return;
    real sum = 0, lost = 0;
    int valid = 0;
    for (int i = 0; i < columns; i++) {
        const real term = terms[i] - lost, next = sum + term;
        lost = (next - sum) - term;
        sum = next;
        valid += !(IGNORES && (int)labels[i] == ignore_label);
    }
    const int count = NORMALIZATION == FULL ? columns : NORMALIZATION == VALID ? valid
                    : NORMALIZATION == BATCH_SIZE ? outer : 1;
    // Nothing valid gives a loss of 0.
    const real by = count > 1 ? count : 1;
    normaliser[0] = by;
    loss[0] = sum / by;
}

// dx = weight / normaliser * (p - one_hot(label)), 0 where the label is ignored.
__kernel void entropy_backward(__global const real *restrict p, __global const real *restrict labels,
                               __global const real *restrict weight, __global const real *restrict normaliser,
                               __global real *restrict dx, const int axis, const int inner, const int ignore_label,
                               const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int label = (int)labels[id];
    const real scale = IGNORES && label == ignore_label ? (real)0 : weight[0] / normaliser[0];
    const size_t column = COLUMN(id);
    for (int i = 0; i < axis; i++)
        dx[column + (size_t)i * inner] = scale * (p[column + (size_t)i * inner] - (real)(i == label));
}
