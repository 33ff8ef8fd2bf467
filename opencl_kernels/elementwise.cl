// An element-wise program: STATEMENTS run on element i of every tensor.
//
// Tensors may lie on one buffer, hence no restrict: each statement reads element i before it
// writes it.  max, min, abs and sign stand here because the builtins of the same meaning are
// function calls on some CPU platforms, which keeps the compiler from making vector loops.

#ifndef REAL
#define REAL float  // element type: float, or double where the device has cl_khr_fp64
#endif
#ifndef ARGUMENTS
#define ARGUMENTS __global const real *x, __global real *y,  // tensors and scalars; ends in a comma
#endif
#ifndef STATEMENTS
#define STATEMENTS y[i] = x[i];  // assignments to tensors at [i]
#endif

typedef REAL real;

// NaN comes through, as in NumPy.
static real larger(real a, real b) { return ((a > b) | (a != a)) ? a : b; }
static real smaller(real a, real b) { return ((a < b) | (a != a)) ? a : b; }
static real magnitude(real a) { return a > 0 ? a : (real)0 - a; }
static real signum(real a) { return a > 0 ? (real)1 : a < 0 ? (real)-1 : a; }

__kernel void elementwise(ARGUMENTS const uint items)
{
    const uint i = get_global_id(0);
    if (i < items) {
        STATEMENTS
    }
}
