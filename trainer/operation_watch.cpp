#include "trainer/operation_watch.h"

#include <ATen/core/ivalue.h>
#include <ATen/record_function.h>

#include <mutex>
#include <sstream>
#include <stdexcept>

namespace nanoflex {
namespace {

// LibTorch calls plain functions, so what they write to is found here.
struct State {
  std::mutex mutex;
  bool used = false;
  int64_t queries = 0, keys = 0;
  Operations seen;
};

State& state() {
  static State instance;
  return instance;
}

void look_at(const at::Tensor& tensor, const at::RecordFunction& function) {
  State& s = state();
  const bool is_matrix = tensor.defined() && tensor.dim() >= 2 && tensor.size(-2) == s.queries &&
                         tensor.size(-1) == s.keys;
  if (!is_matrix || !s.seen.matrix.empty()) return;
  std::ostringstream text;
  text << function.name() << " made " << tensor.sizes();
  s.seen.matrix = text.str();
}

void look_at(const at::IValue& value, const at::RecordFunction& function) {
  if (value.isTensor()) look_at(value.toTensor(), function);
  if (!value.isTensorList()) return;
  for (const at::Tensor& tensor : value.toTensorVector()) look_at(tensor, function);
}

std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction&) { return nullptr; }

void end(const at::RecordFunction& function, at::ObserverContext*) {
  const std::lock_guard lock(state().mutex);
  ++state().seen.dispatched;
  for (const at::IValue& output : function.outputs()) look_at(output, function);
}

}  // namespace

OperationWatch::OperationWatch(int64_t queries, int64_t keys) {
  {
    const std::lock_guard lock(state().mutex);
    if (state().used) throw std::logic_error("[profile] one OperationWatch at a time");
    state().used = true;
    state().queries = queries, state().keys = keys;
    state().seen = {};
  }
  handle_ = at::addGlobalCallback(at::RecordFunctionCallback(begin, end)
                                      .needsOutputs(true)
                                      .scopes({at::RecordScope::FUNCTION}));
}

OperationWatch::~OperationWatch() {
  at::removeCallback(handle_);
  const std::lock_guard lock(state().mutex);
  state().used = false;
}

Operations OperationWatch::so_far() const {
  const std::lock_guard lock(state().mutex);
  return state().seen;
}

}  // namespace nanoflex
