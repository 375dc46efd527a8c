// One cell of the LSTM: one hidden unit of one stream, at one step.
//
//     i = sigmoid(z_i)    f = sigmoid(z_f)    o = sigmoid(z_o)    g = tanh(z_g)
//     c = f c' + i g      h = o tanh(c)                           c' is that of the step before
//
// Shapes: B streams, T steps, H = HIDDEN. Gates and their derivatives are stored as 4H numbers a stream in the order
// i, f, o, g, so gate k of unit u is number k H + u.

struct Gates {
    float i, f, o, g;
};

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

__device__ __forceinline__ Gates activate(float z_i, float z_f, float z_o, float z_g) {
    Gates gates = {sigmoid(z_i), sigmoid(z_f), sigmoid(z_o), tanhf(z_g)};
    return gates;
}

// Reads and writes the gates of one unit; `gates` points to its first gate.
__device__ __forceinline__ Gates read_gates(const float *gates) {
    Gates read = {gates[0], gates[HIDDEN], gates[2 * HIDDEN], gates[3 * HIDDEN]};
    return read;
}

__device__ __forceinline__ void write_gates(float *gates, Gates written) {
    gates[0] = written.i;
    gates[HIDDEN] = written.f;
    gates[2 * HIDDEN] = written.o;
    gates[3 * HIDDEN] = written.g;
}

// Returns dL/dz of the four gates.
//   dh     dL/dh
//   c      after the step; c_before: before it
//   dc     in: the part of dL/dc from the next step; out: dL/dc_before
__device__ __forceinline__ Gates derivative(Gates y, float c_before, float c, float dh, float *dc) {
    float tanh_c = tanhf(c);
    float total = *dc + dh * y.o * (1.0f - tanh_c * tanh_c);
    Gates dz = {total * y.g * y.i * (1.0f - y.i), total * c_before * y.f * (1.0f - y.f),
                dh * tanh_c * y.o * (1.0f - y.o), total * y.i * (1.0f - y.g * y.g)};
    *dc = total * y.f;
    return dz;
}
