#include "trainer/interrupt.h"

#include <csignal>
#include <initializer_list>

namespace nanoflex {
namespace {

// A signal handler can reach nothing but static storage.
volatile std::sig_atomic_t interrupted = 0;

void handle(int signal) {
  interrupted = 1;
  std::signal(signal, SIG_DFL);
}

}  // namespace

InterruptGuard::InterruptGuard() {
  interrupted = 0;
  std::signal(SIGINT, handle);
  std::signal(SIGTERM, handle);
  std::signal(SIGHUP, handle);
  // Ctrl-C ends the `tee` behind a pipe first: writing to it must not end the run before it is
  // saved.
  std::signal(SIGPIPE, SIG_IGN);
}

InterruptGuard::~InterruptGuard() {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) std::signal(signal, SIG_DFL);
}

bool InterruptGuard::requested() const { return interrupted != 0; }

}  // namespace nanoflex
