// Accuracy of scores x(outer, axis, inner) for labels(outer, inner).
//
// First a verdict on each label, then two ways of counting them.

#ifndef REAL
#define REAL float   // element type: float, or double where the device has cl_khr_fp64
#endif
#ifndef IGNORES
#define IGNORES 0    // 1: labels that are `ignored` count nothing; 0: every label is a class
#endif
#ifndef BLOCK
#define BLOCK 64     // labels side by side in a work-item: 1 or more
#endif

typedef REAL real;

// Verdicts.  That of a label that is no class is not a number: a kernel cannot raise.
#define RIGHT 1
#define WRONG 0
#define IGNORED (-1)

// A label is right while fewer than top_k other classes score at least as high (Caffe).
// Work-items: blocks along inner, for each outer.
__kernel void verdicts(__global const real *restrict x, __global const real *restrict labels,
                       __global real *restrict verdict, const int axis, const int inner, const int top_k,
                       const int ignored, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int blocks = (inner + BLOCK - 1) / BLOCK, outer = id / blocks, c0 = (int)(id % blocks) * BLOCK;
    const int count = inner - c0 < BLOCK ? inner - c0 : BLOCK;
    x += (size_t)outer * axis * inner + c0;
    labels += (size_t)outer * inner + c0;
    verdict += (size_t)outer * inner + c0;
    real wanted[BLOCK];
    int as_high[BLOCK];  // other classes
    for (int c = 0; c < count; c++) {
        const int label = (int)labels[c];
        wanted[c] = label >= 0 && label < axis ? x[(size_t)label * inner + c] : 0;
        as_high[c] = -1;
    }
    if (inner == 1) {
        int found = -1;
        for (int i = 0; i < axis; i++) found += x[i] >= wanted[0];
        as_high[0] = found;
    } else {
        for (int i = 0; i < axis; i++)
            for (int c = 0; c < count; c++) as_high[c] += x[(size_t)i * inner + c] >= wanted[c];
    }
    for (int c = 0; c < count; c++) {
        const int label = (int)labels[c];
        const real judged = label >= 0 && label < axis ? (as_high[c] < top_k ? RIGHT : WRONG) : NAN;
        verdict[c] = IGNORES && label == ignored ? IGNORED : judged;
    }
}

// accuracy = those that are right over those that count.  One work-item.
__kernel void share(__global const real *restrict verdict, __global real *restrict accuracy, const int labels,
                    const uint items)
{
    if (get_global_id(0) >= items) return;
    int right = 0, counted = 0, strange = 0;
    for (int i = 0; i < labels; i++) {
        right += verdict[i] == RIGHT;
        counted += verdict[i] != IGNORED;
        strange += verdict[i] != verdict[i];
    }
    accuracy[0] = strange ? (real)NAN : (real)right / (real)(counted > 1 ? counted : 1);
}

// The same for the labels of each class, 0 where it has none.  Work-items: classes.
__kernel void share_of_class(__global const real *restrict verdict, __global const real *restrict labels,
                             __global real *restrict accuracy, const int count, const uint items)
{
    const uint class = get_global_id(0);
    if (class >= items) return;
    int right = 0, counted = 0;
    for (int i = 0; i < count; i++) {
        const int own = ((int)labels[i] == (int)class) & (verdict[i] != IGNORED);
        right += own & (verdict[i] == RIGHT);
        counted += own;
    }
    accuracy[class] = (real)right / (real)(counted > 1 ? counted : 1);
}
