// What a convolution adds to a matrix product (gemm.cl): packing of its unrolled input, the way back, and rectifying.
//
// x(N, C, I) with I = (IZ, IY, IX), w(C_out, C/GROUPS, K), y(N, C_out, O).  One or two spatial axes are
// three whose leading ones have size 1.  The unrolled input of an image and group has C/GROUPS * KZ*KY*KX
// rows, the taps (channel, kz, ky, kx), and OZ*OY*OX columns, the pixels of the output.  The kernels work
// on some of the images at a time, beginning with image `first`; memory for the unrolled input of a whole
// batch is never needed.

#ifndef REAL
#define REAL float  // element type: float, or double where the device has cl_khr_fp64
#endif
#ifndef TILE_N
#define TILE_N 16   // columns of a packed panel, as gemm.cl has it: VECTOR * VECTORS
#endif
#ifndef GROUPS
#define GROUPS 1    // 1 or more, divides both numbers of channels
#endif
#ifndef CHANNELS
#define CHANNELS 1  // input channels of one group: 1 or more
#endif
#ifndef IZ          // sizes of the input: 1 or more
#define IZ 1
#define IY 1
#define IX 1
#endif
#ifndef OZ          // sizes of the output: 1 or more
#define OZ 1
#define OY 1
#define OX 1
#endif
#ifndef KZ          // sizes of the kernel: 1 or more
#define KZ 1
#define KY 1
#define KX 1
#endif
#ifndef SZ          // strides: 1 or more
#define SZ 1
#define SY 1
#define SX 1
#endif
#ifndef PZ          // zeros before and behind each axis: 0 or more
#define PZ 0
#define PY 0
#define PX 0
#endif
#ifndef DZ          // dilations: 1 or more
#define DZ 1
#define DY 1
#define DX 1
#endif

typedef REAL real;

#define IMAGE (IZ * IY * IX)
#define PIXELS (OZ * OY * OX)
#define TAPS (CHANNELS * KZ * KY * KX)
#define PIXEL_PANELS ((PIXELS + TILE_N - 1) / TILE_N)
#define TAP_PANELS ((TAPS + TILE_N - 1) / TILE_N)

// Without padding no tap falls outside; then the compiler drops the test.
#define PADDED (PZ > 0 || PY > 0 || PX > 0)
#define INSIDE(z, y, x) ((uint)(z) < IZ && (uint)(y) < IY && (uint)(x) < IX)

// B of the forward pass: packed[image][group][panel of pixels][tap][pixel].
// Work-items: (image, group, panel, channel), the last fastest.  Pixels beyond the last repeat it: the
// product does not store their columns.
__kernel void pack_pixels(__global const real *restrict x, __global real *restrict packed, const int first,
                          const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int channel = id % CHANNELS, panel = id / CHANNELS % PIXEL_PANELS, plane = id / CHANNELS / PIXEL_PANELS;
    __global const real *restrict source = x + (((size_t)first * GROUPS + plane) * CHANNELS + channel) * IMAGE;
    __global real *restrict to =
        packed + (((size_t)plane * PIXEL_PANELS + panel) * TAPS + channel * (KZ * KY * KX)) * TILE_N;
    int z[TILE_N], y[TILE_N], x0[TILE_N];
    for (int lane = 0; lane < TILE_N; lane++) {
        const int pixel = panel * TILE_N + lane < PIXELS ? panel * TILE_N + lane : PIXELS - 1;
        z[lane] = pixel / (OY * OX) * SZ - PZ;
        y[lane] = pixel / OX % OY * SY - PY;
        x0[lane] = pixel % OX * SX - PX;
    }
    for (int kz = 0; kz < KZ; kz++)
        for (int ky = 0; ky < KY; ky++)
            for (int kx = 0; kx < KX; kx++) {
                for (int lane = 0; lane < TILE_N; lane++) {
                    const int iz = z[lane] + kz * DZ, iy = y[lane] + ky * DY, ix = x0[lane] + kx * DX;
                    to[lane] = !PADDED || INSIDE(iz, iy, ix) ? source[(iz * IY + iy) * IX + ix] : (real)0;
                }
                to += TILE_N;
            }
}

// B of the gradient with respect to the weights: packed[group][panel of taps][image][pixel][tap].
// Work-items: (group, panel, image), the last fastest.  Taps beyond the last repeat it.
__kernel void pack_taps(__global const real *restrict x, __global real *restrict packed, const int first,
                        const int images, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int image = id % images, panel = id / images % TAP_PANELS, group = id / images / TAP_PANELS;
    __global const real *restrict source = x + ((size_t)(first + image) * GROUPS + group) * CHANNELS * IMAGE;
    __global real *restrict to =
        packed + (((size_t)group * TAP_PANELS + panel) * images + image) * PIXELS * TILE_N;
    int channel[TILE_N], z[TILE_N], y[TILE_N], x0[TILE_N];
    for (int lane = 0; lane < TILE_N; lane++) {
        const int tap = panel * TILE_N + lane < TAPS ? panel * TILE_N + lane : TAPS - 1;
        channel[lane] = tap / (KZ * KY * KX) * IMAGE;
        z[lane] = tap / (KY * KX) % KZ * DZ - PZ;
        y[lane] = tap / KX % KY * DY - PY;
        x0[lane] = tap % KX * DX - PX;
    }
    for (int oz = 0; oz < OZ; oz++)
        for (int oy = 0; oy < OY; oy++)
            for (int ox = 0; ox < OX; ox++) {
                for (int lane = 0; lane < TILE_N; lane++) {
                    const int iz = z[lane] + oz * SZ, iy = y[lane] + oy * SY, ix = x0[lane] + ox * SX;
                    to[lane] = !PADDED || INSIDE(iz, iy, ix) ? source[channel[lane] + (iz * IY + iy) * IX + ix]
                                                             : (real)0;
                }
                to += TILE_N;
            }
}

// The way back from columns(image, group, tap, pixel) to x: each row of x sums what its elements gave to.
// Work-items: (image, channel, z, y), the last fastest; each owns one row of x, so sums have one order.
__kernel void fold(__global const real *restrict columns, __global real *restrict x, const int first,
                   const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    const int iy = id % IY, iz = id / IY % IZ, plane = id / IY / IZ;  // plane: (image, group, channel)
    __global real *restrict row = x + (((size_t)first * GROUPS * CHANNELS + plane) * IZ + iz) * IY * IX + iy * IX;
    __global const real *restrict taps = columns + (size_t)plane * (KZ * KY * KX) * PIXELS;
    for (int ix = 0; ix < IX; ix++) row[ix] = 0;
    for (int kz = 0; kz < KZ; kz++) {
        const int z = iz + PZ - kz * DZ;
        if (z < 0 || z % SZ || z / SZ >= OZ) continue;
        for (int ky = 0; ky < KY; ky++) {
            const int y = iy + PY - ky * DY;
            if (y < 0 || y % SY || y / SY >= OY) continue;
            for (int kx = 0; kx < KX; kx++) {
                __global const real *restrict from =
                    taps + (size_t)((kz * KY + ky) * KX + kx) * PIXELS + (z / SZ * OY + y / SY) * OX;
                // Output ox looks at ix = ox * SX + shift; keep to those inside the row.
                const int shift = kx * DX - PX;
                const int begin = shift < 0 ? (-shift + SX - 1) / SX : 0;
                const int room = IX - shift <= 0 ? 0 : (IX - shift + SX - 1) / SX;
                const int end = room < OX ? room : OX;
                for (int ox = begin; ox < end; ox++) row[ox * SX + shift] += from[ox];
            }
        }
    }
}

// y = max(y, 0) for images `first` and following; NaN stays.  Work-items: (image, group, output channel), the last
// fastest; `planes` of them an image.
__kernel void rectify(__global real *restrict y, const int first, const int planes, const uint items)
{
    const uint id = get_global_id(0);
    if (id >= items) return;
    __global real *restrict plane = y + ((size_t)first * planes + id) * PIXELS;
    for (int pixel = 0; pixel < PIXELS; pixel++) plane[pixel] = plane[pixel] <= 0 ? (real)0 : plane[pixel];
}
