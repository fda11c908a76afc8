// The products of one run of a sparse layer with a batch, and the order of its connections by output.

#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "tiles.h"

namespace sparse_jax {

// One run of a layer. What a product has no need of is null.
struct Layer {
  int64_t capacity, n_in, n_out, batch;
  const int32_t *outputs = nullptr, *input_starts = nullptr;
  const int32_t *inputs = nullptr, *output_starts = nullptr, *slots = nullptr;
  const float *values = nullptr, *x = nullptr, *dy = nullptr;
  float *y = nullptr, *dx = nullptr, *dvalues = nullptr;

  Layer run(int64_t run) const {
    Layer r = *this;
    const auto advance = [run](auto& array, int64_t size) {
      if (array) array += run * size;
    };
    advance(r.outputs, capacity), advance(r.input_starts, n_in + 1), advance(r.inputs, capacity);
    advance(r.output_starts, n_out + 1), advance(r.slots, capacity), advance(r.values, capacity);
    advance(r.x, n_in * batch), advance(r.dy, n_out * batch), advance(r.y, n_out * batch);
    advance(r.dx, n_in * batch), advance(r.dvalues, capacity);
    return r;
  }
};

// y of the outputs [begin, end).
template <int W, int V>
__attribute__((noinline)) void forward_tile(const Layer& r, int64_t begin, int64_t end, Tile<W, V> tile) {
  const float* const x = r.x + tile.column;
  const auto add = [&r, x, tile](int64_t o, int64_t from, int64_t to, bool resumed) {
    float* const y = r.y + o * r.batch + tile.column;
    Float<W> sum[V] = {};
    if (resumed) {
      for (int v = 0; v < V; v++) sum[v] = load<W>(y + tile[v]);
    }
    for (int64_t j = from; j < to; j++) {
      const float* const row = x + r.inputs[j] * r.batch;
      const float value = r.values[r.slots[j]];
      for (int v = 0; v < V; v++) sum[v] += load<W>(row + tile[v]) * value;
    }
    for (int v = 0; v < V; v++) store<W>(y + tile[v], sum[v]);
  };
  in_blocks(r.output_starts, r.inputs, begin, end, r.n_in, V * sizeof(Float<W>), add);
}

// dvalues of the slots [j, j + count), all of one input with the row `x`, and what they add to `sum`, its dx.
template <int count, bool want_dx, int W, int V>
inline void backward_links(const Layer& r, int64_t j, Tile<W, V> tile, Int<W> fresh, const Float<W>* x, Float<W>* sum) {
  Float<W> dot[count];
  for (int c = 0; c < count; c++) {
    const float* const row = r.dy + r.outputs[j + c] * r.batch + tile.column;
    Float<W> dy[V];
    for (int v = 0; v < V; v++) dy[v] = load<W>(row + tile[v]);
    if constexpr (want_dx) {
      for (int v = 0; v < V; v++) sum[v] += dy[v] * r.values[j + c];
    }
    dy[V - 1] = masked<W>(dy[V - 1], fresh);
    dot[c] = dy[0] * x[0];
    for (int v = 1; v < V; v++) dot[c] += dy[v] * x[v];
  }
  store_sums<W, count>(r.dvalues + j, dot, tile.column == 0);
}

// dvalues, and dx if wanted, of the inputs [begin, end).
template <bool want_dx, int W, int V>
__attribute__((noinline)) void backward_tile(const Layer& r, int64_t begin, int64_t end, Tile<W, V> tile) {
  const Int<W> fresh = tile.fresh();
  const auto add = [&r, tile, fresh](int64_t i, int64_t from, int64_t to, bool resumed) {
    const int64_t start = i * r.batch + tile.column;
    Float<W> x[V], sum[V] = {};
    for (int v = 0; v < V; v++) x[v] = load<W>(r.x + start + tile[v]);
    x[V - 1] = masked<W>(x[V - 1], fresh);
    if (want_dx && resumed) {
      for (int v = 0; v < V; v++) sum[v] = load<W>(r.dx + start + tile[v]);
    }
    int64_t j = from;
    if constexpr (W > 1) {
      for (; j + 4 <= to; j += 4) backward_links<4, want_dx>(r, j, tile, fresh, x, sum);
    }
    for (; j < to; j++) backward_links<1, want_dx>(r, j, tile, fresh, x, sum);
    if constexpr (want_dx) {
      for (int v = 0; v < V; v++) store<W>(r.dx + start + tile[v], sum[v]);
    }
  };
  in_blocks(r.input_starts, r.outputs, begin, end, r.n_out, V * sizeof(Float<W>), add);
}

// y of a batch of one as the inputs [begin, end) have it: values are read in their order, y out of order but nearby.
inline void forward_one(const Layer& r, int64_t begin, int64_t end, float* y) {
  std::fill_n(y, r.n_out, 0.0f);
  for (int64_t i = begin; i < end; i++) {
    const float x = r.x[i];
    const float* const w = r.values;
    const int32_t* const o = r.outputs;
    const int64_t stop = r.input_starts[i + 1];
    int64_t j = r.input_starts[i];
    for (; j + 4 <= stop; j += 4) {  // the outputs of an input are distinct: none of four waits for another
      const float a = y[o[j]] + w[j] * x, b = y[o[j + 1]] + w[j + 1] * x;
      const float c = y[o[j + 2]] + w[j + 2] * x, d = y[o[j + 3]] + w[j + 3] * x;
      y[o[j]] = a, y[o[j + 1]] = b, y[o[j + 2]] = c, y[o[j + 3]] = d;
    }
    for (; j < stop; j++) y[o[j]] += w[j] * x;
  }
}

// The connections by output, in their order otherwise: a counting sort.
inline void order(const Layer& r, int32_t* inputs, int32_t* output_starts, int32_t* slots) {
  std::fill_n(output_starts, r.n_out + 1, 0);
  const int64_t links = r.input_starts[r.n_in];
  for (int64_t j = 0; j < links; j++) output_starts[r.outputs[j] + 1]++;
  std::partial_sum(output_starts, output_starts + r.n_out + 1, output_starts);
  for (int64_t i = 0; i < r.n_in; i++) {
    for (int64_t j = r.input_starts[i]; j < r.input_starts[i + 1]; j++) {
      const int32_t place = output_starts[r.outputs[j]]++;  // which so becomes the start of the next output
      inputs[place] = static_cast<int32_t>(i);
      slots[place] = static_cast<int32_t>(j);
    }
  }
  std::copy_backward(output_starts, output_starts + r.n_out, output_starts + r.n_out + 1);
  output_starts[0] = 0;
  std::fill(inputs + links, inputs + r.capacity, static_cast<int32_t>(r.n_in));
  std::iota(slots + links, slots + r.capacity, static_cast<int32_t>(links));
}

}  // namespace sparse_jax
