// Copy rows of `length` elements that begin a pitch apart: joins tensors along an axis, and splits them.

#ifndef REAL
#define REAL float  // element type: float, or double where the device has cl_khr_fp64
#endif
#ifndef PIECE
#define PIECE 8192  // elements of a row that a work-item copies: 1 or more
#endif

typedef REAL real;

// Work-items: (row, piece of it), the last fastest; short rows are gathered until they are a piece.
__kernel void copy_rows(__global const real *restrict source, __global real *restrict target, const int source_pitch,
                        const int source_offset, const int target_pitch, const int target_offset, const int rows,
                        const int length, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int pieces = (length + PIECE - 1) / PIECE, many = length < PIECE ? PIECE / length : 1;
    const int part = id % pieces, first = id / pieces * many, last = first + many < rows ? first + many : rows;
    const int start = part * PIECE, stop = start + PIECE < length ? start + PIECE : length;
    for (int row = first; row < last; row++) {
        __global const real *from = source + (size_t)row * source_pitch + source_offset;
        __global real *to = target + (size_t)row * target_pitch + target_offset;
        _Pragma("clang loop vectorize(assume_safety)") for (int i = start; i < stop; i++) to[i] = from[i];
    }
}
