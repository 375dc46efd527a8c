// The cells of all streams at one step; cuBLAS multiplies by W_h between two steps. One thread a cell.

// Copies the state of one layer, columns layer * H to (layer + 1) * H of (B, layers * H), to step 0 of h and c.
//   h_state, c_state   (B, layers * H)
//   h, c               (T + 1, B, H)
extern "C" __global__ void load_state(const float *h_state, const float *c_state, float *h, float *c, int layer,
                                      int layers, int B) {
    int cell = blockIdx.x * blockDim.x + threadIdx.x;
    if (cell >= B * HIDDEN) return;
    int there = (cell / HIDDEN * layers + layer) * HIDDEN + cell % HIDDEN;
    h[cell] = h_state[there];
    c[cell] = c_state[there];
}

// Copies step T of h and c, as above, to the state of one layer.
extern "C" __global__ void store_state(const float *h, const float *c, float *h_state, float *c_state, int layer,
                                       int layers, int B, int T) {
    int cell = blockIdx.x * blockDim.x + threadIdx.x;
    if (cell >= B * HIDDEN) return;
    int there = (cell / HIDDEN * layers + layer) * HIDDEN + cell % HIDDEN;
    h_state[there] = h[T * B * HIDDEN + cell];
    c_state[there] = c[T * B * HIDDEN + cell];
}

// Step t, from 0, forward.
//   x        rows of 4H numbers, x W_x: the matrix W_x with one row a character, or one row a step and stream
//   rows     (T, B), the row of `x` of each step and stream, if is_lookup; else row t B + b of `x` is stream b's
//   b        (4H)
//   z        (B, 4H), h_t W_h
//   h, c     (T + 1, B, H); element t is read, t + 1 written
//   gates    (T, B, 4H); element t is written
extern "C" __global__ void cell_forward(const float *x, const int *rows, const float *b, const float *z, float *h,
                                        float *c, float *gates, int is_lookup, int t, int B) {
    int cell = blockIdx.x * blockDim.x + threadIdx.x;
    if (cell >= B * HIDDEN) return;
    int stream = t * B + cell / HIDDEN, unit = cell % HIDDEN;
    const float *mine = x + (is_lookup ? rows[stream] : stream) * 4 * HIDDEN + unit;
    float sums[4];
    for (int gate = 0; gate < 4; ++gate) {
        int number = gate * HIDDEN + unit;
        sums[gate] = mine[gate * HIDDEN] + b[number] + z[cell / HIDDEN * 4 * HIDDEN + number];
    }
    Gates y = activate(sums[0], sums[1], sums[2], sums[3]);
    float after = y.f * c[stream * HIDDEN + unit] + y.i * y.g;
    write_gates(gates + stream * 4 * HIDDEN + unit, y);
    c[(stream + B) * HIDDEN + unit] = after;
    h[(stream + B) * HIDDEN + unit] = y.o * tanhf(after);
}

// Step t backward.
//   dh_out   (T, B, H), dL/dh_{t+1} from the layer above
//   dh_next  (B, H), dL/dh_{t+1} from step t + 1; not read at the last step
//   c        (T + 1, B, H)
//   gates    (T, B, 4H); element t is replaced by dL/dz_t
//   dc       (B, H), dL/dc, carried from step to step
extern "C" __global__ void cell_backward(const float *dh_out, const float *dh_next, const float *c, float *gates,
                                         float *dc, int t, int B, int T) {
    int cell = blockIdx.x * blockDim.x + threadIdx.x;
    if (cell >= B * HIDDEN) return;
    int stream = t * B + cell / HIDDEN, unit = cell % HIDDEN;
    bool is_last = t == T - 1;
    float dh = dh_out[stream * HIDDEN + unit] + (is_last ? 0.0f : dh_next[cell]);
    float carried = is_last ? 0.0f : dc[cell];
    float *mine = gates + stream * 4 * HIDDEN + unit;
    float c_before = c[stream * HIDDEN + unit], c_after = c[(stream + B) * HIDDEN + unit];
    write_gates(mine, derivative(read_gates(mine), c_before, c_after, dh, &carried));
    dc[cell] = carried;
}
