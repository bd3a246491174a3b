// Scaled dot-product attention with narrow heads on CPUs, forward and backward; attention.py loads it.
//
// PyTorch's fused kernel hands its products to a matrix library, and with 16 or 32 channels they are too thin to
// be fast there. Here the lanes of a vector are queries: a block of them, transposed, meets one key after the
// other. So every product multiplies a vector by a broadcast number, maxima and sums need no exchange between
// lanes, and keys and values are read where they lie. The backward pass computes the probabilities again from
// the logarithm of their sum, as FlashAttention-2 does (https://arxiv.org/abs/2307.08691).
//
// Written in the vector extensions of GCC and Clang; the compiler's options choose the instructions.
//
// Legend: B batch, h heads, N queries, M keys, D channels of a head.

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16, ACCUMULATORS = 16;  // of 32 registers
#else
constexpr int LANES = 8, ACCUMULATORS = 8;  // of 16 registers
#endif
constexpr int QUERIES = 2 * LANES;  // of a block
constexpr int KEYS = 64;            // of a block: what is computed for it stays in the first-level cache
constexpr float LOG2_E = 1.44269504f;
constexpr float LOWEST = -3.4e38f;  // unlike -infinity it can be subtracted from itself

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t IntVector __attribute__((vector_size(4 * LANES)));
typedef float UnalignedVector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const UnalignedVector*>(from); }
inline void store(float* to, Vector x) { *reinterpret_cast<UnalignedVector*>(to) = x; }
inline Vector fill(float x) { return x - Vector{}; }
inline Vector maximum(Vector a, Vector b) { return a > b ? a : b; }

// 2**x for x <= 0, with a relative error of 2e-7; 0 below -126.5; NaN remains NaN.
inline Vector exp2(Vector x) {
    x = maximum(fill(-127.0f), x);
    const Vector shifted = x + 12582912.0f;  // 1.5 * 2**23: the nearest whole number is in the low bits
    const Vector rest = x - (shifted - 12582912.0f);
    // Of the polynomials of degree 5 the one nearest to 2**x between -0.5 and 0.5, to 7.5e-8 of it.
    Vector y = 0.00132765f * rest + 0.00967554f;
    y = y * rest + 0.05550713f;
    y = y * rest + 0.24022120f;
    y = y * rest + 0.69314697f;
    y = y * rest + 1.00000007f;
    const IntVector power = (reinterpret_cast<IntVector>(shifted) << 23) + (127 << 23);
    return y * reinterpret_cast<Vector>(power);
}

// Element [i][j] is data[i * row + j * column].
struct Matrix {
    const float* data;
    int64_t row, column;
};

constexpr float SOME_ZEROS[QUERIES] = {};
constexpr Matrix ZEROS = {SOME_ZEROS, 0, 1};

// c = base + a @ b for R rows of a and V vectors of columns of b, both contiguous in c.
template <int R, int V>
inline __attribute__((always_inline)) void multiply_tile(Matrix a, int64_t n, Matrix b, Matrix base, float* c,
                                                         int64_t c_row) {
    Vector sum[R][V] = {};
    for (int64_t i = 0; i < n; ++i) {
        Vector x[V];
        for (int v = 0; v < V; ++v) x[v] = load(b.data + i * b.row + v * LANES);
        for (int r = 0; r < R; ++r)
            for (int v = 0; v < V; ++v) sum[r][v] += a.data[r * a.row + i * a.column] * x[v];
    }
    // Added at the end: sums of a block and then of blocks lose less to rounding than one long sum.
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) {
            const int64_t at = v * LANES;
            store(c + r * c_row + at, load(base.data + r * base.row + at) + sum[r][v]);
        }
}

// c = base + a @ b: (rows, n) @ (n, V vectors). The columns of b, base and c are contiguous; base may be c.
template <int V>
inline void multiply(int64_t rows, Matrix a, int64_t n, Matrix b, Matrix base, float* c, int64_t c_row) {
    constexpr int R = ACCUMULATORS / V;
    for (; rows >= R; rows -= R) {
        multiply_tile<R, V>(a, n, b, base, c, c_row);
        a.data += R * a.row;
        base.data += R * base.row;
        c += R * c_row;
    }
    for (; rows > 0; --rows) {
        multiply_tile<1, V>(a, n, b, base, c, c_row);
        a.data += a.row;
        base.data += base.row;
        c += c_row;
    }
}

// Rows 0 to n of x, scaled, as columns of out (D, QUERIES); the other columns are 0.
template <int D>
inline void transpose(Matrix x, int64_t n, float scale, float* out) {
    for (int64_t i = 0; i < QUERIES; ++i)
        for (int d = 0; d < D; ++d) out[d * QUERIES + i] = i < n ? scale * x.data[i * x.row + d] : 0.0f;
}

}  // namespace

// A tensor of four dimensions whose last one is contiguous. attention.py has the same structure.
struct Tensor {
    float* data;
    int64_t batch_stride, head_stride, row_stride;

    Matrix matrix(int64_t batch, int64_t head, int64_t row) const { return {at(batch, head, row), row_stride, 1}; }
    float* at(int64_t batch, int64_t head, int64_t row) const {
        return data + batch * batch_stride + head * head_stride + row * row_stride;
    }
};

struct Sizes {
    int64_t batch, heads, queries, keys;
};

namespace {

template <int D>
void forward(Sizes size, Tensor q, Tensor k, Tensor v, Tensor bias, Tensor out, Tensor log_sums, int threads) {
    const float scale = LOG2_E / std::sqrt(float(D));
    const int64_t blocks = (size.queries + QUERIES - 1) / QUERIES;
#pragma omp parallel for num_threads(threads)
    for (int64_t item = 0; item < size.batch * size.heads * blocks; ++item) {
        const int64_t batch = item / blocks / size.heads, head = item / blocks % size.heads;
        const int64_t first = item % blocks * QUERIES, n = std::min<int64_t>(QUERIES, size.queries - first);
        alignas(64) float queries[D * QUERIES], result[D * QUERIES] = {}, p[KEYS * QUERIES];
        transpose<D>(q.matrix(batch, head, first), n, scale, queries);
        Vector top[2] = {fill(LOWEST), fill(LOWEST)}, sum[2] = {};
        for (int64_t key = 0; key < size.keys; key += KEYS) {
            const int64_t m = std::min<int64_t>(KEYS, size.keys - key);
            const Matrix keys = k.matrix(batch, head, key), values = v.matrix(batch, head, key);
            const Matrix base = bias.data ? Matrix{bias.at(0, head, key) + first, bias.row_stride, 1} : ZEROS;
            multiply<2>(m, keys, D, {queries, QUERIES, 1}, base, p, QUERIES);
            for (int half = 0; half < 2; ++half) {
                float* column = p + half * LANES;
                const Vector before = top[half];
                for (int64_t j = 0; j < m; ++j) top[half] = maximum(top[half], load(column + j * QUERIES));
                const Vector factor = exp2(before - top[half]);
                for (int d = 0; d < D && key > 0; ++d) {
                    float* to = result + d * QUERIES + half * LANES;
                    store(to, factor * load(to));
                }
                Vector block_sum = {};
                for (int64_t j = 0; j < m; ++j) {
                    const Vector x = exp2(load(column + j * QUERIES) - top[half]);
                    store(column + j * QUERIES, x);
                    block_sum += x;
                }
                sum[half] = factor * sum[half] + block_sum;
            }
            multiply<2>(D, {values.data, 1, values.row}, m, {p, QUERIES, 1}, {result, QUERIES, 1}, result, QUERIES);
        }
        alignas(64) float sums[QUERIES], tops[QUERIES];
        for (int half = 0; half < 2; ++half) {
            store(sums + half * LANES, sum[half]);
            store(tops + half * LANES, top[half]);
        }
        for (int64_t i = 0; i < n; ++i) {
            const float factor = 1.0f / sums[i];
            for (int d = 0; d < D; ++d) out.at(batch, head, first + i)[d] = factor * result[d * QUERIES + i];
            log_sums.at(batch, head, 0)[first + i] = tops[i] + std::log2(sums[i]);
        }
    }
}

template <int D>
void backward(Sizes size, Tensor q, Tensor k, Tensor v, Tensor bias, Tensor out, Tensor log_sums, Tensor grad,
              Tensor grad_q, Tensor grad_k, Tensor grad_v, Tensor grad_bias, int64_t chunks, int64_t splits,
              int threads) {
    constexpr int V = D / LANES;
    const float scale = 1.0f / std::sqrt(float(D));
    const int64_t blocks = (size.queries + QUERIES - 1) / QUERIES;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t item = 0; item < size.heads * chunks * splits; ++item) {
        const int64_t split = item % splits, chunk = item / splits % chunks, head = item / splits / chunks;
        alignas(64) float queries[D * QUERIES], grads[D * QUERIES], result[D * QUERIES];
        alignas(64) float p[KEYS * QUERIES], grad_p[KEYS * QUERIES], log_sum[QUERIES], mean_grad[QUERIES];
        for (int64_t batch = size.batch * chunk / chunks; batch < size.batch * (chunk + 1) / chunks; ++batch) {
            const int64_t part = split * size.batch + batch;
            std::fill_n(grad_k.at(part, head, 0), size.keys * D, 0.0f);
            std::fill_n(grad_v.at(part, head, 0), size.keys * D, 0.0f);
            for (int64_t block = blocks * split / splits; block < blocks * (split + 1) / splits; ++block) {
                const int64_t first = block * QUERIES, n = std::min<int64_t>(QUERIES, size.queries - first);
                const Matrix query_rows = q.matrix(batch, head, first), grad_rows = grad.matrix(batch, head, first);
                transpose<D>(query_rows, n, LOG2_E * scale, queries);
                transpose<D>(grad_rows, n, scale, grads);
                std::fill_n(result, D * QUERIES, 0.0f);
                for (int64_t i = 0; i < QUERIES; ++i) {
                    const float* row = out.at(batch, head, first + (i < n ? i : 0));
                    mean_grad[i] = 0.0f;
                    for (int d = 0; d < D; ++d) mean_grad[i] += grads[d * QUERIES + i] * row[d];
                    log_sum[i] = i < n ? log_sums.at(batch, head, 0)[first + i] : 0.0f;
                }
                for (int64_t key = 0; key < size.keys; key += KEYS) {
                    const int64_t m = std::min<int64_t>(KEYS, size.keys - key);
                    const Matrix keys = k.matrix(batch, head, key), values = v.matrix(batch, head, key);
                    const Matrix base = bias.data ? Matrix{bias.at(0, head, key) + first, bias.row_stride, 1} : ZEROS;
                    multiply<2>(m, keys, D, {queries, QUERIES, 1}, base, p, QUERIES);
                    multiply<2>(m, values, D, {grads, QUERIES, 1}, ZEROS, grad_p, QUERIES);
                    for (int64_t j = 0; j < m; ++j)
                        for (int lane = 0; lane < QUERIES; lane += LANES) {
                            const int64_t at = j * QUERIES + lane;
                            Vector x = exp2(load(p + at) - load(log_sum + lane));
                            store(p + at, x);
                            x *= load(grad_p + at) - load(mean_grad + lane);
                            store(grad_p + at, x);
                            if (grad_bias.data) {
                                float* to = grad_bias.at(chunk, head, key + j) + first + lane;
                                store(to, load(to) + x);
                            }
                        }
                    const Matrix logit_grads = {grad_p, QUERIES, 1};
                    multiply<2>(D, {keys.data, 1, keys.row}, m, logit_grads, {result, QUERIES, 1}, result, QUERIES);
                    float *to_k = grad_k.at(part, head, key), *to_v = grad_v.at(part, head, key);
                    multiply<V>(m, logit_grads, n, query_rows, {to_k, D, 1}, to_k, D);
                    multiply<V>(m, {p, QUERIES, 1}, n, grad_rows, {to_v, D, 1}, to_v, D);
                }
                for (int64_t i = 0; i < n; ++i)
                    for (int d = 0; d < D; ++d) grad_q.at(batch, head, first + i)[d] = result[d * QUERIES + i];
            }
        }
    }
}

}  // namespace

// Of the functions below; attention.py loads no other. It counts up with each change of what they take or compute.
extern "C" int attention_version() { return 1; }

// softmax(q @ k.T / sqrt(D) + bias) @ v. Shapes: q, out (B, h, N, D); k, v (B, h, M, D); bias (1, h, M, N), with
// the last dimension a multiple of 32, multiplied by log2(e), or without data; log_sums (B, h, 1, N) gets the base-2
// logarithms of the softmax's denominators. D (channels) is 16, 32 or 64.
extern "C" void attention_forward(Sizes size, int64_t channels, Tensor q, Tensor k, Tensor v, Tensor bias, Tensor out,
                                  Tensor log_sums, int threads) {
    switch (channels) {
        case 16: forward<16>(size, q, k, v, bias, out, log_sums, threads); break;
        case 32: forward<32>(size, q, k, v, bias, out, log_sums, threads); break;
        case 64: forward<64>(size, q, k, v, bias, out, log_sums, threads); break;
    }
}

// Gradients for that of the output, (B, h, N, D). So that threads share no sums and the order of every addition is
// fixed, the queries are treated in `splits` portions with keys' and values' gradients of their own, contiguous
// (splits * B, h, M, D), and the batch in `chunks` with a bias gradient of their own, (chunks, h, M, N), which comes
// filled with zeros and is returned divided by sqrt(D).
extern "C" void attention_backward(Sizes size, int64_t channels, Tensor q, Tensor k, Tensor v, Tensor bias, Tensor out,
                                   Tensor log_sums, Tensor grad, Tensor grad_q, Tensor grad_k, Tensor grad_v,
                                   Tensor grad_bias, int64_t chunks, int64_t splits, int threads) {
#define BACKWARD(D)                                                                                              \
    backward<D>(size, q, k, v, bias, out, log_sums, grad, grad_q, grad_k, grad_v, grad_bias, chunks, splits, threads)
    switch (channels) {
        case 16: BACKWARD(16); break;
        case 32: BACKWARD(32); break;
        case 64: BACKWARD(64); break;
    }
}
