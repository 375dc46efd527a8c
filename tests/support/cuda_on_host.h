// The words of CUDA C that the kernels use, for the compiler of the host; cuda_on_host.cc runs the kernels.
#pragma once

#include <atomic>
#include <math.h>
#include <string.h>

#define __global__
#define __device__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ static thread_local
#define __syncthreads() cuda_on_host::wait_at_barrier(__FILE__, __LINE__)
#define threadIdx (*cuda_on_host::thread)
#define blockIdx (cuda_on_host::block->index)
#define blockDim (cuda_on_host::block->size)
#define gridDim (cuda_on_host::block->blocks)

namespace cuda_on_host {

struct Index {
    unsigned x, y, z;
};

struct Block {
    Index index, size, blocks;
};

// What the CUDA thread that runs on this thread of the host is.
extern __thread const Index *thread;
extern __thread const Block *block;

void wait_at_barrier(const char *file, int line);
void wait_for_other_blocks();

// One argument of a kernel. `array` is the handle of an MXNet array, and its memory once the kernel runs; else null.
struct Argument {
    void *array;
    int integer;
    float real;
};

using Kernel = void (*)(const Argument *);

// Runs a kernel as an operation of MXNet's engine, which reports the exception. `launch` is that of copy_launch.
void run(void *launch, Kernel kernel, const char *name);

} // namespace cuda_on_host

struct alignas(16) float4 {
    float x, y, z, w;
};
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }

static inline unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
static inline int atomicAdd(int *p, int n) { return __atomic_fetch_add(p, n, __ATOMIC_SEQ_CST); }
static inline unsigned atomicAdd(unsigned *p, unsigned n) { return __atomic_fetch_add(p, n, __ATOMIC_SEQ_CST); }

static inline float __ldcg(const float *p) { return *p; }
static inline float4 __ldcg(const float4 *p) { return *p; }

// Kernels read with __ldcv what they wait for, so another fiber or block is given time.
static inline int __ldcv(const int *p) {
    cuda_on_host::wait_for_other_blocks();
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}
static inline unsigned __ldcv(const unsigned *p) {
    cuda_on_host::wait_for_other_blocks();
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}
