// Tests run on one thread each, side by side; those of work that threads share ask for more.
#pragma once

#include <ATen/Parallel.h>

namespace nanoflex {

/// So many threads, while it lives.
class Threads {
 public:
  explicit Threads(int count) : before_(at::get_num_threads()) { at::set_num_threads(count); }
  ~Threads() { at::set_num_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  const int before_;
};

}  // namespace nanoflex
