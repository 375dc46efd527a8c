// All T steps of a layer in one kernel, forward and backward (Diamos et al. 2016, "Persistent RNNs").
//
//     z_t = x_t W_x + h_t W_h + b,  h_{t+1} from z_t (cell.cu)          dh_{t+1} = dh_out_t + dz_{t+1} W_h^T
//
// Reading W_h anew at each step would take longer than multiplying by it, so each thread keeps a part of W_h in its
// registers during all steps. The work of one step is divided among blocks in two directions:
//
//     blockIdx.x    UNITS hidden units, with their four gates: the cells of a unit are computed in one block
//     blockIdx.y    a group of streams; streams do not depend on each other
//
// In a block, a thread holds the part of W_h for one gate of one unit (a lane of a warp) and a range of SLICE elements
// of the sum (a warp). The sums of all ranges are added in the order of the ranges, so results do not vary.
// After a step, the blocks of a group wait for each other, because each of them needs all of h_t or dz_t.
//
// HIDDEN is a multiple of 32 and at most 1024. All blocks must be resident at once (launch_sizes.py).

#define UNITS 8
#define WARPS 8
#define THREADS (WARPS * 32)
#define SLICE (HIDDEN / WARPS)

// Streams whose h, or dz, is in shared memory at a time.
#define FORWARD_STREAMS 8
#define BACKWARD_STREAMS (HIDDEN <= 256 ? 8 : HIDDEN <= 512 ? 4 : 2)

// Distance of two gates in shared memory: lanes that read different gates use different banks.
#define GATE_PITCH (HIDDEN + 4)
// The same for two sums of different gates.
#define SUMS_PITCH (BACKWARD_STREAMS * UNITS + UNITS)

// Waits for all blocks with the same blockIdx.y.
//   arrivals   a counter for each group, 32 ints apart; zero before the first launch, and 0 or 2^31 after each
__device__ void group_barrier(int *arrivals) {
    __syncthreads();
    if (threadIdx.x == 0) {
        unsigned int *counter = (unsigned int *)arrivals + 32 * blockIdx.y;
        // Each barrier adds 2^31 in all: the highest bit changes with the last arrival, and no reset is needed.
        unsigned int mine = blockIdx.x == 0 ? 0x80000000u - (gridDim.x - 1) : 1u;
        __threadfence();
        unsigned int before = atomicAdd(counter, mine);
        while (((before ^ __ldcv(counter)) & 0x80000000u) == 0) {
        }
        __threadfence();
    }
    __syncthreads();
}

// The streams of this block's group: from first to end - 1.
struct Streams {
    int first, end;
};

__device__ __forceinline__ Streams streams_of_group(int B) {
    int count = (B + gridDim.y - 1) / gridDim.y, first = count * blockIdx.y;
    Streams streams = {min(first, B), min(first + count, B)};
    return streams;
}

// Copies `width` numbers for each of up to `most` streams from stream first on, or zeros after the last stream.
//   from    (B, width) in global memory, perhaps written by other blocks during this kernel
//   to      (most, pitch) in shared memory
//   width, pitch: multiples of 4
__device__ __forceinline__ void copy_streams(const float *from, float *to, int first, int end, int most, int width,
                                             int pitch) {
    for (int k = threadIdx.x * 4; k < most * width; k += THREADS * 4) {
        int stream = first + k / width, number = k % width;
        float4 four = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        // Past the L1 cache, which does not see what other blocks have written.
        if (stream < end) four = __ldcg((const float4 *)(from + stream * width + number));
        *(float4 *)(to + k / width * pitch + number) = four;
    }
}

// Adds SLICE products for each stream.
//   values   stream s's SLICE numbers begin at values + s * pitch
//   w        SLICE weights
//   sums     one sum a stream
template <int STREAMS>
__device__ __forceinline__ void multiply(const float *values, int pitch, const float *w, float *sums) {
#pragma unroll
    for (int s = 0; s < STREAMS; ++s) sums[s] = 0.0f;
#pragma unroll
    for (int k = 0; k < SLICE; k += 4) {
#pragma unroll
        for (int s = 0; s < STREAMS; ++s) {
            float4 four = *(const float4 *)(values + s * pitch + k);
            sums[s] += four.x * w[k] + four.y * w[k + 1] + four.z * w[k + 2] + four.w * w[k + 3];
        }
    }
}

// Runs all steps forward.
//   x, rows, b, is_lookup     as in cell_forward (loop.cu)
//   w_h                       (H, 4H)
//   h_before, c_before        (B, layers * H), the state before the window, of which this layer's columns are read
//   h, c                      (T + 1, B, H), written; element 0 is the state before the window
//   gates                     (T, B, 4H), written
//   h_after, c_after          (B, layers * H), of which this layer's columns are written
//   arrivals                  of group_barrier
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    persistent_forward(const float *x, const int *rows, const float *w_h, const float *b, const float *h_before,
                       const float *c_before, float *h, float *c, float *gates, float *h_after, float *c_after,
                       int *arrivals, int is_lookup, int layer, int layers, int B, int T) {
    __shared__ float4 values[FORWARD_STREAMS * HIDDEN / 4];
    __shared__ float partial[WARPS][FORWARD_STREAMS][4 * UNITS];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int column = lane / UNITS * HIDDEN + blockIdx.x * UNITS + lane % UNITS;
    Streams streams = streams_of_group(B);
    // The first FORWARD_STREAMS * UNITS threads also compute one cell each.
    int row = threadIdx.x / UNITS, unit = blockIdx.x * UNITS + threadIdx.x % UNITS;

    float w[SLICE];
#pragma unroll
    for (int k = 0; k < SLICE; ++k) w[k] = w_h[(warp * SLICE + k) * 4 * HIDDEN + column];

    for (int first = streams.first; first < streams.end; first += FORWARD_STREAMS) {
        int stream = first + row;
        if (row < FORWARD_STREAMS && stream < streams.end) {
            int there = (stream * layers + layer) * HIDDEN + unit;
            h[stream * HIDDEN + unit] = h_before[there];
            c[stream * HIDDEN + unit] = c_before[there];
        }
    }
    for (int t = 0; t < T; ++t) {
        group_barrier(arrivals);
        for (int first = streams.first; first < streams.end; first += FORWARD_STREAMS) {
            int stream = first + row, here = t * B + stream;
            bool has_cell = row < FORWARD_STREAMS && stream < streams.end;
            float z[4], before = 0.0f;
            if (has_cell) {
                const float *mine = x + (is_lookup ? rows[here] : here) * 4 * HIDDEN + unit;
                for (int gate = 0; gate < 4; ++gate) z[gate] = mine[gate * HIDDEN] + b[gate * HIDDEN + unit];
                before = c[here * HIDDEN + unit];
            }
            copy_streams(h + t * B * HIDDEN, (float *)values, first, streams.end, FORWARD_STREAMS, HIDDEN, HIDDEN);
            __syncthreads();
            float sums[FORWARD_STREAMS];
            multiply<FORWARD_STREAMS>((const float *)values + warp * SLICE, HIDDEN, w, sums);
#pragma unroll
            for (int s = 0; s < FORWARD_STREAMS; ++s) partial[warp][s][lane] = sums[s];
            __syncthreads();
            if (has_cell) {
                for (int gate = 0; gate < 4; ++gate)
                    for (int k = 0; k < WARPS; ++k) z[gate] += partial[k][row][gate * UNITS + threadIdx.x % UNITS];
                Gates y = activate(z[0], z[1], z[2], z[3]);
                float after = y.f * before + y.i * y.g, out = y.o * tanhf(after);
                write_gates(gates + here * 4 * HIDDEN + unit, y);
                c[(here + B) * HIDDEN + unit] = after;
                h[(here + B) * HIDDEN + unit] = out;
                if (t == T - 1) {
                    h_after[(stream * layers + layer) * HIDDEN + unit] = out;
                    c_after[(stream * layers + layer) * HIDDEN + unit] = after;
                }
            }
        }
    }
}

// Runs all steps backward.
//   dh_out, c, gates, dc   as in cell_backward (loop.cu); all elements of gates are replaced by dL/dz
//   w_h                    (H, 4H)
//   arrivals               of group_barrier
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    persistent_backward(const float *dh_out, const float *w_h, const float *c, float *gates, float *dc, int *arrivals,
                        int B, int T) {
    __shared__ float4 values[BACKWARD_STREAMS * GATE_PITCH];
    __shared__ float partial[4 * WARPS][SUMS_PITCH];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, gate = lane / UNITS;
    Streams streams = streams_of_group(B);
    int row = threadIdx.x / UNITS, unit = blockIdx.x * UNITS + threadIdx.x % UNITS;

    float w[SLICE];
#pragma unroll
    for (int k = 0; k < SLICE; ++k) w[k] = w_h[unit * 4 * HIDDEN + gate * HIDDEN + warp * SLICE + k];

    for (int t = T - 1; t >= 0; --t) {
        for (int first = streams.first; first < streams.end; first += BACKWARD_STREAMS) {
            int stream = first + row, here = t * B + stream;
            bool has_cell = row < BACKWARD_STREAMS && stream < streams.end;
            float dh = has_cell ? dh_out[here * HIDDEN + unit] : 0.0f, carried = 0.0f;
            if (t < T - 1) {
                if (has_cell) carried = dc[stream * HIDDEN + unit];
                copy_streams(gates + (t + 1) * B * 4 * HIDDEN, (float *)values, first * 4, streams.end * 4,
                             BACKWARD_STREAMS * 4, HIDDEN, GATE_PITCH);
                __syncthreads();
                float sums[BACKWARD_STREAMS];
                multiply<BACKWARD_STREAMS>((const float *)values + gate * GATE_PITCH + warp * SLICE, 4 * GATE_PITCH, w,
                                           sums);
#pragma unroll
                for (int s = 0; s < BACKWARD_STREAMS; ++s) partial[warp * 4 + gate][s * UNITS + lane % UNITS] = sums[s];
                __syncthreads();
                if (has_cell)
                    for (int k = 0; k < 4 * WARPS; ++k) dh += partial[k][threadIdx.x];
            }
            if (has_cell) {
                float *mine = gates + here * 4 * HIDDEN + unit;
                float c_before = c[here * HIDDEN + unit], c_after = c[(here + B) * HIDDEN + unit];
                write_gates(mine, derivative(read_gates(mine), c_before, c_after, dh, &carried));
                dc[stream * HIDDEN + unit] = carried;
            }
        }
        if (t > 0) group_barrier(arrivals);
    }
}
