#include "attention/flex/masks.h"

#include <stdexcept>

#include "attention/nearest.h"

namespace nanoflex::flex {

Expression causal() {
  return trace_mask([](auto, auto, auto q, auto kv) { return q >= kv; });
}

Expression full() {
  return trace_mask([](auto, auto, auto, auto) { return true; });
}

Expression window(int64_t n) {
  if (n < 0) {
    throw std::invalid_argument("[mask] window(n) needs n of at least 0, is " + std::to_string(n));
  }
  return trace_mask([n](auto, auto, auto q, auto kv) { return q - kv <= n; });
}

Expression document() {
  const Captured document("document", Type::kInt);
  return trace_mask(
      [&](auto b, auto, auto q, auto kv) { return document[b][q] == document[b][kv]; });
}

std::string NamedMask::signature() const {
  return parameters.empty() ? name : name + "(" + join(parameters) + ")";
}

const std::vector<NamedMask>& named_masks() {
  using Arguments = std::vector<int64_t>;
  static const std::vector<NamedMask> table = {
      {"causal", {}, "what stands before: q >= kv", [](const Arguments&) { return causal(); }},
      {"full", {}, "every key", [](const Arguments&) { return full(); }},
      {"window",
       {"n"},
       "at most n keys back: q - kv <= n",
       [](const Arguments& arguments) { return window(arguments.at(0)); }},
      {"document",
       {},
       "keys of the query's own document",
       [](const Arguments&) { return document(); }},
  };
  return table;
}

std::vector<std::string> mask_names() {
  std::vector<std::string> names;
  for (const NamedMask& mask : named_masks()) names.push_back(mask.signature());
  return names;
}

}  // namespace nanoflex::flex
