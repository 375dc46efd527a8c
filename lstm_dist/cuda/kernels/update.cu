// Clipping by the global norm, and the SGD step (uses block_sum of output.cu).

// Sums the squares of a part of the numbers in each block.
//   gradient   (n)
//   partial    (gridDim.x)
extern "C" __global__ void square_sums(const float *gradient, float *partial, int n) {
    float mine = 0.0f;
    for (int k = blockIdx.x * REDUCING + threadIdx.x; k < n; k += gridDim.x * REDUCING) mine += gradient[k] * gradient[k];
    float total = block_sum(mine);
    if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

// Computes the norm and the factor min(max_norm / norm, 1) from sums of squares, one block.
//   partial        (n)
//   norm, factor   (1) each
extern "C" __global__ void clip(const float *partial, float *norm, float *factor, float max_norm, int n) {
    float mine = 0.0f;
    for (int k = threadIdx.x; k < n; k += REDUCING) mine += partial[k];
    float total = sqrtf(block_sum(mine));
    if (threadIdx.x == 0) {
        norm[0] = total;
        factor[0] = fminf(max_norm / total, 1.0f);
    }
}

// Subtracts learning_rate * factor * gradients from the parameters.
//   parameters   (V * columns + others): W_x, (V, columns), and then all others
//   gradients    (others + k * columns), of all others, and then of k rows of W_x
//   characters   (k), the row of W_x of each row of gradients
//   factor       (1)
//   n            others + k * columns
extern "C" __global__ void sgd_update(float *parameters, const float *gradients, const int *characters,
                                      const float *factor, float learning_rate, int V, int columns, int others, int n) {
    int k = blockIdx.x * blockDim.x + threadIdx.x;
    if (k >= n) return;
    int where = V * columns + k;
    if (k >= others) where = characters[(k - others) / columns] * columns + (k - others) % columns;
    parameters[where] -= learning_rate * factor[0] * gradients[k];
}

// Gathers the numbers of a step in one array, for one copy to the host: loss, norm, flags.
//   loss, norm   (1) each
//   flags        (n_flags)
//   numbers      (2 + n_flags)
extern "C" __global__ void gather_numbers(const float *loss, const float *norm, const float *flags, float *numbers,
                                          int n_flags) {
    int k = threadIdx.x;
    if (k >= 2 + n_flags) return;
    numbers[k] = k == 0 ? loss[0] : k == 1 ? norm[0] : flags[k - 2];
}
