// SPDX-License-Identifier: Apache-2.0
// CPU kernels of the sparse convolution, behind a plain C interface (loaded with ctypes; no Python, no torch ABI).
//
// The convolutions work on a table [rows, taps] of input rows, -1 where there is none:
//     out[n] = bias + sum_k x[table[n, k]] W[k]
// The rest keeps the tables of a level of voxels (level.py), finds the rows that a change reaches (incremental.py), and joins
// items by their distances (grouping/weighted_hdbscan.py).

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include <unistd.h>

#if defined(__F16C__)
#include <immintrin.h>
#endif

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

// Cached outputs may be kept in half precision (IEEE binary16); all sums are of floats.
typedef uint16_t Half;
constexpr float kMostHalf = 65504.0f;

#if defined(__F16C__)
inline void widen(const Half* from, float* to, int64_t count) {
  int64_t j = 0;
  for (; j + 8 <= count; j += 8) _mm256_storeu_ps(to + j, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + j))));
  for (; j < count; ++j) to[j] = _cvtsh_ss(from[j]);
}

inline void narrow(const float* from, Half* to, int64_t count) {
  const __m256 most = _mm256_set1_ps(kMostHalf), least = _mm256_set1_ps(-kMostHalf);
  int64_t j = 0;
  for (; j + 8 <= count; j += 8) {
    const __m256 within = _mm256_max_ps(least, _mm256_min_ps(most, _mm256_loadu_ps(from + j)));  // a NaN passes
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + j), _mm256_cvtps_ph(within, _MM_FROUND_TO_NEAREST_INT));
  }
  for (; j < count; ++j) to[j] = _cvtss_sh(from[j] > kMostHalf ? kMostHalf : from[j] < -kMostHalf ? -kMostHalf : from[j], _MM_FROUND_TO_NEAREST_INT);
}
#elif defined(__aarch64__)
inline void widen(const Half* from, float* to, int64_t count) {
  const __fp16* halves = reinterpret_cast<const __fp16*>(from);
  for (int64_t j = 0; j < count; ++j) to[j] = halves[j];
}

inline void narrow(const float* from, Half* to, int64_t count) {
  __fp16* halves = reinterpret_cast<__fp16*>(to);
  for (int64_t j = 0; j < count; ++j)
    halves[j] = static_cast<__fp16>(from[j] > kMostHalf ? kMostHalf : from[j] < -kMostHalf ? -kMostHalf : from[j]);
}
#else
inline void widen(const Half* from, float* to, int64_t count) {
  for (int64_t j = 0; j < count; ++j) {
    const uint32_t sign = static_cast<uint32_t>(from[j] & 0x8000) << 16, rest = from[j] & 0x7fff;
    if (rest < 0x400) {  // zero and what is smaller than any normal number
      const float small = static_cast<float>(rest) * 5.9604644775390625e-8f;
      to[j] = sign ? -small : small;
    } else {
      const uint32_t bits = sign | (rest < 0x7c00 ? (rest << 13) + 0x38000000 : (rest << 13) | 0x7f800000);
      std::memcpy(to + j, &bits, sizeof bits);
    }
  }
}

inline void narrow(const float* from, Half* to, int64_t count) {
  for (int64_t j = 0; j < count; ++j) {
    uint32_t bits;
    std::memcpy(&bits, from + j, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    uint32_t half;
    if (rest > 0x7f800000) half = 0x7e00;          // NaN
    else if (rest >= 0x477fe000) half = 0x7bff;    // kMostHalf and more
    else if (rest >= 0x38800000) half = (rest - 0x38000000 + 0xfff + (rest >> 13 & 1)) >> 13;
    else half = static_cast<uint32_t>(std::nearbyint(std::fabs(from[j]) * 16777216.0f));
    to[j] = static_cast<Half>(sign | half);
  }
}
#endif

// Rows of floats or of halves.
struct Rows {
  const void* data;
  int64_t stride;
  bool half;

  // The first `count` values of a row, in `scratch` if they have to be widened.
  const float* row(int64_t i, int64_t count, float* scratch) const {
    if (!half) return static_cast<const float*>(data) + i * stride;
    widen(static_cast<const Half*>(data) + i * stride, scratch, count);
    return scratch;
  }
};

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

// acc[p][0:width] += x[p][0:cin] W for `count` pairs; `column` [count] is scratch.
inline void multiply(const float** x, float* const* acc, float** column, int count, const float* w, int cin, int width) {
  for (int j = 0; j < width; j += kWidth) {
    for (int p = 0; p < count; ++p) column[p] = acc[p] + j;
    if (width - j >= kWidth) multiply_pairs<kTile>(x, column, count, w + j, cin, width);
    else multiply_pairs<1>(x, column, count, w + j, cin, width);
  }
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

constexpr int64_t kRowsPerThread = 256;  // fewer are not worth waking a thread for
constexpr int kChunkBits = 4;            // chunks are cubes of 16 voxels on a side
constexpr int kChunkMask = (1 << kChunkBits) - 1;
constexpr int64_t kChunkCells = 1 << (3 * kChunkBits);

inline int64_t block_rows(int cout) { return std::max<int64_t>(64, kAccumulatorFloats / cout); }

inline void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// Threads that help whoever calls. All work is handed out in blocks through a counter, so it does not matter who helps, or
// whether anybody does: the caller waits for helpers that have begun, never for one that the system has not let run yet. The
// layers of a refresh follow each other within microseconds; helpers wait for the next one awake for a moment before they sleep.
class Pool {
 public:
  static Pool& get() {
    static std::mutex guard;
    static Pool* pool = nullptr;
    static pid_t owner = 0;
    const std::lock_guard<std::mutex> lock(guard);
    if (!pool || owner != getpid()) pool = new Pool, owner = getpid();  // a forked process has none of its parent's threads
    return *pool;
  }

  template <class Work>
  void run(int threads, const Work& work) {
    if (threads <= 1 || !entry_.try_lock()) return work();  // another thread's call has the helpers
    start(threads - 1);
    context_ = &work;
    call_ = [](const void* context) { (*static_cast<const Work*>(context))(); };
    limit_ = threads - 1;
    closed_ = false;
    ++generation_;
    if (sleepers_ > 0) {
      const std::lock_guard<std::mutex> lock(mutex_);
      wake_.notify_all();
    }
    work();
    closed_ = true;
    while (active_ != 0) pause_briefly();
    entry_.unlock();
  }

 private:
  void start(int count) {
    try {
      for (int i = started_; i < count; ++i, ++started_) std::thread(&Pool::help, this, i).detach();
    } catch (const std::system_error&) {
    }
  }

  void help(int number) {
    for (uint64_t seen = 0;;) {
      wait_for_call(seen);
      seen = generation_;
      if (number >= limit_) continue;
      ++active_;  // from here on the caller waits, unless it has closed already
      if (!closed_) call_(context_);
      --active_;
    }
  }

  void wait_for_call(uint64_t seen) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(100);
    do {
      for (int i = 0; i < 64; ++i) {
        if (generation_ != seen) return;
        pause_briefly();
      }
    } while (std::chrono::steady_clock::now() < end);
    std::unique_lock<std::mutex> lock(mutex_);
    ++sleepers_;
    wake_.wait(lock, [&] { return generation_ != seen; });
    --sleepers_;
  }

  std::mutex entry_, mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> generation_{0};
  std::atomic<int> active_{0}, sleepers_{0}, limit_{0};
  std::atomic<bool> closed_{true};
  std::atomic<const void*> context_{nullptr};
  std::atomic<void (*)(const void*)> call_{nullptr};
  int started_ = 0;
};

// Runs work() in as many threads as are wanted and useful for that many rows.
template <class Work>
void in_threads(int threads, int64_t rows, const Work& work) {
  const int useful = static_cast<int>(std::min<int64_t>(threads, 1 + rows / kRowsPerThread));
  if (useful <= 1) work();
  else Pool::get().run(useful, work);
}

inline int64_t chunk_key(const int32_t* c) {
  const int64_t bias = int64_t(1) << 20;
  return (((c[0] >> kChunkBits) + bias) << 42) | (((c[1] >> kChunkBits) + bias) << 21) | ((c[2] >> kChunkBits) + bias);
}

inline int64_t cell_of(const int32_t* c) {
  return ((c[0] & kChunkMask) << (2 * kChunkBits)) | ((c[1] & kChunkMask) << kChunkBits) | (c[2] & kChunkMask);
}

// Whether a and b [count] are further apart than the threshold anywhere.
inline bool differs(const float* a, const float* b, int count, float threshold) {
  decltype(Vec() > Vec()) any{};
  int j = 0;
  for (; j + kLanes <= count; j += kLanes) {
    const Vec d = load(a + j) - load(b + j);
    any |= (d > threshold) | (d < -threshold);
  }
  bool found = false;
  for (int i = 0; i < kLanes; ++i) found |= any[i] != 0;
  for (; j < count; ++j) found |= std::fabs(a[j] - b[j]) > threshold;
  return found;
}

// Row n of out becomes bias + conv + residual, negative values zero if relu. With moved [count], only rows that move by more than the
// threshold in one of their columns, or are fresh[n], are written, and moved says which.
struct Convolution {
  Rows x;
  const int32_t* table;  // [*, taps]; null: every row reads itself, one tap
  const float* w;        // [taps, cin, width]
  const float* bias;     // [width] or null
  const void* residual;  // as out, or null
  void* out;             // [*, cout] floats or halves
  bool out_half;
  const int32_t* rows;  // [count]: which n; null: 0..count-1
  // Where a row of x, and a row of out and residual, is stored (null: the row itself); inputs that are stored nowhere (-1) are left out.
  const int32_t* place_in;
  const int32_t* place_out;
  int64_t count;
  int taps, cin, cout, width;
  bool relu;
  float threshold;
  const uint8_t* fresh;
  uint8_t* moved;
};

// One worker of a convolution: takes blocks of rows until there are none left.
void convolve(const Convolution& c, std::atomic<int64_t>& next) {
  const int64_t size = block_rows(c.width);
  std::vector<float> accumulator(size * c.width);
  std::vector<float> wide(c.x.half ? size * c.cin : 0), before(c.cout), added(c.cout);
  std::vector<Half> narrowed(c.cout);
  std::vector<const float*> source(size);
  std::vector<float*> target(size), column(size);
  const Rows residual{c.residual, c.cout, c.out_half}, written{c.out, c.cout, c.out_half};
  for (int64_t begin; (begin = next.fetch_add(size)) < c.count;) {
    const int64_t count = std::min(size, c.count - begin);
    const auto row_of = [&](int64_t r) { return c.rows ? static_cast<int64_t>(c.rows[begin + r]) : begin + r; };
    for (int64_t r = 0; r < count; ++r) {
      float* row = accumulator.data() + r * c.width;
      if (c.bias) std::memcpy(row, c.bias, c.width * sizeof(float));
      else std::memset(row, 0, c.width * sizeof(float));
    }
    for (int k = 0; k < c.taps; ++k) {
      int pairs = 0;
      for (int64_t r = 0; r < count; ++r) {
        int32_t input = c.table ? c.table[row_of(r) * c.taps + k] : static_cast<int32_t>(row_of(r));
        if (input < 0 || (c.place_in && (input = c.place_in[input]) < 0)) continue;
        source[pairs] = c.x.row(input, c.cin, wide.data() + pairs * c.cin);
        target[pairs++] = accumulator.data() + r * c.width;
      }
      if (!pairs) continue;
      multiply(source.data(), target.data(), column.data(), pairs, c.w + static_cast<int64_t>(k) * c.cin * c.width, c.cin, c.width);
    }
    for (int64_t r = 0; r < count; ++r) {
      const int64_t n = row_of(r);
      const int64_t stored = c.place_out ? c.place_out[n] : n;
      float* sum = accumulator.data() + r * c.width;
      if (c.residual) {
        const float* more = residual.row(stored, c.cout, added.data());
        for (int j = 0; j < c.cout; ++j) sum[j] += more[j];
      }
      if (c.relu)
        for (int j = 0; j < c.cout; ++j) sum[j] = sum[j] < 0.0f ? 0.0f : sum[j];
      if (c.out_half) {  // as it will be read again, so that what did not change does not differ
        narrow(sum, narrowed.data(), c.cout);
        widen(narrowed.data(), sum, c.cout);
      }
      if (c.moved) {
        c.moved[begin + r] = c.threshold < 0.0f || c.fresh[n] || differs(sum, written.row(stored, c.cout, before.data()), c.cout, c.threshold);
        if (!c.moved[begin + r]) continue;
      }
      if (c.out_half) std::memcpy(static_cast<Half*>(c.out) + stored * c.cout, narrowed.data(), c.cout * sizeof(Half));
      else std::memcpy(static_cast<float*>(c.out) + stored * c.cout, sum, c.cout * sizeof(float));
    }
  }
}

typedef int32_t IntVec __attribute__((vector_size(kLanes * sizeof(int32_t))));

// exp of values from -87 to 0, to the last bits of a float (Cephes' polynomial).
inline Vec exp_negative(Vec x) {
  const IntVec n = __builtin_convertvector(x * 1.44269504f - 0.5f, IntVec);
  const Vec whole = __builtin_convertvector(n, Vec);
  const Vec r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  Vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const IntVec power = (n + 127) << 23;
  Vec scale;
  std::memcpy(&scale, &power, sizeof(Vec));
  return (p * r * r + r + 1.0f) * scale;
}

// What heads.published makes of the last layer, by number.
enum Form { kPlain, kSoftmax, kUnit, kPositive };

// A perceptron of two layers on each row; every member has 8 bytes.
struct Head {
  const float* w1;  // [cin, hidden_width]
  const float* b1;
  const float* w2;  // [hidden, width]
  const float* b2;
  int64_t hidden, hidden_width, cout, width, form;
  float* out;  // [*, cout]
};

// In place, y [width], whose columns from cout on are padding.
void put_in_form(float* y, const Head& head) {
  if (head.form == kSoftmax) {
    const float top = *std::max_element(y, y + head.cout);
    std::fill(y + head.cout, y + head.width, -INFINITY);
    Vec sum{};
    for (int64_t j = 0; j < head.width; j += kLanes) {
      const Vec below = load(y + j) - top;
      const Vec e = exp_negative(below < -87.0f ? Vec{} - 87.0f : below);
      store(y + j, e);
      sum += e;
    }
    float total = 0.0f;
    for (int i = 0; i < kLanes; ++i) total += sum[i];
    for (int64_t j = 0; j < head.width; j += kLanes) store(y + j, load(y + j) / total);
  } else if (head.form == kUnit) {
    float square = 0.0f;
    for (int64_t j = 0; j < head.cout; ++j) square += y[j] * y[j];
    const float length = std::max(std::sqrt(square), 1e-6f);
    for (int64_t j = 0; j < head.cout; ++j) y[j] /= length;
  } else if (head.form == kPositive) {
    for (int64_t j = 0; j < head.cout; ++j) y[j] = std::exp(std::min(std::max(y[j], -5.0f), 5.0f));
  }
}

// Rows to look at in a table [*, taps] of rows (null: the rows themselves).
struct Reads {
  const int32_t* table;
  int64_t taps;
  const int32_t* rows;
  int64_t count;
};

// Appends to out the rows that are read, each once: stamp[row] becomes `epoch` when it is taken. Returns the new number of rows in
// out. With threads, their order is a matter of chance.
int64_t reach(const Reads& reads, int32_t* stamp, int32_t epoch, int32_t* out, int64_t have, int threads) {
  constexpr int64_t kBlock = 128, kAhead = 4;
  std::atomic<int64_t> next{0}, end{have};
  in_threads(threads, reads.count / 2, [&] {
    std::vector<int32_t> taken(kBlock * reads.taps), open(reads.taps);
    for (int64_t begin; (begin = next.fetch_add(kBlock)) < reads.count;) {
      int64_t found = 0;
      // Most rows are absent or taken, and which ones cannot be foretold: these steps do not branch on it.
      const auto take = [&](const int32_t* rows, int64_t count) {
        int64_t candidates = 0;
        for (int64_t k = 0; k < count; ++k) {
          const int32_t row = rows[k], there = row < 0 ? 0 : row;
          open[candidates] = row;
          candidates += (row >= 0) & (__atomic_load_n(stamp + there, __ATOMIC_RELAXED) != epoch);
        }
        for (int64_t k = 0; k < candidates; ++k) {
          taken[found] = open[k];
          found += __atomic_exchange_n(stamp + open[k], epoch, __ATOMIC_RELAXED) != epoch;
        }
      };
      const int64_t stop = std::min(begin + kBlock, reads.count);
      for (int64_t i = begin; i < stop; ++i) {
        if (!reads.table) {
          take(reads.rows + i, 1);
        } else if (reads.rows[i] >= 0) {
          if (i + kAhead < stop && reads.rows[i + kAhead] >= 0) {
            const int32_t* ahead = reads.table + reads.rows[i + kAhead] * reads.taps;
            __builtin_prefetch(ahead);
            __builtin_prefetch(ahead + reads.taps - 1);
          }
          take(reads.table + reads.rows[i] * reads.taps, reads.taps);
        }
      }
      if (found) std::memcpy(out + end.fetch_add(found), taken.data(), found * sizeof(int32_t));
    }
  });
  return end;
}

// One layer of a wave; every member has 8 bytes, so that numpy can lay it out.
struct Step {
  // as those of a Convolution
  const void* x;
  int64_t x_half;
  const int32_t* table;
  const float* w;
  const float* bias;
  const void* residual;
  void* out;
  int64_t out_half;
  const int32_t* place_in;
  const int32_t* place_out;
  int64_t taps, cin, cout, width, relu;
  double threshold;
  const uint8_t* fresh;
  // which rows are due: those that any of these reads; where `rows` is null, the rows that moved in step number `count`
  int32_t* stamp;
  int64_t epoch, most;  // there are no more rows than `most`
  Reads reads[3];
  // what came of it
  int64_t due, moved;
};

}  // namespace

extern "C" {

// Columns of `w` and `bias` must be padded to a multiple of this.
int instseg_channel_multiple() { return kLanes; }

// out [count, cout] = bias + conv + residual, negative values zero if relu; x [inputs, cin]; table [count, taps]; w [taps, cin, width];
// bias [width] and residual [count, cout] or null; cout <= width.
void instseg_conv(const float* x, const int32_t* table, const float* w, const float* bias, const float* residual, float* out, int64_t count,
                  int taps, int cin, int cout, int width, int relu, int threads) {
  const Convolution c{{x, cin, false}, table, w, bias, residual, out, false, nullptr, nullptr, nullptr, count,
                      taps, cin, cout, width, relu != 0, 0.0f, nullptr, nullptr};
  std::atomic<int64_t> next{0};
  in_threads(threads, count, [&] { convolve(c, next); });
}

// A wave through the layers of a network: finds the rows that are due in each step, recomputes them, and goes on
// with those that moved. last [most of the last step] receives the rows that moved there.
void instseg_wave(Step* steps, int64_t count, int32_t* last, int threads) {
  std::vector<std::unique_ptr<int32_t[]>> moved_rows;
  std::vector<uint8_t> moved;
  for (int64_t i = 0; i < count; ++i) {
    Step& s = steps[i];
    int64_t most = 0;
    for (Reads& reads : s.reads) {
      if (!reads.rows && reads.count >= 0) reads = {reads.table, reads.taps, moved_rows[reads.count].get(), steps[reads.count].moved};
      most += std::max<int64_t>(0, reads.count) * reads.taps;
    }
    moved_rows.emplace_back(new int32_t[std::min(most, s.most)]);
    int32_t* due = moved_rows.back().get();
    s.due = 0;
    for (const Reads& reads : s.reads)
      if (reads.count > 0) s.due = reach(reads, s.stamp, static_cast<int32_t>(s.epoch), due, s.due, threads);
    moved.resize(s.due);
    const Convolution c{{s.x, s.cin, s.x_half != 0}, s.table, s.w, s.bias, s.residual, s.out, s.out_half != 0,
                        due, s.place_in, s.place_out, s.due,
                        static_cast<int>(s.taps), static_cast<int>(s.cin), static_cast<int>(s.cout), static_cast<int>(s.width),
                        s.relu != 0, static_cast<float>(s.threshold), s.fresh, moved.data()};
    std::atomic<int64_t> next{0};
    in_threads(threads, s.due, [&] { convolve(c, next); });
    s.moved = 0;
    for (int64_t r = 0; r < s.due; ++r) {
      due[s.moved] = due[r];
      s.moved += moved[r];
    }
  }
  if (count) std::memcpy(last, moved_rows.back().get(), steps[count - 1].moved * sizeof(int32_t));
}

// All heads at some rows: heads[h].out[rows[i]] for x[place[rows[i]]] (place null: the row itself); x [*, cin], floats or halves.
void instseg_heads(const void* x, int64_t cin, int x_half, const int32_t* rows, const int32_t* place, int64_t count, const Head* heads, int64_t number,
                   int threads) {
  constexpr int64_t kBlock = 128;
  const Rows inputs{x, cin, x_half != 0};
  std::atomic<int64_t> next{0};
  int64_t widest = 0;
  for (int64_t h = 0; h < number; ++h) widest = std::max({widest, heads[h].hidden_width, heads[h].width});
  in_threads(threads, count, [&] {
    std::vector<float> hidden(kBlock * widest), last(kBlock * widest), wide(x_half ? kBlock * cin : 0);
    const float* source[kBlock];
    const float* middle[kBlock];
    float *target[kBlock], *column[kBlock];
    const auto layer = [&](const float** from, std::vector<float>& to, int64_t block, const float* w, const float* b, int64_t channels,
                           int64_t width) {
      for (int64_t r = 0; r < block; ++r) {
        target[r] = to.data() + r * width;
        std::memcpy(target[r], b, width * sizeof(float));
      }
      multiply(from, target, column, static_cast<int>(block), w, static_cast<int>(channels), static_cast<int>(width));
    };
    for (int64_t begin; (begin = next.fetch_add(kBlock)) < count;) {
      const int64_t block = std::min(kBlock, count - begin);
      for (int64_t r = 0; r < block; ++r) {
        const int64_t row = rows[begin + r];
        source[r] = inputs.row(place ? place[row] : row, cin, wide.data() + r * cin);
      }
      for (const Head* head = heads; head != heads + number; ++head) {
        layer(source, hidden, block, head->w1, head->b1, cin, head->hidden_width);
        for (int64_t j = 0; j < block * head->hidden_width; ++j) hidden[j] = std::max(hidden[j], 0.0f);
        for (int64_t r = 0; r < block; ++r) middle[r] = hidden.data() + r * head->hidden_width;
        layer(middle, last, block, head->w2, head->b2, head->hidden, head->width);
        for (int64_t r = 0; r < block; ++r) {
          put_in_form(target[r], *head);
          std::memcpy(head->out + rows[begin + r] * head->cout, target[r], head->cout * sizeof(float));
        }
      }
    }
  });
}

// dw [workers, taps, cin, cout] = sum_n x[table[n, k]]^T dy[n]; worker i sums every `workers`-th block of rows from block i on
// into its own part, and the blocks are fixed, so that the sum does not depend on who was faster.
void instseg_conv_weight_grad(const float* x, const int32_t* table, const float* dy, float* dw, int64_t rows, int taps, int cin,
                              int cout, int workers) {
  const int64_t size = 512;
  std::atomic<int> part{0};
  const auto sum_part = [&](int worker) {
    float* mine = dw + static_cast<int64_t>(worker) * taps * cin * cout;
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
        float* slice = mine + static_cast<int64_t>(k) * cin * cout;
        for (int j = 0; pairs && j < cout; j += kWidth) {
          if (cout - j >= kWidth) outer_pairs<kTile>(source.data(), grad.data(), pairs, cin, j, slice, cout);
          else outer_pairs<1>(source.data(), grad.data(), pairs, cin, j, slice, cout);
        }
      }
    }
  };
  in_threads(workers, rows + workers * kRowsPerThread, [&] {
    for (int i; (i = part.fetch_add(1)) < workers;) sum_part(i);
  });
}

// Appends to out the rows that `table` [*, taps] names for the given rows (null: the rows themselves), each once, and returns the new
// number of rows in out; see `reach`.
int64_t instseg_reach(const int32_t* table, int taps, const int32_t* rows, int64_t count, int32_t* stamp, int32_t epoch,
                      int32_t* out, int64_t have, int threads) {
  return reach({table, taps, rows, count}, stamp, epoch, out, have, threads);
}

// chunk[i]: the chunk that holds coords[i], -1 if there is none. keys [chunks] ascending, number [chunks] their chunks.
// Keys that are missing go to `missing` (runs of equal ones once); returns how many.
int64_t instseg_find_chunks(const int32_t* coords, int64_t count, const int64_t* keys, const int32_t* number, int64_t chunks,
                            int32_t* chunk, int64_t* missing) {
  int64_t last = -1, absent = 0;
  int32_t found = -1;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t key = chunk_key(coords + 3 * i);
    if (key != last) {
      const int64_t* place = std::lower_bound(keys, keys + chunks, key);
      found = place != keys + chunks && *place == key ? number[place - keys] : -1;
      if (found < 0) missing[absent++] = key;
      last = key;
    }
    chunk[i] = found;
  }
  return absent;
}

// rows[i] = row of the voxel coords[i] in chunk[i], -1 where there is none.
void instseg_lookup(const int32_t* coords, const int32_t* chunk, int64_t count, const int32_t* slots, int32_t* rows) {
  for (int64_t i = 0; i < count; ++i) rows[i] = chunk[i] < 0 ? -1 : slots[chunk[i] * kChunkCells + cell_of(coords + 3 * i)];
}

// Numbers absent voxels: rows[i] = row of coords[i], or -2 - j where it is the j-th absent voxel, whose place in the slot table
// says so too until instseg_insert gives it a row. fresh [count, 3] receives the absent voxels; returns how many.
int64_t instseg_number_absent(const int32_t* coords, const int32_t* chunk, int64_t count, int32_t* slots, int32_t* rows,
                              int32_t* fresh) {
  int64_t absent = 0;
  for (int64_t i = 0; i < count; ++i) {
    int32_t& place = slots[chunk[i] * kChunkCells + cell_of(coords + 3 * i)];
    if (place == -1) {
      std::memcpy(fresh + 3 * absent, coords + 3 * i, 3 * sizeof(int32_t));
      place = static_cast<int32_t>(-2 - absent++);
    }
    rows[i] = place;
  }
  return absent;
}

// Puts voxels into the tables of a level: slots [chunks, 16, 16, 16] and neighbors [*, 27], both ways.
// chunk_neighbors [chunks, 27]: adjacent chunks in the order of the neighbours, -1 = none.
void instseg_insert(const int32_t* coords, const int32_t* chunk, const int32_t* rows, int64_t count, const int32_t* chunk_neighbors,
                    int32_t* slots, int32_t* neighbors, int threads) {
  for (int64_t i = 0; i < count; ++i) slots[chunk[i] * kChunkCells + cell_of(coords + 3 * i)] = rows[i];
  std::atomic<int64_t> next{0};
  const int64_t size = 1024;
  in_threads(threads, count / 4, [&] {
    for (int64_t begin; (begin = next.fetch_add(size)) < count;)
      for (int64_t i = begin; i < std::min(begin + size, count); ++i) {
        const int lx = coords[3 * i] & kChunkMask, ly = coords[3 * i + 1] & kChunkMask, lz = coords[3 * i + 2] & kChunkMask;
        const int32_t* around = chunk_neighbors + 27 * static_cast<int64_t>(chunk[i]);
        int32_t* mine = neighbors + 27 * static_cast<int64_t>(rows[i]);
        for (int k = 0; k < 27; ++k) {
          const int x = lx + k / 9 - 1, y = ly + k / 3 % 3 - 1, z = lz + k % 3 - 1;
          const int32_t there = around[((x >> kChunkBits) + 1) * 9 + ((y >> kChunkBits) + 1) * 3 + (z >> kChunkBits) + 1];
          const int32_t cell[3] = {x, y, z};
          const int32_t other = there < 0 ? -1 : slots[there * kChunkCells + cell_of(cell)];
          // two new neighbours write each other's entries, both with the same value
          __atomic_store_n(mine + k, other, __ATOMIC_RELAXED);
          if (other >= 0) __atomic_store_n(neighbors + 27 * static_cast<int64_t>(other) + 26 - k, rows[i], __ATOMIC_RELAXED);
        }
      }
  });
}

// Takes voxels out of the tables of a level again.
void instseg_remove(const int32_t* coords, const int32_t* chunk, const int32_t* rows, int64_t count, int32_t* slots,
                    int32_t* neighbors) {
  for (int64_t i = 0; i < count; ++i) {
    slots[chunk[i] * kChunkCells + cell_of(coords + 3 * i)] = -1;
    int32_t* mine = neighbors + 27 * static_cast<int64_t>(rows[i]);
    for (int k = 0; k < 27; ++k) {
      if (mine[k] >= 0) neighbors[27 * static_cast<int64_t>(mine[k]) + 26 - k] = -1;
      mine[k] = -1;
    }
  }
}

// Minimum spanning tree of mutual reachability (Prim): edges [count - 1, 3] are (from, to, length) in the order in which
// they are found. square [count, count]: squared Euclidean distances. The length between two items is the largest of their
// distance, their two core distances and the floor.
void instseg_spanning_tree(const double* square, const double* core, int64_t count, double floor, double* edges) {
  std::vector<double> best(count, INFINITY);
  std::vector<int64_t> source(count, 0), outside(count - 1);
  for (int64_t i = 1; i < count; ++i) outside[i - 1] = i;
  int64_t node = 0;
  for (int64_t found = 0; found < count - 1; ++found) {
    const double* row = square + node * count;
    const double least = std::max(core[node], floor);
    size_t nearest = 0;
    for (size_t k = 0; k < outside.size(); ++k) {
      const int64_t j = outside[k];
      const double length = std::max(std::max(std::sqrt(row[j]), core[j]), least);
      if (length < best[j]) best[j] = length, source[j] = node;
      // of equally near ones the first by number, whatever the order here
      const int64_t other = outside[nearest];
      if (best[j] < best[other] || (best[j] == best[other] && j < other)) nearest = k;
    }
    node = outside[nearest];
    outside[nearest] = outside.back();
    outside.pop_back();
    edges[3 * found] = static_cast<double>(source[node]);
    edges[3 * found + 1] = static_cast<double>(node);
    edges[3 * found + 2] = best[node];
  }
}

// Sets of nodes that are joined one by one; a set is named by its first node.
struct JoinedSets {
  int32_t* first;
  JoinedSets(int32_t* storage, int64_t count) : first(storage) {
    for (int64_t i = 0; i < count; ++i) first[i] = static_cast<int32_t>(i);
  }
  int32_t of(int32_t node) {
    while (first[node] != node) node = first[node] = first[first[node]];
    return node;
  }
  int32_t join(int32_t a, int32_t b) {  // of two sets' names, which may be the same
    if (b < a) std::swap(a, b);
    first[b] = a;
    return a;
  }
};

// Connected components of voxels given by ascending keys (x B + y) B + z, two being linked within Chebyshev distance `reach`:
// label [count], numbered in the order of their first voxels. Returns how many there are.
int64_t instseg_connect(const int64_t* keys, int64_t count, int64_t base, int reach, int32_t* label) {
  JoinedSets sets(label, count);
  const auto link = [&](int64_t a, int64_t b) { sets.join(sets.of(static_cast<int32_t>(a)), sets.of(static_cast<int32_t>(b))); };
  for (int64_t i = 1; i < count; ++i)
    if (keys[i] - keys[i - 1] <= reach) link(i - 1, i);
  // The voxels of one column (fixed x, y) within reach are a run of the sorted keys, no longer than 2 reach. Linking to its
  // first and last is enough: what lies between is within reach of one of them, and such gaps in a column are linked above.
  for (int dx = 0; dx <= reach; ++dx)
    for (int dy = dx ? -reach : 1; dy <= reach; ++dy) {
      const int64_t step = (dx * base + dy) * base;
      int64_t first = 0, end = 0;
      for (int64_t i = 0; i < count; ++i) {
        while (first < count && keys[first] < keys[i] + step - reach) ++first;
        while (end < count && keys[end] <= keys[i] + step + reach) ++end;
        if (first == end) continue;
        link(i, first);
        if (end - 1 > first) link(i, end - 1);
      }
    }
  int64_t found = 0;  // a first node comes before all others of its set, so its number is there when they need it
  for (int64_t i = 0; i < count; ++i) {
    const int32_t before = label[i];
    label[i] = before == i ? static_cast<int32_t>(found++) : label[before];
  }
  return found;
}

// Graph-based segmentation (Felzenszwalb, Huttenlocher 2004) of `count` nodes: edges come by ascending weight; two segments
// become one where the edge weighs no more than what each holds together by, its heaviest inner edge + scale / its nodes. Then
// segments of fewer than min_size nodes join across the lightest edge that leaves them. segment [count]: the segment's first node.
void instseg_graph_segments(const int32_t* source, const int32_t* target, const double* weight, int64_t edges, int64_t count,
                            double scale, int64_t min_size, int32_t* segment) {
  std::vector<double> holds(count, scale);
  std::vector<int64_t> size(count, 1);
  JoinedSets sets(segment, count);
  const auto join = [&](int32_t a, int32_t b) {
    const int64_t nodes = size[a] + size[b];
    const int32_t both = sets.join(a, b);
    size[both] = nodes;
    return both;
  };
  for (int64_t e = 0; e < edges; ++e) {
    const int32_t a = sets.of(source[e]), b = sets.of(target[e]);
    if (a == b || weight[e] > holds[a] || weight[e] > holds[b]) continue;
    const int32_t both = join(a, b);
    holds[both] = weight[e] + scale / static_cast<double>(size[both]);
  }
  for (int64_t e = 0; e < edges; ++e) {
    const int32_t a = sets.of(source[e]), b = sets.of(target[e]);
    if (a != b && (size[a] < min_size || size[b] < min_size)) join(a, b);
  }
  for (int64_t i = 0; i < count; ++i) segment[i] = sets.of(static_cast<int32_t>(i));
}

}  // extern "C"
