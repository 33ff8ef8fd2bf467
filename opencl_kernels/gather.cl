// Rows of a table that are picked by number, and gradients that are added to them.
//
// Fractions of an index are cut off; an index that is no row gives a row of NaN, and adds to none.

#ifndef REAL
#define REAL float  // element type: float, or double where the device has cl_khr_fp64
#endif
#ifndef PIECE
#define PIECE 8192  // elements of a row that a work-item takes: 1 or more
#endif

typedef REAL real;

#define IS_ROW(index) ((index) >= 0 && (index) < table_rows)

// y[row] = table[indices[row]].  Work-items: (row, piece of it), the last fastest; short rows are gathered.
__kernel void gather(__global const real *restrict table, __global const real *restrict indices,
                     __global real *restrict y, const int table_rows, const int rows, const int length,
                     const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int pieces = (length + PIECE - 1) / PIECE, many = length < PIECE ? PIECE / length : 1;
    const int part = id % pieces, first = id / pieces * many, last = first + many < rows ? first + many : rows;
    const int start = part * PIECE, stop = start + PIECE < length ? start + PIECE : length;
    for (int row = first; row < last; row++) {
        const real index = indices[row];
        __global const real *from = table + (size_t)(IS_ROW(index) ? (int)index : 0) * length;
        __global real *to = y + (size_t)row * length;
        if (IS_ROW(index)) {
            _Pragma("clang loop vectorize(assume_safety)") for (int i = start; i < stop; i++) to[i] = from[i];
        } else {
            for (int i = start; i < stop; i++) to[i] = NAN;
        }
    }
}

// dtable[indices[row]] += dy[row].  Work-items: pieces of a row; each takes all rows, in their order.
__kernel void scatter(__global const real *restrict dy, __global const real *restrict indices,
                      __global real *restrict dtable, const int table_rows, const int rows, const int length,
                      const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int start = (int)id * PIECE, stop = start + PIECE < length ? start + PIECE : length;
    for (int row = 0; row < rows; row++) {
        const real index = indices[row];
        if (!IS_ROW(index)) continue;
        __global const real *from = dy + (size_t)row * length;
        __global real *to = dtable + (size_t)(int)index * length;
        _Pragma("clang loop vectorize(assume_safety)") for (int i = start; i < stop; i++) to[i] += from[i];
    }
}
