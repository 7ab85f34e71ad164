#include "attention/backends.h"

namespace nanoflex {
namespace {

std::string why_unsupported(const at::Tensor&, const at::Tensor&, const at::Tensor&, const Spec&) {
  return "";
}

}  // namespace

// The expressions run on whole tensors for now, exactly as vanilla runs them (so `fused` is false);
// the engine that fuses them into tile kernels takes attend_plainly's place here.
Backend flex_backend() { return {"flex", false, why_unsupported, attend_plainly}; }

}  // namespace nanoflex
