// Rows of x(outer, axis, inner), for the kernels that go over them; included by their files.
//
// Where inner > 1 a row has one element of the axis (ALONG 0), where inner = 1 it has them all (ALONG 1).  A work-item
// takes some short rows or a PIECE of a long one; sums over rows of ALONG 1 take a strip of COLUMNS columns.

#ifndef REAL
#define REAL float  // element type: float, or double where the device has cl_khr_fp64
#endif
#ifndef ALONG
#define ALONG 0     // whether the axis goes along a row: 0 or 1
#endif
#ifndef PIECE
#define PIECE 4096  // elements a work-item: 1 or more
#endif
#ifndef BLOCK
#define BLOCK 256   // rows of a part where the axis goes along them: 1 or more
#endif
#define COLUMNS 64  // width of a strip of columns
#define VECTOR 16   // sums side by side

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
typedef REAL real;
typedef JOIN(REAL, VECTOR) vector;
typedef vector loose __attribute__((aligned(sizeof(real))));

#define LOAD(pointer) (*(__global const loose *)(pointer))
#define STORE(pointer, value) (*(__global loose *)(pointer) = (value))

// first, last: the rows of this work-item; start, stop: its part of each of them.
#define MY_ROWS                                                                                             \
    const uint id = get_global_id(0);                                                                       \
    if (id >= items) return;                                                                                \
    const int pieces = (length + PIECE - 1) / PIECE, many = length < PIECE ? PIECE / length : 1;            \
    const int part = id % pieces, first = id / pieces * many;                                               \
    const int last = first + many < rows ? first + many : rows;                                             \
    const int start = part * PIECE, stop = start + PIECE < length ? start + PIECE : length;

// first, last: the rows of this work-item's block; left, right: its strip of columns.
#define MY_COLUMNS                                                                                          \
    const uint id = get_global_id(0);                                                                       \
    if (id >= items) return;                                                                                \
    const int strips = (axis + COLUMNS - 1) / COLUMNS, part = id / strips, first = part * BLOCK;            \
    const int last = first + BLOCK < rows ? first + BLOCK : rows;                                           \
    const int left = id % strips * COLUMNS, right = left + COLUMNS < axis ? left + COLUMNS : axis;

// The element of a vector that belongs to row `row`, element i.
#if ALONG
#define ELEMENT(v) v[i]
#else
#define ELEMENT(v) v[row % axis]
#endif

// The elements of a loop's rounds are different ones, also where two pointers are the same.
#define VECTOR_LOOP _Pragma("clang loop vectorize(assume_safety) interleave(enable)")

// Vectors go to functions by pointers: how they would go by value depends on the processor.
static real total(const vector *lanes)
{
    const JOIN(REAL, 8) eight = lanes->lo + lanes->hi;
    const JOIN(REAL, 4) four = eight.lo + eight.hi;
    return (four.x + four.z) + (four.y + four.w);
}
