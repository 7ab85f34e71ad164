#include "attention/registry.h"

#include <stdexcept>

#include "attention/backends.h"
#include "attention/nearest.h"

namespace nanoflex {
namespace {

[[noreturn]] void reject_name(const std::string& name) {
  std::vector<std::string> known = backend_names();
  known.insert(known.begin(), "auto");
  const std::string close = nearest(name, known);
  throw std::invalid_argument("[attention] unknown backend '" + name + "'; " +
                              (close.empty() ? "" : "did you mean '" + close + "'? ") +
                              "known: " + join(known));
}

}  // namespace

const std::vector<Backend>& backends() {
  static const std::vector<Backend> table = {vanilla_backend(), sdpa_backend(), tiled_backend(),
                                             flash_backend(), flex_backend()};
  return table;
}

const Backend& named_backend(const std::string& name) {
  for (const Backend& backend : backends()) {
    if (backend.name == name) return backend;
  }
  reject_name(name);
}

std::vector<std::string> backend_names() {
  std::vector<std::string> all;
  for (const Backend& backend : backends()) all.push_back(backend.name);
  return all;
}

const Backend& choose_backend(const std::string& name, const at::Tensor& q, const at::Tensor& k,
                              const at::Tensor& v, const Spec& spec) {
  if (name == "auto") {
    // On a GPU ATen's kernels come first until a record shows ours ahead.
    const bool cpu = q.is_cpu();
    for (const char* preferred :
         {cpu ? "flash" : "sdpa", cpu ? "sdpa" : "flash", "flex", "vanilla"}) {
      const Backend& backend = named_backend(preferred);
      if (backend.why_unsupported(q, k, v, spec).empty()) return backend;
    }
    throw std::logic_error("vanilla must run every spec");
  }
  const Backend& named = named_backend(name);
  const std::string reason = named.why_unsupported(q, k, v, spec);
  if (reason.empty()) return named;
  std::vector<std::string> able;
  for (const Backend& backend : backends()) {
    if (backend.why_unsupported(q, k, v, spec).empty()) able.push_back(backend.name);
  }
  throw std::invalid_argument("[attention] backend '" + name + "' cannot run this: " + reason +
                              "; use " + join(able, " or "));
}

}  // namespace nanoflex
