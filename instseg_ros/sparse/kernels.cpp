// SPDX-License-Identifier: Apache-2.0
// CPU kernels of the sparse convolution, behind a plain C interface (loaded with ctypes; no Python, no torch ABI).
//
// All of them work on a table [rows, taps] of input rows, -1 where there is none:
//     out[n] = bias + sum_k x[table[n, k]] W[k]
// Callers run the same call from several threads, which share out blocks of rows.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#else
constexpr int kLanes = 8;
#endif
typedef float Vec __attribute__((vector_size(kLanes * sizeof(float)), aligned(4), may_alias));

constexpr int kTile = 2;                      // vectors of output channels kept in registers at once
constexpr int kWidth = kLanes * kTile;        // output channels per tile
constexpr int64_t kAccumulatorFloats = 8192;  // a block's accumulator stays in the first-level cache

inline Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }

// acc[r][0:width] += x[r][0:cin] W[0:cin][0:width] for R rows; W has row stride `stride`, T vectors wide.
template <int R, int T>
inline void multiply_rows(const float* const* x, float* const* acc, const float* w, int cin, int stride) {
  Vec sum[R][T];
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) sum[r][t] = load(acc[r] + t * kLanes);
  for (int i = 0; i < cin; ++i) {
    Vec weight[T];
    for (int t = 0; t < T; ++t) weight[t] = load(w + static_cast<int64_t>(i) * stride + t * kLanes);
    for (int r = 0; r < R; ++r)
      for (int t = 0; t < T; ++t) sum[r][t] += x[r][i] * weight[t];
  }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) store(acc[r] + t * kLanes, sum[r][t]);
}

template <int T>
void multiply_pairs(const float** x, float** acc, int count, const float* w, int cin, int stride) {
  int p = 0;
  for (; p + 8 <= count; p += 8) multiply_rows<8, T>(x + p, acc + p, w, cin, stride);
  if (p + 4 <= count) multiply_rows<4, T>(x + p, acc + p, w, cin, stride), p += 4;
  if (p + 2 <= count) multiply_rows<2, T>(x + p, acc + p, w, cin, stride), p += 2;
  if (p < count) multiply_rows<1, T>(x + p, acc + p, w, cin, stride);
}

// dw[i][0:width] += x[p][i] dy[p][0:width] over all pairs, for R input channels.
template <int R, int T>
inline void outer_rows(const float* const* x, const float* const* dy, int count, int i, int j, float* dw, int stride) {
  Vec sum[R][T];
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) sum[r][t] = load(dw + static_cast<int64_t>(i + r) * stride + j + t * kLanes);
  for (int p = 0; p < count; ++p) {
    Vec grad[T];
    for (int t = 0; t < T; ++t) grad[t] = load(dy[p] + j + t * kLanes);
    for (int r = 0; r < R; ++r)
      for (int t = 0; t < T; ++t) sum[r][t] += x[p][i + r] * grad[t];
  }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) store(dw + static_cast<int64_t>(i + r) * stride + j + t * kLanes, sum[r][t]);
}

template <int T>
void outer_pairs(const float* const* x, const float* const* dy, int count, int cin, int j, float* dw, int stride) {
  int i = 0;
  for (; i + 8 <= cin; i += 8) outer_rows<8, T>(x, dy, count, i, j, dw, stride);
  for (; i + 4 <= cin; i += 4) outer_rows<4, T>(x, dy, count, i, j, dw, stride);
  for (; i < cin; ++i) outer_rows<1, T>(x, dy, count, i, j, dw, stride);
}

inline int64_t block_rows(int cout) { return std::max<int64_t>(64, kAccumulatorFloats / cout); }

inline bool take_block(int64_t* next, int64_t size, int64_t rows, int64_t* begin, int64_t* end) {
  *begin = __atomic_fetch_add(next, size, __ATOMIC_RELAXED);
  *end = std::min(*begin + size, rows);
  return *begin < rows;
}

}  // namespace

extern "C" {

// Channels of `w`, `bias` and `out` must be padded to a multiple of this.
int instseg_channel_multiple() { return kLanes; }

// x [inputs, cin]; table [rows, taps]; w [taps, cin, cout]; bias [cout] or null; residual [rows, cout] or null;
// out [rows, cout] = (bias + conv + residual), negative values set to zero if relu.
// Blocks of rows are taken from the counter `next`, which all callers share and which starts at 0.
void instseg_conv(const float* x, const int32_t* table, const float* w, const float* bias, const float* residual, float* out,
                  int64_t rows, int taps, int cin, int cout, int relu, int64_t* next) {
  const int64_t size = block_rows(cout);
  std::vector<float> accumulator(size * cout);
  std::vector<const float*> source(size);
  std::vector<float*> target(size), column(size);
  int64_t begin, end;
  while (take_block(next, size, rows, &begin, &end)) {
    const int64_t count = end - begin;
    for (int64_t r = 0; r < count; ++r) {
      float* row = accumulator.data() + r * cout;
      if (bias) std::memcpy(row, bias, cout * sizeof(float));
      else std::memset(row, 0, cout * sizeof(float));
    }
    for (int k = 0; k < taps; ++k) {
      int pairs = 0;
      for (int64_t r = 0; r < count; ++r) {
        const int32_t input = table[(begin + r) * taps + k];
        if (input < 0) continue;
        source[pairs] = x + static_cast<int64_t>(input) * cin;
        target[pairs++] = accumulator.data() + r * cout;
      }
      if (!pairs) continue;
      const float* weight = w + static_cast<int64_t>(k) * cin * cout;
      for (int j = 0; j < cout; j += kWidth) {
        for (int p = 0; p < pairs; ++p) column[p] = target[p] + j;
        if (cout - j >= kWidth) multiply_pairs<kTile>(source.data(), column.data(), pairs, weight + j, cin, cout);
        else multiply_pairs<1>(source.data(), column.data(), pairs, weight + j, cin, cout);
      }
    }
    float* result = out + begin * cout;
    const float* sum = accumulator.data();
    const float* skip = residual ? residual + begin * cout : nullptr;
    for (int64_t i = 0; i < count * cout; ++i) {
      float value = skip ? sum[i] + skip[i] : sum[i];
      result[i] = relu && value < 0.0f ? 0.0f : value;
    }
  }
}

// dw [taps, cin, cout] += sum_n x[table[n, k]]^T dy[n] over every `workers`-th block of rows from block `worker` on.
// Every worker brings its own dw, and the blocks are fixed, so that the sum does not depend on who was faster.
void instseg_conv_weight_grad(const float* x, const int32_t* table, const float* dy, float* dw, int64_t rows, int taps, int cin,
                              int cout, int worker, int workers) {
  const int64_t size = 512;
  std::vector<const float*> source(size), grad(size);
  for (int64_t begin = worker * size; begin < rows; begin += workers * size) {
    const int64_t end = std::min(begin + size, rows);
    for (int k = 0; k < taps; ++k) {
      int pairs = 0;
      for (int64_t n = begin; n < end; ++n) {
        const int32_t input = table[n * taps + k];
        if (input < 0) continue;
        source[pairs] = x + static_cast<int64_t>(input) * cin;
        grad[pairs++] = dy + n * cout;
      }
      float* slice = dw + static_cast<int64_t>(k) * cin * cout;
      for (int j = 0; pairs && j < cout; j += kWidth) {
        if (cout - j >= kWidth) outer_pairs<kTile>(source.data(), grad.data(), pairs, cin, j, slice, cout);
        else outer_pairs<1>(source.data(), grad.data(), pairs, cin, j, slice, cout);
      }
    }
  }
}

// neighbors[i, (dx+1)*9 + (dy+1)*3 + (dz+1)] = slot of coords[i] + (dx, dy, dz), -1 where there is none.
// chunk[i]: chunk that holds coords[i]; chunk_neighbors [chunks, 27]: adjacent chunks, same order, -1 = none;
// slots [chunks, 16, 16, 16].
void instseg_neighbors(const int32_t* coords, const int32_t* chunk, const int32_t* chunk_neighbors, const int32_t* slots,
                       int32_t* neighbors, int64_t rows) {
  for (int64_t i = 0; i < rows; ++i) {
    const int lx = coords[3 * i] & 15, ly = coords[3 * i + 1] & 15, lz = coords[3 * i + 2] & 15;
    const int32_t* around = chunk_neighbors + 27 * static_cast<int64_t>(chunk[i]);
    int32_t* out = neighbors + 27 * i;
    for (int dx = -1; dx <= 1; ++dx)
      for (int dy = -1; dy <= 1; ++dy)
        for (int dz = -1; dz <= 1; ++dz) {
          const int x = lx + dx, y = ly + dy, z = lz + dz;
          const int32_t c = around[((x >> 4) + 1) * 9 + ((y >> 4) + 1) * 3 + ((z >> 4) + 1)];
          *out++ = c < 0 ? -1 : slots[static_cast<int64_t>(c) * 4096 + (x & 15) * 256 + (y & 15) * 16 + (z & 15)];
        }
  }
}

}  // extern "C"
