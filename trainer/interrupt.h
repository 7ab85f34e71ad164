#pragma once

namespace nanoflex {

/// While it lives, SIGINT, SIGTERM and SIGHUP ask the run to stop after the step at hand instead of
/// ending the process. A second signal ends it at once. One at a time.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  bool requested() const;
};

}  // namespace nanoflex
