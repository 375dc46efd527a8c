// Softmax cross-entropy of the output layer, and sums that do not depend on the order in which blocks run.
//
// Sums of a block are added pairwise in a fixed order, so that repeated runs have the same bits.

#define REDUCING 256 // threads of a block that reduces; a power of two
#define SMALLEST_NORMAL 1.17549435e-38f

__device__ float block_sum(float mine) {
    __shared__ float sums[REDUCING];
    sums[threadIdx.x] = mine;
    __syncthreads();
    for (int half = REDUCING / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    float total = sums[0];
    __syncthreads(); // before the next use of `sums`
    return total;
}

__device__ float block_max(float mine) {
    __shared__ float largest[REDUCING];
    largest[threadIdx.x] = mine;
    __syncthreads();
    for (int half = REDUCING / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) largest[threadIdx.x] = fmaxf(largest[threadIdx.x], largest[threadIdx.x + half]);
        __syncthreads();
    }
    float result = largest[0];
    __syncthreads();
    return result;
}

// Replaces logits by dL/dlogits = softmax(logits + b) - one_hot(target), one block a row.
//   logits    (n, V), without the bias
//   b         (V)
//   targets   (n)
//   losses    (n), -log of the target's probability; the smallest normal number keeps it finite
extern "C" __global__ void softmax_loss(float *logits, const float *b, const int *targets, float *losses, int V) {
    float *row = logits + blockIdx.x * V;
    int target = targets[blockIdx.x];
    float largest = -3.402823466e38f, sum = 0.0f;
    for (int v = threadIdx.x; v < V; v += REDUCING) {
        float logit = row[v] + b[v];
        row[v] = logit;
        largest = fmaxf(largest, logit);
    }
    largest = block_max(largest);
    for (int v = threadIdx.x; v < V; v += REDUCING) {
        float power = expf(row[v] - largest);
        row[v] = power;
        sum += power;
    }
    sum = block_sum(sum);
    for (int v = threadIdx.x; v < V; v += REDUCING) {
        float probability = row[v] / sum;
        row[v] = probability - (v == target ? 1.0f : 0.0f);
        if (v == target) losses[blockIdx.x] = -logf(probability + SMALLEST_NORMAL);
    }
}

// Sums the losses, one block.
//   losses     (n)
//   loss       (1)
//   flags      (n_flags), 1 where the bit of `requests` is set, else 0; NaN if the loss is not finite
extern "C" __global__ void sum_loss(const float *losses, float *loss, float *flags, int n, int requests,
                                    int n_flags) {
    float mine = 0.0f;
    for (int k = threadIdx.x; k < n; k += REDUCING) mine += losses[k];
    float total = block_sum(mine);
    if (threadIdx.x == 0) loss[0] = total;
    if (threadIdx.x < n_flags) flags[threadIdx.x] = total * 0.0f + (float)(requests >> threadIdx.x & 1);
}

// Sums the columns of a matrix, 32 columns a block of 32 x 32 threads.
//   matrix     (rows, columns)
//   sums       (columns)
extern "C" __global__ void column_sums(const float *matrix, float *sums, int rows, int columns) {
    __shared__ float partial[32][33];
    int x = threadIdx.x % 32, y = threadIdx.x / 32, column = blockIdx.x * 32 + x;
    float mine = 0.0f;
    if (column < columns)
        for (int row = y; row < rows; row += 32) mine += matrix[row * columns + column];
    partial[y][x] = mine;
    __syncthreads();
    if (y == 0 && column < columns) {
        float total = 0.0f;
        for (int k = 0; k < 32; ++k) total += partial[k][x];
        sums[column] = total;
    }
}

// Computes the gradient of a row lookup: sums the rows of dz that looked up each row, in the order of `order`.
//   dz         (n, columns)
//   order      (n), numbers of lookups sorted by the row that they looked up
//   starts     (rows + 1), where those of each row begin in `order`
//   gradient   (rows, columns); zero for a row that was not looked up
// blockIdx.x is the row, blockIdx.y counts blocks of columns.
extern "C" __global__ void lookup_gradient(const float *dz, const int *order, const int *starts, float *gradient,
                                           int columns) {
    int column = blockIdx.y * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    float total = 0.0f;
    for (int k = starts[blockIdx.x]; k < starts[blockIdx.x + 1]; ++k)
        total += dz[order[k] * columns + column];
    gradient[blockIdx.x * columns + column] = total;
}
