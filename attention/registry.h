#pragma once

#include <string>
#include <vector>

#include "attention/attention.h"

namespace nanoflex {

/// One way to compute attention.
struct Backend {
  std::string name;
  bool fused;  ///< never holds a T x S tensor, at the speed of the hardware

  /// "" when it can run the call, else the reason in words.
  std::string (*why_unsupported)(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const Spec& spec);
  /// REQUIRES: shapes as attend() checks them, and why_unsupported(q, k, v, spec) is "".
  Attention (*forward)(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const Spec& spec);
};

/// The one table of backends: vanilla, sdpa, tiled, flash, flex.
const std::vector<Backend>& backends();

/// Their names, in the table's order.
std::vector<std::string> backend_names();

/// The backend of that name. Throws std::invalid_argument for an unknown one, naming the nearest.
const Backend& named_backend(const std::string& name);

/// The backend of that name; for "auto" the first of flash, sdpa (on a GPU sdpa, flash), flex,
/// vanilla that can run the call. Throws std::invalid_argument for an unknown name, and with the
/// reason when the backend cannot.
const Backend& choose_backend(const std::string& name, const at::Tensor& q, const at::Tensor& k,
                              const at::Tensor& v, const Spec& spec);

}  // namespace nanoflex
