// Copies between a tensor and a strided view of another; what was repeated is summed on its way back.

#ifndef REAL
#define REAL float  // element type: float, or double where the device has cl_khr_fp64
#endif
#ifndef PIECE
#define PIECE 8192  // elements of a row that a work-item copies: 1 or more
#endif

typedef REAL real;

// Both sides are walked over (n0, n1, n2, n3, length) by strides of their own, f0 to f4 and t0 to t4; each element that
// is written is the sum of `copies` that are read, `apart` from one another.
// Work-items: (row, piece of it), the last fastest; short rows are gathered until they are a piece.
__kernel void move(__global const real *restrict from, __global real *restrict to, const int from_offset,
                   const int to_offset, const int n1, const int n2, const int n3, const int f0, const int f1,
                   const int f2, const int f3, const int f4, const int t0, const int t1, const int t2, const int t3,
                   const int t4, const int copies, const int apart, const int rows, const int length,
                   const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int pieces = (length + PIECE - 1) / PIECE, many = length < PIECE ? PIECE / length : 1;
    const int part = id % pieces, first = id / pieces * many, last = first + many < rows ? first + many : rows;
    const int start = part * PIECE, stop = start + PIECE < length ? start + PIECE : length;
    for (int row = first; row < last; row++) {
        const int i3 = row % n3, above = row / n3, i2 = above % n2, top = above / n2, i1 = top % n1, i0 = top / n1;
        __global const real *source = from + from_offset + (size_t)i0 * f0 + (size_t)i1 * f1 + (size_t)i2 * f2
                                      + (size_t)i3 * f3;
        __global real *target = to + to_offset + (size_t)i0 * t0 + (size_t)i1 * t1 + (size_t)i2 * t2 + (size_t)i3 * t3;
        if (copies == 1 && f4 == 1 && t4 == 1) {
            _Pragma("clang loop vectorize(assume_safety)") for (int i = start; i < stop; i++) target[i] = source[i];
        } else if (copies == 1) {
            for (int i = start; i < stop; i++) target[(size_t)i * t4] = source[(size_t)i * f4];
        } else {
            for (int i = start; i < stop; i++) {
                __global const real *each = source + (size_t)i * f4;
                real sum = each[0];
                for (int copy = 1; copy < copies; copy++) sum += each[(size_t)copy * apart];
                target[(size_t)i * t4] = sum;
            }
        }
    }
}
