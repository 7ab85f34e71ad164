#pragma once

#include <ATen/Context.h>

namespace nanoflex {

/// What is chosen while it lives, deterministic kernels or faster ones, does not outlive it.
class DeterministicGuard {
 public:
  DeterministicGuard()
      : chosen_(at::globalContext().deterministicAlgorithms()),
        warn_only_(at::globalContext().deterministicAlgorithmsWarnOnly()) {}
  ~DeterministicGuard() { at::globalContext().setDeterministicAlgorithms(chosen_, warn_only_); }
  DeterministicGuard(const DeterministicGuard&) = delete;
  DeterministicGuard& operator=(const DeterministicGuard&) = delete;

 private:
  bool chosen_, warn_only_;
};

}  // namespace nanoflex
