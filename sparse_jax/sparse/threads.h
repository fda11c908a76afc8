// Work split into chunks that threads of XLA's pool share.

#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>

#include "xla/ffi/api/ffi.h"

namespace sparse_jax {

constexpr int64_t kSmall = 400000;  // multiply-adds that are done before another thread has woken up
constexpr int64_t kChunksPerThread = 4;

// Chunks of work that whoever has time claims. Devices of a process share one pool and may all wait at once: nobody
// waits for a task that has not begun, only for chunks that somebody is at work on.
template <class Work>
struct Chunks {
  const Work& work;  // alive until all chunks are done; late helpers find none and do not touch it
  const int64_t count;
  std::atomic<int64_t> next{0}, done{0};
  std::mutex mutex;
  std::condition_variable all_done;

  Chunks(const Work& work, int64_t count) : work(work), count(count) {}

  void help() {
    for (int64_t chunk; (chunk = next.fetch_add(1)) < count;) {
      work(chunk);
      if (done.fetch_add(1) + 1 == count) {
        std::lock_guard<std::mutex> lock(mutex);
        all_done.notify_one();
      }
    }
  }

  void wait() {
    std::unique_lock<std::mutex> lock(mutex);
    all_done.wait(lock, [&] { return done.load() == count; });
  }
};

// work(chunk) for the chunks [0, count), by this thread and at most threads - 1 of the pool.
template <class Work>
void share(xla::ffi::ThreadPool& pool, int64_t threads, int64_t count, const Work& work) {
  auto chunks = std::make_shared<Chunks<Work>>(work, count);
  for (int64_t helper = 1; helper < std::min(threads, count); helper++) pool.Schedule([chunks] { chunks->help(); });
  chunks->help();
  chunks->wait();
}

// The rows of all runs; the connections of row i of a run begin at starts[run * (rows + 1) + i].
struct Rows {
  int64_t runs, rows;
  const int32_t* starts;

  const int32_t* of(int64_t run) const { return starts + run * (rows + 1); }

  // How many threads they are worth, at `each` multiply-adds a connection.
  int64_t threads(xla::ffi::ThreadPool& pool, int64_t each) const {
    int64_t links = 0;
    for (int64_t run = 0; run < runs; run++) links += of(run)[rows];
    return links * each < kSmall ? 1 : std::max<int64_t>(pool.num_threads(), 1);
  }

  // Into how many parts of a run `threads` should split them.
  int64_t parts(int64_t threads) const {
    return threads == 1 || runs == 0 ? 1 : (threads * kChunksPerThread + runs - 1) / runs;
  }

  // The first row of `part` of `parts`: they have as many connections and rows, counted together, as each other.
  int64_t cut(int64_t run, int64_t part, int64_t parts) const {
    const int32_t* const start = of(run);
    const int64_t before = (start[rows] + rows) * part / parts;
    int64_t low = 0, high = rows;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      if (start[middle] + middle < before) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
};

// sweep(run, part, begin, end) for the rows [begin, end) of all parts of all runs.
template <class Sweep>
void share_rows(xla::ffi::ThreadPool& pool, int64_t threads, const Rows& rows, int64_t parts, const Sweep& sweep) {
  share(pool, threads, rows.runs * parts, [&](int64_t chunk) {
    const int64_t run = chunk / parts, part = chunk % parts;
    sweep(run, part, rows.cut(run, part, parts), rows.cut(run, part + 1, parts));
  });
}

}  // namespace sparse_jax
