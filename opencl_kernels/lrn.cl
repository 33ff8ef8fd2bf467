// Local response normalisation: y = x * scale^-beta, scale = k + weight * (sum of x^2 over a window).
//
// x is planes of (ROWS, COLUMNS), and the window of an element reaches HALF_ROWS rows and HALF_COLUMNS columns to each
// side, as far as the plane goes.  Across channels a plane is an image, its rows the channels, its columns the pixels,
// and HALF_COLUMNS is 0; within a channel it is the channel's image.
//
// A work-item goes down BLOCK columns of a plane row by row.  A line holds those columns and as many on both sides as
// windows reach, zeros outside the plane.

#include "functions.cl"

#ifndef REAL
#define REAL float       // element type: float, or double where the device has cl_khr_fp64
#endif
#ifndef ROWS
#define ROWS 1           // 1 or more
#define COLUMNS 1
#endif
#ifndef HALF_ROWS
#define HALF_ROWS 1      // 0 or more
#define HALF_COLUMNS 0
#endif
#ifndef BLOCK
#define BLOCK 1          // 1 to COLUMNS
#endif
#ifndef QUARTERS
#define QUARTERS 0       // beta is this many quarters: 1 to 4, or 0 for any beta, at the price of a power
#endif
#ifndef OWN_FUNCTIONS    // functions.cl, which may come before, says what these are
#define square_root sqrt
#define power pow
#endif

typedef REAL real;

#define BLOCKS ((COLUMNS + BLOCK - 1) / BLOCK)
#define WINDOW (2 * HALF_COLUMNS + 1)
#define RING (2 * HALF_ROWS + 1)

static int least(int a, int b) { return a < b ? a : b; }
static int most(int a, int b) { return a > b ? a : b; }

// scale^-beta from 1 / scale.  Three quarters, the usual beta, take two roots and are right to three roundings.
static real factor(const real inverse, const real beta)
{
#if QUARTERS == 1
    return square_root(square_root(inverse));
#elif QUARTERS == 2
    return square_root(inverse);
#elif QUARTERS == 3
    const real root = square_root(inverse);
    return root * square_root(root);
#elif QUARTERS == 4
    return inverse;
#else
    return power(inverse, beta);
#endif
}

// The work-item's columns [c0, c0 + columns).
#define FIND_BLOCK                                                                              \
    const uint id = get_global_id(0);                                                           \
    if (id >= items) return;                                                                    \
    const int c0 = (int)(id % BLOCKS) * BLOCK;                                                  \
    const int columns = COLUMNS % BLOCK == 0 ? BLOCK : least(BLOCK, COLUMNS - c0);              \
    const size_t plane = (size_t)(id / BLOCKS) * ((size_t)ROWS * COLUMNS) + c0;

// Columns that lie `reach` or less beside the block, counted from c0, as far as the plane goes.
#define FIRST(reach) (BLOCKS == 1 ? 0 : most(-(reach), -c0))
#define LAST(reach) (BLOCKS == 1 ? COLUMNS : least(columns + (reach), COLUMNS - c0))

// line[c] = sum over the rows around row r of x^2, for columns [first, last).
static void sum_squares(__global const real *restrict x, const int r, const int first, const int last,
                        real *restrict line)
{
    const int top = most(r - HALF_ROWS, 0), bottom = least(r + HALF_ROWS, ROWS - 1);
    for (int c = first; c < last; c++) line[c] = x[top * COLUMNS + c] * x[top * COLUMNS + c];
    for (int row = top + 1; row <= bottom; row++)
        for (int c = first; c < last; c++) line[c] += x[row * COLUMNS + c] * x[row * COLUMNS + c];
}

// Sum of a line over the window around a column.
static real sum_around(const real *line)
{
    real sum = line[-HALF_COLUMNS];
#if HALF_COLUMNS <= 4
    #pragma unroll
#endif
    for (int i = 1; i < WINDOW; i++) sum += line[i - HALF_COLUMNS];
    return sum;
}

// Work-items: blocks of all planes.
__kernel void lrn_forward(__global const real *restrict x, __global real *restrict y, const real weight,
                          const real beta, const real k, const uint items)
{
    FIND_BLOCK
    x += plane;
    y += plane;
    real squares[BLOCK + 2 * HALF_COLUMNS];
    for (int i = 0; i < BLOCK + 2 * HALF_COLUMNS; i++) squares[i] = 0;
    real *line = squares + HALF_COLUMNS;
    for (int r = 0; r < ROWS; r++) {
        sum_squares(x, r, FIRST(HALF_COLUMNS), LAST(HALF_COLUMNS), line);
        for (int c = 0; c < columns; c++)
            y[r * COLUMNS + c] = x[r * COLUMNS + c] * factor((real)1 / (k + weight * sum_around(line + c)), beta);
    }
}

// dx = dy * scale^-beta - 2 * weight * beta * x * (sum over the window of dy * y / scale), everything from x and dy.
// The first part of a row is written when the row is met, the second when the last row that it needs has been.
// Work-items: blocks of all planes.
__kernel void lrn_backward(__global const real *restrict x, __global const real *restrict dy,
                           __global real *restrict dx, const real weight, const real beta, const real k,
                           const uint items)
{
    FIND_BLOCK
    x += plane;
    dy += plane;
    dx += plane;
    const int first = FIRST(HALF_COLUMNS), last = LAST(HALF_COLUMNS);
    real squares[BLOCK + 4 * HALF_COLUMNS], sums[BLOCK + 2 * HALF_COLUMNS];
    real ratios[RING][BLOCK + 2 * HALF_COLUMNS], direct[BLOCK + 2 * HALF_COLUMNS];
    for (int i = 0; i < BLOCK + 4 * HALF_COLUMNS; i++) squares[i] = 0;
    for (int i = 0; i < BLOCK + 2 * HALF_COLUMNS; i++) sums[i] = 0;
    for (int r = 0; r < ROWS + HALF_ROWS; r++) {
        if (r < ROWS) {
            real *line = squares + 2 * HALF_COLUMNS, *ratio = ratios[r % RING] + HALF_COLUMNS;
            sum_squares(x, r, FIRST(2 * HALF_COLUMNS), LAST(2 * HALF_COLUMNS), line);
            for (int c = first; c < last; c++) {
                const real inverse = (real)1 / (k + weight * sum_around(line + c));
                const real part = dy[r * COLUMNS + c] * factor(inverse, beta);
                direct[HALF_COLUMNS + c] = part;
                ratio[c] = part * x[r * COLUMNS + c] * inverse;
            }
            for (int c = 0; c < columns; c++) dx[r * COLUMNS + c] = direct[HALF_COLUMNS + c];
        }
        const int at = r - HALF_ROWS;
        if (at >= 0) {
            const int top = most(at - HALF_ROWS, 0), bottom = least(r, ROWS - 1);
            real *line = sums + HALF_COLUMNS;
            for (int c = first; c < last; c++) line[c] = ratios[top % RING][HALF_COLUMNS + c];
            for (int row = top + 1; row <= bottom; row++)
                for (int c = first; c < last; c++) line[c] += ratios[row % RING][HALF_COLUMNS + c];
            for (int c = 0; c < columns; c++)
                dx[at * COLUMNS + c] -= 2 * weight * beta * x[at * COLUMNS + c] * sum_around(line + c);
        }
    }
}
