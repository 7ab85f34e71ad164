#include "attention/flex/masks.h"

namespace nanoflex::flex {

Expression causal() {
  return trace_mask([](auto, auto, auto q, auto kv) { return q >= kv; });
}

Expression full() {
  return trace_mask([](auto, auto, auto, auto) { return true; });
}

Expression window(int64_t n) {
  check_arguments(named_masks(), "window", {n});
  return trace_mask([n](auto, auto, auto q, auto kv) { return q - kv <= n; });
}

Expression prefix(int64_t n) {
  check_arguments(named_masks(), "prefix", {n});
  return trace_mask([n](auto, auto, auto q, auto kv) { return (q >= kv) | (kv < n); });
}

Expression document() {
  const Captured document("document", Type::kInt);
  return trace_mask(
      [&](auto b, auto, auto q, auto kv) { return document[b][q] == document[b][kv]; });
}

Expression dilated(int64_t n) {
  check_arguments(named_masks(), "dilated", {n});
  return trace_mask([n](auto, auto, auto q, auto kv) { return (q - kv) % n == 0; });
}

Expression block_sparse(int64_t n, int64_t local, int64_t every) {
  check_arguments(named_masks(), "block_sparse", {n, local, every});
  return trace_mask([=](auto, auto, auto q, auto kv) {
    return (abs(q / n - kv / n) <= local) | (kv / n % every == 0);
  });
}

const std::vector<Named>& named_masks() {
  using A = Arguments;
  static const std::vector<Named> table = {
      {"causal", {}, [](const A&) { return causal(); }},
      {"full", {}, [](const A&) { return full(); }},
      {"window", {{.name = "n"}}, [](const A& a) { return window(a.at(0).toLong()); }},
      {"prefix", {{.name = "n"}}, [](const A& a) { return prefix(a.at(0).toLong()); }},
      {"document", {}, [](const A&) { return document(); }},
      {"dilated",
       {{.name = "n", .least = 1}},
       [](const A& a) { return dilated(a.at(0).toLong()); }},
      {"block_sparse",
       {{.name = "n", .least = 1}, {.name = "local"}, {.name = "every", .least = 1}},
       [](const A& a) {
         return block_sparse(a.at(0).toLong(), a.at(1).toLong(), a.at(2).toLong());
       }},
  };
  return table;
}

std::vector<std::string> mask_names() { return signatures(named_masks()); }

}  // namespace nanoflex::flex
