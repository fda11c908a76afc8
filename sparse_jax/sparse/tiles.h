// Tiles of a batch as vectors of floats, whatever the instructions of the machine, and blocks of rows.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

namespace sparse_jax {

// ---- Vectors of W floats

template <int W>
struct Vectors;
#define DEFINE_VECTORS(W)                                    \
  template <>                                                \
  struct Vectors<W> {                                        \
    typedef float Float __attribute__((vector_size(4 * W))); \
    typedef int32_t Int __attribute__((vector_size(4 * W))); \
  }
DEFINE_VECTORS(16);
DEFINE_VECTORS(8);
DEFINE_VECTORS(4);
#undef DEFINE_VECTORS
template <>
struct Vectors<1> {
  using Float = float;
  using Int = int32_t;
};
template <int W>
using Float = typename Vectors<W>::Float;
template <int W>
using Int = typename Vectors<W>::Int;

template <int W>
inline Float<W> load(const float* from) {
  Float<W> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <int W>
inline void store(float* to, Float<W> v) {
  std::memcpy(to, &v, sizeof v);
}

// v where `mask` is -1, and 0 where it is 0, whatever v holds there.
template <int W>
inline Float<W> masked(Float<W> v, Int<W> mask) {
  Int<W> bits;
  std::memcpy(&bits, &v, sizeof v);
  bits &= mask;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}

// Lane l is a[l] + a[l ^ by] where the bit `by` of l is 0, and b[l] + b[l ^ by] where it is 1.
template <int W, int by, int... l>
inline Float<W> merged(Float<W> a, Float<W> b, std::integer_sequence<int, l...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (l & by ? W + l : l)...) +
         __builtin_shufflevector(a, b, (l & by ? W + (l ^ by) : l ^ by)...);
#else
  return __builtin_shuffle(a, b, Int<W>{(l & by ? W + l : l)...}) +
         __builtin_shuffle(a, b, Int<W>{(l & by ? W + (l ^ by) : l ^ by)...});
#endif
}

template <int W, int by>
inline Float<W> merged(Float<W> a, Float<W> b) {
  if constexpr (by < W) return merged<W, by>(a, b, std::make_integer_sequence<int, W>());
  return a;
}

// The sums of the lanes of `count` vectors, 1 or 4, all added in the same order.
template <int W, int count>
inline void store_sums(float* to, const Float<W>* v, bool first) {
  if constexpr (W == 1) {
    *to = first ? *v : *to + *v;
  } else {
    constexpr int b = count == 4 ? 1 : 0;
    Float<W> s = merged<W, 2>(merged<W, 1>(v[0], v[b]), merged<W, 1>(v[2 * b], v[3 * b]));
    s = merged<W, 4>(s, s);
    s = merged<W, 8>(s, s);
    for (int i = 0; i < count; i++) to[i] = first ? s[i] : to[i] + s[i];
  }
}

// ---- Tiles: some rows times V vectors of W columns

// As many vectors as leave the sums, and the row that a backward sweep multiplies by, in the registers.
#if defined(__AVX512F__)
constexpr int kWidth = 16, kForward = 8, kBackward = 8;
#elif defined(__AVX__)
constexpr int kWidth = 8, kForward = 8, kBackward = 4;
#elif defined(__aarch64__)
constexpr int kWidth = 4, kForward = 8, kBackward = 8;
#else
constexpr int kWidth = 4, kForward = 8, kBackward = 4;
#endif

// V vectors of W columns, side by side from `column`. The last begins `last` columns further, which is less than side by
// side where the batch ends sooner: its first lanes then repeat others.
template <int W, int V>
struct Tile {
  int64_t column, last;

  int64_t operator[](int v) const { return v + 1 < V ? v * W : last; }

  // -1 in the lanes of the last vector that repeat none.
  Int<W> fresh() const {
    int32_t mask[W];
    for (int l = 0; l < W; l++) mask[l] = last + l < (V - 1) * W ? 0 : -1;
    Int<W> v;
    std::memcpy(&v, mask, sizeof v);
    return v;
  }
};

template <int W, int V, class Use>
inline void choose_tile(int vectors, int64_t column, int64_t last, const Use& use) {
  if constexpr (V > 0) {
    if (vectors == V) return use(Tile<W, V>{column, last});
    choose_tile<W, V - 1>(vectors, column, last, use);
  }
}

// Calls use(tile) for tiles that cover the columns of a batch, each of at most `most` vectors and about as wide.
template <int W, int most, class Use>
inline void cover(int64_t batch, const Use& use) {
  if constexpr (W > 1) {
    if (batch < W) return cover<(W > 4 ? W / 2 : 1), (W > 4 ? 2 : 3)>(batch, use);
  }
  const int64_t vectors = (batch + W - 1) / W, tiles = (vectors + most - 1) / most;
  for (int64_t t = 0; t < tiles; t++) {
    const int64_t from = vectors * t / tiles, to = vectors * (t + 1) / tiles;
    choose_tile<W, most>(static_cast<int>(to - from), from * W, std::min(to * W, batch) - W - from * W, use);
  }
}

// ---- Blocks of rows

constexpr int64_t kPanel = 256;                    // rows that are swept together
constexpr int64_t kBlockBytes = int64_t{1} << 19;  // of a second-level cache of 1 MiB
constexpr int64_t kLinksOfBlock = 32;              // connections of a row that are worth loading its sums again

// Calls use(row, from, to, resumed) for connections [from, to) of the rows [begin, end), those of a row in order.
//
// The units at their other ends have `bytes` each. Where they do not fit into the cache and rows have many connections,
// a panel of rows is done for one block of these units after the other, so that each is read from the cache.
template <class Use>
inline void in_blocks(const int32_t* starts, const int32_t* units, int64_t begin, int64_t end, int64_t n_units,
                      int64_t bytes, const Use& use) {
  const int64_t worth = (starts[end] - starts[begin]) / (kLinksOfBlock * std::max<int64_t>(end - begin, 1));
  const int64_t blocks = std::max<int64_t>(std::min(worth, n_units * bytes / kBlockBytes), 1);
  int32_t next[kPanel];
  for (; begin < end; begin += kPanel) {
    const int64_t rows = std::min(kPanel, end - begin);
    std::copy_n(starts + begin, rows, next);
    for (int64_t block = 0; block < blocks; block++) {
      const int64_t limit = n_units * (block + 1) / blocks;
      for (int64_t row = 0; row < rows; row++) {
        const int32_t from = next[row], stop = starts[begin + row + 1];
        int32_t to = block + 1 < blocks ? from : stop;
        while (to < stop && units[to] < limit) to++;
        next[row] = to;
        if (block == 0 || from < to) use(begin + row, from, to, block > 0);
      }
    }
  }
}

}  // namespace sparse_jax
