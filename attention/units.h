#pragma once

#include <ATen/Parallel.h>

#include <atomic>
#include <cstdint>

namespace nanoflex {

/// Runs body(unit, thread) for units 0 .. count on threads 0 .. `threads`, each unit by the thread
/// that is free first; units begin in order. Results must not depend on who runs what.
template <typename Body>
void for_each_unit(int64_t count, int64_t threads, const Body& body) {
  std::atomic<int64_t> next = 0;
  const auto work = [&](int64_t thread) {
    for (int64_t unit = next++; unit < count; unit = next++) body(unit, thread);
  };
  if (threads == 1) return work(0);
  at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t thread = first; thread < last; ++thread) work(thread);
  });
}

}  // namespace nanoflex
