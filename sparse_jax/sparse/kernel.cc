// Products of a sparse layer with a batch, and the order of its connections by output: targets of XLA's FFI on CPU.
//
// Arrays are those of links.py. Activations have one row a unit, in which the batch lies contiguously: a connection is
// one value times one row. All arrays may have the same leading axes, of runs. What is added up in which order depends
// on the layer alone, so that neither the number of threads nor their luck changes a bit.
// Indices are trusted. Offsets have 64 bits, as units * batch may not fit into 32.

#include <algorithm>
#include <cstdint>
#include <memory>

#include "layer.h"
#include "threads.h"
#include "xla/ffi/api/ffi.h"

namespace sparse_jax {
namespace {

namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;
using Ints = ffi::Buffer<ffi::S32>;
using FloatsOut = ffi::ResultBuffer<ffi::F32>;
using IntsOut = ffi::ResultBuffer<ffi::S32>;

constexpr int64_t kCostOfOne = 8;        // a connection taken by itself, in multiply-adds of vectors
constexpr int64_t kLinksOfPart = 65536;  // connections that a batch of one takes in one go
constexpr int64_t kMostParts = 8;

// The size of the axis that has `back` others after it.
template <class Buffer>
int64_t axis(const Buffer& buffer, int back) {
  return buffer.dimensions()[buffer.dimensions().size() - 1 - back];
}

int64_t runs_of(const Ints& starts) {
  return starts.element_count() / axis(starts, 0);
}

void sweep_forward(ffi::ThreadPool& pool, int64_t runs, const Layer& layer) {
  const Rows rows{runs, layer.n_out, layer.output_starts};
  const int64_t threads = rows.threads(pool, layer.batch);
  share_rows(pool, threads, rows, rows.parts(threads), [&](int64_t run, int64_t, int64_t begin, int64_t end) {
    const Layer r = layer.run(run);
    cover<kWidth, kForward>(r.batch, [&](auto tile) { forward_tile(r, begin, end, tile); });
  });
}

// Parts of the inputs have a y each, added up at the end. Their number must depend on nothing but the connections.
void sweep_forward_one(ffi::ThreadPool& pool, const Layer& run) {
  const Rows rows{1, run.n_in, run.input_starts};
  const int64_t links = run.input_starts[run.n_in];
  const int64_t parts = std::clamp<int64_t>(links / std::max(kLinksOfPart, 8 * run.n_out), 1, kMostParts);
  const std::unique_ptr<float[]> sums(new float[(parts - 1) * run.n_out]);
  const auto y_of = [&](int64_t part) { return part == 0 ? run.y : &sums[(part - 1) * run.n_out]; };
  const auto sweep = [&](int64_t, int64_t part, int64_t begin, int64_t end) {
    forward_one(run, begin, end, y_of(part));
  };
  share_rows(pool, rows.threads(pool, kCostOfOne), rows, parts, sweep);
  for (int64_t part = 1; part < parts; part++) {
    const float* const more = y_of(part);
    for (int64_t o = 0; o < run.n_out; o++) run.y[o] += more[o];
  }
}

template <bool want_dx>
void sweep_backward(ffi::ThreadPool& pool, int64_t runs, const Layer& layer) {
  const Rows rows{runs, layer.n_in, layer.input_starts};
  for (int64_t run = 0; run < runs; run++) {
    const Layer r = layer.run(run);
    std::fill(r.dvalues + r.input_starts[r.n_in], r.dvalues + r.capacity, 0.0f);
  }
  const int64_t threads = rows.threads(pool, layer.batch);
  share_rows(pool, threads, rows, rows.parts(threads), [&](int64_t run, int64_t, int64_t begin, int64_t end) {
    const Layer r = layer.run(run);
    cover<kWidth, kBackward>(r.batch, [&](auto tile) { backward_tile<want_dx>(r, begin, end, tile); });
  });
}

ffi::Error forward(ffi::ThreadPool pool, Floats values, Ints outputs, Ints input_starts, Ints inputs,
                   Ints output_starts, Ints slots, Floats x, FloatsOut y) {
  Layer layer{axis(values, 0), axis(x, 1), axis(*y, 1), axis(x, 0)};
  layer.values = values.typed_data(), layer.x = x.typed_data(), layer.y = y->typed_data();
  layer.outputs = outputs.typed_data(), layer.input_starts = input_starts.typed_data();
  layer.inputs = inputs.typed_data(), layer.output_starts = output_starts.typed_data();
  layer.slots = slots.typed_data();
  if (layer.batch == 1) {
    for (int64_t run = 0; run < runs_of(input_starts); run++) sweep_forward_one(pool, layer.run(run));
  } else {
    sweep_forward(pool, runs_of(output_starts), layer);
  }
  return ffi::Error::Success();
}

ffi::Error backward(ffi::ThreadPool pool, Floats values, Ints outputs, Ints input_starts, Floats x, Floats dy,
                    FloatsOut dvalues, FloatsOut dx) {
  Layer layer{axis(values, 0), axis(x, 1), axis(dy, 1), axis(x, 0)};
  layer.values = values.typed_data(), layer.outputs = outputs.typed_data();
  layer.input_starts = input_starts.typed_data(), layer.x = x.typed_data(), layer.dy = dy.typed_data();
  layer.dvalues = dvalues->typed_data(), layer.dx = dx->typed_data();
  sweep_backward<true>(pool, runs_of(input_starts), layer);
  return ffi::Error::Success();
}

ffi::Error gradient(ffi::ThreadPool pool, Ints outputs, Ints input_starts, Floats x, Floats dy, FloatsOut dvalues) {
  Layer layer{axis(outputs, 0), axis(x, 1), axis(dy, 1), axis(x, 0)};
  layer.outputs = outputs.typed_data(), layer.input_starts = input_starts.typed_data();
  layer.x = x.typed_data(), layer.dy = dy.typed_data(), layer.dvalues = dvalues->typed_data();
  sweep_backward<false>(pool, runs_of(input_starts), layer);
  return ffi::Error::Success();
}

ffi::Error by_output(ffi::ThreadPool pool, Ints outputs, Ints input_starts, IntsOut inputs, IntsOut output_starts,
                     IntsOut slots) {
  Layer layer{axis(outputs, 0), axis(input_starts, 0) - 1, axis(*output_starts, 0) - 1, 0};
  layer.outputs = outputs.typed_data(), layer.input_starts = input_starts.typed_data();
  const Rows rows{runs_of(input_starts), layer.n_in, layer.input_starts};
  share(pool, rows.threads(pool, kCostOfOne), rows.runs, [&](int64_t run) {
    order(layer.run(run), inputs->typed_data() + run * layer.capacity,
          output_starts->typed_data() + run * (layer.n_out + 1), slots->typed_data() + run * layer.capacity);
  });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace sparse_jax

// ---- Targets

#define POOL xla::ffi::Ffi::Bind().Ctx<xla::ffi::ThreadPool>()
#define FLOATS xla::ffi::Buffer<xla::ffi::F32>
#define INTS xla::ffi::Buffer<xla::ffi::S32>

XLA_FFI_DEFINE_HANDLER_SYMBOL(sparse_forward, sparse_jax::forward,
    POOL.Arg<FLOATS>().Arg<INTS>().Arg<INTS>().Arg<INTS>().Arg<INTS>().Arg<INTS>().Arg<FLOATS>().Ret<FLOATS>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(sparse_backward, sparse_jax::backward,
    POOL.Arg<FLOATS>().Arg<INTS>().Arg<INTS>().Arg<FLOATS>().Arg<FLOATS>().Ret<FLOATS>().Ret<FLOATS>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(sparse_gradient, sparse_jax::gradient,
    POOL.Arg<INTS>().Arg<INTS>().Arg<FLOATS>().Arg<FLOATS>().Ret<FLOATS>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(sparse_by_output, sparse_jax::by_output,
    POOL.Arg<INTS>().Arg<INTS>().Ret<INTS>().Ret<INTS>().Ret<INTS>());
