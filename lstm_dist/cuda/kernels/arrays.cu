// Operations on whole vectors that the exchange of gradients needs. One thread an element; x is (n).
//
// A float16 is passed as its bits in an unsigned short: 1 of sign, 5 of exponent, 10 of fraction. A float has 1, 8 and 23.

// Rounds to the nearest float16, a tie to the even one.
__device__ __forceinline__ unsigned short float_to_half(float x) {
    unsigned int bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu, half;
    if (size > 0x7f800000u) {
        half = 0x7e00u; // NaN
    } else if (size >= 0x47800000u) { // 2^16
        half = 0x7c00u; // infinity
    } else if (size >= 0x38800000u) { // 2^-14, the smallest normal float16
        // Adds half of the last place that is kept, less one bit if that place is even, so that a tie is rounded down.
        // A carry goes into the exponent, and from the largest float16 to infinity.
        half = (size - (112u << 23) + 0xfffu + (size >> 13 & 1u)) >> 13; // exponents are stored plus 127, here plus 15
    } else {
        // Multiples of 2^-24, which is the last place of a float from 0.5 to 1: the sum is rounded to it.
        half = __float_as_uint(__uint_as_float(size) + 0.5f) - 0x3f000000u;
    }
    return (unsigned short)(sign | half);
}

__device__ __forceinline__ float half_to_float(unsigned short half) {
    unsigned int sign = (half & 0x8000u) << 16, exponent = half >> 10 & 0x1fu, fraction = half & 0x3ffu, size;
    if (exponent == 31u) {
        size = 0x7f800000u | fraction << 13; // infinity or NaN
    } else if (exponent > 0u) {
        size = (exponent + 112u) << 23 | fraction << 13;
    } else {
        size = __float_as_uint((float)fraction * 5.9604644775390625e-8f); // 2^-24
    }
    return __uint_as_float(sign | size);
}

// x *= factor
extern "C" __global__ void scale(float *x, float factor, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] *= factor;
}

// half = factor x, rounded; the factor is applied in float.
extern "C" __global__ void to_half(const float *x, float factor, unsigned short *half, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) half[i] = float_to_half(x[i] * factor);
}

// x = half
extern "C" __global__ void from_half(const unsigned short *half, float *x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = half_to_float(half[i]);
}
