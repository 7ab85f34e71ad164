#include "trainer/profiled_steps.h"

#include <algorithm>
#include <stdexcept>

#include "trainer/machine.h"
#include "trainer/machine_limits.h"
#include "trainer/operation_watch.h"

namespace nanoflex {
namespace {

using nlohmann::ordered_json;

// A row's length that no other size of the model equals, so that a queries x keys tensor is told by
// its sizes.
int64_t telling_length(const Config& config) {
  const int64_t head_dim = config.n_embd / config.n_head;
  const std::vector<int64_t> taken = {config.n_embd,    4 * config.n_embd, head_dim,
                                      head_dim / 2,     config.n_head,     config.n_kv_head,
                                      config.vocab_size};
  int64_t length = std::min<int64_t>(config.sequence_len, 97);
  while (length > 1 && std::count(taken.begin(), taken.end(), length) > 0) --length;
  return length;
}

// One row, forward and backward.
Operations operations_of(const Gpt& model, const AttentionSetup& attention, Optimizers& optimizers,
                         const data::Batch& batch, int64_t length, at::Device device) {
  const auto cut = [&](const at::Tensor& x) { return x.narrow(0, 0, 1).narrow(1, 0, length); };
  const data::Batch row = {cut(batch.tokens), cut(batch.targets), cut(batch.document_starts)};
  OperationWatch watch(length, length);
  compute_gradients(model, attention, optimizers, row, {.device = device, .rows = 1});
  return watch.so_far();
}

// The same mask and score.
AttentionSetup on_plain_tensors(AttentionSetup attention) {
  attention.backend = "vanilla";
  attention.fused = false;
  return attention;
}

ordered_json to_json(const Operations& operations) {
  return {{"operations", operations.dispatched},
          {"queries_by_keys_tensor",
           operations.matrix.empty() ? ordered_json(nullptr) : ordered_json(operations.matrix)}};
}

}  // namespace

ProfiledSteps::ProfiledSteps(const Config& config, const Budget& budget, at::Device device,
                             at::ScalarType dtype)
    : config_(config), budget_(budget), device_(device), dtype_(dtype) {
  if (config.profile == 0) return;
  first_ = config.warmup_steps + 1;
  last_ = config.warmup_steps + config.profile;
  if (budget.steps && *budget.steps < last_) {
    throw std::invalid_argument("[profile] " + std::to_string(config.profile) + " steps after " +
                                std::to_string(config.warmup_steps) + " of warm-up need a run of " +
                                std::to_string(last_) + ", this one has " +
                                std::to_string(*budget.steps) +
                                "; give it a larger budget, or lower --profile or --warmup-steps");
  }
}

void ProfiledSteps::before(int64_t step) {
  if (step != first_) return;
  profile_.emplace(device_);
  parts_.emplace(device_);
  begin_ = std::chrono::steady_clock::now();
}

bool ProfiledSteps::after(int64_t step, const std::filesystem::path& trace) {
  if (!profile_ || step != last_) return false;
  const auto end = std::chrono::steady_clock::now();
  seconds_ = std::chrono::duration<double>(end - begin_).count();
  const std::map<std::string, double> parts = parts_->stop();
  recorded_ = profile_->stop(trace);
  recorded_["parts"] = parts;
  return true;
}

ordered_json ProfiledSteps::result(const Gpt& model, const AttentionSetup& attention,
                                   Optimizers& optimizers, const data::Batch& batch) const {
  const auto steps = static_cast<double>(config_.profile);
  const auto tokens = static_cast<double>(budget_.tokens_per_step);
  const double visited = mask_share(attention, batch.document_starts).visited;
  const double head = 6.0 * static_cast<double>(config_.n_embd * config_.vocab_size) * tokens;
  const double all_attention = static_cast<double>(budget_.attention_flops_per_token) * tokens;
  const std::map<std::string, double> flops = {
      {"head", head},
      {"attention", all_attention * visited},
      {"other products", static_cast<double>(budget_.flops_per_step) - head - all_attention}};
  ordered_json parts = ordered_json::array();
  for (const auto& [name, seconds] : recorded_.at("parts").items()) {
    const auto known = flops.find(name);
    parts.push_back({{"name", name},
                     {"seconds", seconds.get<double>() / steps},
                     {"flops", known == flops.end() ? 0 : known->second}});
  }
  ordered_json operations = recorded_.at("operations");
  for (ordered_json& operation : operations) {
    for (const char* name : {"calls", "seconds", "flops", "bytes"}) {
      operation[name] = operation[name].get<double>() / steps;
    }
  }
  const MachineLimits limits = measure_limits(device_, dtype_);
  const int64_t length = telling_length(config_);
  const auto count = [&](const AttentionSetup& setup) {
    return to_json(operations_of(model, setup, optimizers, batch, length, device_));
  };
  return {{"steps", config_.profile},
          {"seconds_per_step", seconds_ / steps},
          {"launches_per_step", recorded_.at("launches").get<double>() / steps},
          {"launches_are", recorded_.at("launches_are")},
          {"dtype", dtype_name(dtype_)},
          {"limits",
           {{"flops_per_second", limits.flops_per_second},
            {"bytes_per_second", limits.bytes_per_second}}},
          {"parts", parts},
          {"operations", operations},
          {"memory", recorded_.at("memory")},
          {"row",
           {{"length", length},
            {"backend", attention.backend},
            {"own", count(attention)},
            {"vanilla", count(on_plain_tensors(attention))}}}};
}

}  // namespace nanoflex
