// exp, log, tanh, pow and sqrt as plain arithmetic, for float on CPU devices: there the builtins are function
// calls, which keep the compiler from making vector loops.  On other devices and for double these are the builtins.
//
// Within 2 ulp (pow 1, sqrt exact), subnormal numbers included; infinities, NaN, zeros and negative numbers as
// the builtins have them.  Polynomials: S. Moshier, Cephes Mathematical Library (expf, logf, tanhf).
//
// No kernels: files that call these functions include it.

#ifndef REAL
#define REAL float       // element type: float, or double where the device has cl_khr_fp64
#endif
#ifndef OWN_FUNCTIONS
#define OWN_FUNCTIONS 0  // 1: these functions, REAL must be float; 0: the builtins
#endif

#if OWN_FUNCTIONS

// A loop with a call in it is no vector loop.
#define OWN __attribute__((always_inline)) static

// Not a number when `a` is not: comparisons with it are false.
#define CLAMPED(a, low, high) ((a) > (high) ? (high) : (a) < (low) ? (low) : (a))

// 2^n for -126 <= n <= 127.
OWN float power_of_two(int n) { return as_float((n + 127) << 23); }

OWN float exponential(float x)
{
    // Beyond these the result is infinite, or less than half of the least number.
    const float bounded = CLAMPED(x, -104.0f, 89.0f);
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
    const float shifted = bounded * 1.44269504088896341f + 12582912.0f;
    const float whole = shifted - 12582912.0f;
    const int n = as_int(shifted) - as_int(12582912.0f);
    const float r = (bounded - whole * 0.693359375f) + whole * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    // In two steps, as 2^n alone may be too large or too small.
    return p * power_of_two(n >> 1) * power_of_two(n - (n >> 1));
}

// x = m 2^e with sqrt(1/2) <= m < sqrt(2), for 0 < x < infinity.
OWN float mantissa(float x, float *e)
{
    const int subnormal = x < 1.17549435e-38f;
    const int bits = as_int(subnormal ? x * 8388608.0f : x);
    const int exponent = (bits - 0x3f3504f3) >> 23;
    *e = (float)(subnormal ? exponent - 23 : exponent);
    return as_float(bits - (exponent << 23));
}

OWN float logarithm(float x)
{
    float e;
    const float m = mantissa(x, &e) - 1.0f, z = m * m;
    float p = 7.0376836292e-2f;
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    p = p * m * z - e * 2.12194440e-4f - 0.5f * z;
    const float result = (m + p) + e * 0.693359375f;
    const float outside = x == 0.0f ? -INFINITY : x > 0.0f ? x : NAN;
    return ((x > 0.0f) & (x < INFINITY)) ? result : outside;
}

OWN float hyperbolic_tangent(float x)
{
    const float a = x < 0.0f ? -x : x, z = x * x;
    const float far = 1.0f - 2.0f / (exponential(a + a) + 1.0f);
    float p = -5.70498872745e-3f;
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    return a < 0.625f ? x * (p * z + 1.0f) : x < 0.0f ? -far : far;
}

OWN float square_root(float x) { return __builtin_sqrtf(x); }

// exp(y log|x|) in double, which spares a logarithm of two floats.
#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
OWN float power(float x, float y)
{
    const float ax = x < 0.0f ? -x : x, ay = y < 0.0f ? -y : y;
    float e;
    const double m = mantissa(ax, &e), s = (m - 1.0) / (m + 1.0), z = s * s;
    double series = 1.0 / 15.0;
    series = series * z + 1.0 / 13.0;
    series = series * z + 1.0 / 11.0;
    series = series * z + 1.0 / 9.0;
    series = series * z + 1.0 / 7.0;
    series = series * z + 1.0 / 5.0;
    series = series * z + 1.0 / 3.0;
    series = series * z + 1.0;
    const double finite = e * 0.69314718055994531 + 2.0 * s * series;
    const double log_x = ax == 0.0f ? (double)-INFINITY : ax < INFINITY ? finite : (double)ax;

    const double product = y * log_x;
    const double t = CLAMPED(product, -120.0, 120.0);
    const double shifted = t * 1.4426950408889634 + 6755399441055744.0;
    const double r = t - (shifted - 6755399441055744.0) * 0.69314718055994531;
    double p = 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    const long n = as_long(shifted) - as_long(6755399441055744.0);
    const float size = (float)(p * as_double((n + 1023) << 52));

    // From 2^24 on every float is an even integer.
    const int huge = ay >= 16777216.0f, n_y = (int)(ay < 16777216.0f ? y : 0.0f);
    const int integral = huge | ((float)n_y == y), odd = integral & (ay < 16777216.0f) & n_y;
    const int one = (x == 1.0f) | (y == 0.0f) | ((ax == 1.0f) & (ay == INFINITY));
    const int undefined = (x < 0.0f) & (ax < INFINITY) & !integral & (y == y);
    const float result = (as_int(x) < 0) & odd ? -size : size;
    return one ? 1.0f : undefined ? NAN : result;
}
#else
#define power pow
#endif

#else

#define exponential exp
#define logarithm log
#define hyperbolic_tangent tanh
#define square_root sqrt
#define power pow

#endif
