#include "evidence/verify_model.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <sstream>
#include <stdexcept>

#include "attention/nearest.h"
#include "attention/registry.h"
#include "evidence/passes.h"
#include "trainer/machine.h"
#include "trainer/markdown.h"
#include "trainer/step.h"
#include "trainer/text.h"

namespace nanoflex {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kRows = 2, kChunk = 16;

// The bound of the three published checks in fp32, whose differences were 3.6e-7 to 7.2e-7.
constexpr double kPublishedBound = 2e-6;
constexpr char kPublished[] = "published 3.6e-7 to 7.2e-7";

const std::map<std::string, GptOptions>& models() {
  static const std::map<std::string, GptOptions> all = {
      {"standard",
       {.n_layer = 4, .n_head = 4, .n_embd = 128, .sequence_len = 256, .vocab_size = 1024}},
      {"deep",
       {.n_layer = 12, .n_head = 8, .n_embd = 256, .sequence_len = 192, .vocab_size = 512}}};
  return all;
}

// A model whose zero-initialised weights are random too, so that they hide nothing.
Gpt random_model(const GptOptions& options, at::Device device, at::ScalarType dtype) {
  Gpt model(options, 7, device, dtype);
  const at::NoGradGuard no_grad;
  const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(uint64_t{5});
  for (const Parameter& parameter : model.parameters()) {
    if (parameter.value.abs().max().item<float>() > 0) continue;
    const double std = 0.5 / std::sqrt(static_cast<double>(parameter.value.size(1)));
    at::Tensor(parameter.value)
        .copy_(at::empty(parameter.value.sizes()).normal_(0, std, generator));
  }
  return model;
}

struct Outcome {
  at::Tensor full, last, chunk;       // logits
  std::vector<at::Tensor> gradients;  // of the loss, by every parameter
};

class Pair {
 public:
  Pair(const VerifyModelOptions& options, int64_t n_kv_head)
      : options_(options), gpt_(models().at(options.model)) {
    gpt_.n_kv_head = n_kv_head;
    const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(uint64_t{3});
    const auto random = [&] {
      return at::randint(gpt_.vocab_size, {kRows, gpt_.sequence_len}, generator, at::kLong);
    };
    batch_ = {random(), random(), at::zeros({kRows, gpt_.sequence_len}, at::kBool)};
    batch_.document_starts.select(1, 0).fill_(true);
  }

  Outcome run(const AttentionSetup& attention, at::ScalarType dtype) const {
    const Gpt model = random_model(gpt_, options_.device, dtype);
    const AttentionChoice choice = attention.bind(batch_.document_starts.to(options_.device));
    const at::Tensor tokens = batch_.tokens.to(options_.device);
    Outcome outcome;
    {
      const at::NoGradGuard no_grad;
      outcome.full = wide(model.logits(tokens, choice));
      outcome.last = decoded(model, tokens, choice, 1);
      outcome.chunk = decoded(model, tokens, choice, kChunk);
    }
    std::vector<at::Tensor> parameters;
    for (const Parameter& parameter : model.parameters()) parameters.push_back(parameter.value);
    const at::Tensor loss = model.loss(tokens, batch_.targets.to(options_.device), choice,
                                       {.count = batch_.targets.numel()});
    for (const at::Tensor& gradient : torch::autograd::grad({loss}, parameters)) {
      outcome.gradients.push_back(wide(gradient.to_dense()));
    }
    return outcome;
  }

  at::Tensor losses(const AttentionSetup& attention, at::ScalarType dtype) const {
    const Gpt model(gpt_, 7, options_.device, dtype);
    Optimizers optimizers(model, {});
    std::vector<double> losses;
    for (int64_t step = 0; step < options_.steps; ++step) {
      losses.push_back(compute_gradients(model, attention, optimizers, batch_,
                                         {.device = options_.device, .rows = kRows})
                           .wait()
                           .loss);
      optimizers.step(1);
    }
    return at::tensor(losses, at::kDouble);
  }

 private:
  static at::Tensor wide(const at::Tensor& x) { return x.to(at::kCPU, at::kDouble); }

  // The logits of the last `count` tokens, given those before them in a cache.
  at::Tensor decoded(const Gpt& model, const at::Tensor& tokens, const AttentionChoice& choice,
                     int64_t count) const {
    const int64_t before = gpt_.sequence_len - count;
    KeyValueCache cache({.batch = kRows,
                         .n_layer = gpt_.n_layer,
                         .n_kv_head = gpt_.n_kv_head,
                         .head_dim = gpt_.head_dim(),
                         .capacity = gpt_.sequence_len,
                         .device = options_.device,
                         .dtype = model.activations()});
    model.hidden(tokens.narrow(1, 0, before), choice, &cache);
    return wide(model.logits(tokens.narrow(1, before, count), choice, &cache));
  }

  const VerifyModelOptions options_;
  GptOptions gpt_;
  data::Batch batch_;
};

double difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

double largest_of(const at::Tensor& x) { return x.abs().max().item<double>(); }

std::string kind_of_heads(int64_t n_head, int64_t n_kv_head) {
  return n_kv_head == n_head ? "MHA" : n_kv_head == 1 ? "MQA" : "GQA";
}

// Twice what the plain computation in this dtype errs by, and a unit in the last place.
double twice(double plain_error, double largest, at::ScalarType dtype) {
  return 2 * plain_error + (dtype == at::kFloat ? 0x1p-23 : 0x1p-8) * largest;
}

class Checks {
 public:
  Checks(const VerifyModelOptions& options, std::string heads, std::string backend)
      : options_(options), heads_(std::move(heads)), backend_(std::move(backend)) {}

  void logits(const std::string& check, const at::Tensor& found, const at::Tensor& reference,
              const at::Tensor& truth) {
    if (options_.dtype == at::kFloat) {
      return add(check, difference(found, reference), kPublishedBound, kPublished);
    }
    against_truth(check, found, reference, truth);
  }

  // One computation against another, neither of which is the truth: each may err by its own bound.
  void prefill(const at::Tensor& decoded, const at::Tensor& full, const at::Tensor& plain,
               const at::Tensor& truth) {
    const bool fp32 = options_.dtype == at::kFloat;
    const double bound =
        fp32 ? kPublishedBound
             : 2 * twice(difference(plain, truth), largest_of(truth), options_.dtype);
    add("prefill and decode against one pass", difference(decoded, full), bound,
        fp32 ? kPublished : "four times vanilla's, to fp64");
  }

  // All tensors' worst, each against its own bound.
  void gradients(const Outcome& found, const Outcome& reference, const Outcome& truth) {
    ModelCheck worst;
    for (size_t i = 0; i < truth.gradients.size(); ++i) {
      ModelCheck one =
          check_of("gradients", found.gradients[i], reference.gradients[i], truth.gradients[i]);
      // One that failed, with NaN maybe, stays.
      const bool worse = !(one.difference / one.bound <= worst.difference / worst.bound);
      if (i == 0 || (worst.passed() && (worse || !one.passed()))) worst = one;
    }
    all.push_back(worst);
  }

  void add(const std::string& check, double difference, double bound, const std::string& from) {
    all.push_back({heads_, backend_, check, difference, bound, from});
  }

  std::vector<ModelCheck> all;

 private:
  void against_truth(const std::string& check, const at::Tensor& found, const at::Tensor& reference,
                     const at::Tensor& truth) {
    all.push_back(check_of(check, found, reference, truth));
  }

  ModelCheck check_of(const std::string& check, const at::Tensor& found,
                      const at::Tensor& reference, const at::Tensor& truth) const {
    const double bound = twice(difference(reference, truth), largest_of(truth), options_.dtype);
    return {heads_, backend_, check, difference(found, truth), bound, "twice vanilla's, to fp64"};
  }

  const VerifyModelOptions options_;
  const std::string heads_, backend_;
};

// Why the backend cannot decode a chunk; "" when it can.
std::string why_no_decoding(const Backend& backend, const GptOptions& gpt,
                            const VerifyModelOptions& options) {
  const auto kind = at::TensorOptions(options.device).dtype(options.dtype);
  const at::Tensor q = at::empty({1, 1, kChunk, gpt.head_dim()}, kind);
  const at::Tensor k = at::empty({1, 1, gpt.sequence_len, gpt.head_dim()}, kind);
  return backend.why_unsupported(q, k, k, {.mask = flex::causal()});
}

}  // namespace

std::vector<std::string> verified_models() {
  std::vector<std::string> names;
  for (const auto& [name, model] : models()) names.push_back(name);
  return names;
}

std::vector<ModelCheck> verify_pair(const VerifyModelOptions& options, int64_t n_kv_head,
                                    const AttentionSetup& candidate,
                                    const AttentionSetup& reference) {
  if (models().count(options.model) == 0) {
    throw std::invalid_argument("[verify] --model must be one of " + join(verified_models()) +
                                ", is '" + options.model + "'");
  }
  const Pair pair(options, n_kv_head);
  AttentionSetup exact = reference;
  exact.backend = "vanilla";
  const Outcome truth = pair.run(exact, at::kDouble);
  const Outcome plain = pair.run(reference, options.dtype);
  const Outcome found = pair.run(candidate, options.dtype);
  Checks checks(options, kind_of_heads(models().at(options.model).n_head, n_kv_head),
                candidate.backend);
  checks.logits("full forward", found.full, plain.full, truth.full);
  checks.logits("decode the last token", found.last, plain.last, truth.last);
  checks.logits("decode a chunk", found.chunk, plain.chunk, truth.chunk);
  const auto end_of = [](const at::Tensor& logits, int64_t count) {
    return logits.narrow(1, logits.size(1) - count, count);
  };
  checks.prefill(found.chunk, end_of(found.full, kChunk), end_of(plain.full, kChunk),
                 end_of(truth.full, kChunk));
  checks.gradients(found, plain, truth);
  const bool fp32 = options.dtype == at::kFloat;
  checks.add(
      "losses of " + std::to_string(options.steps) + " steps",
      difference(pair.losses(candidate, options.dtype), pair.losses(reference, at::kFloat)),
      fp32 ? 1e-4 : 0.02,
      fp32 ? "rounding that training amplifies, 6e-5 seen" : "bf16 against fp32 in training");
  return checks.all;
}

std::vector<ModelCheck> verify_suite(const VerifyModelOptions& options) {
  if (models().count(options.model) == 0) verify_pair(options, 1, {}, {});  // refuses by name
  const GptOptions& gpt = models().at(options.model);
  const AttentionSetup reference = {
      .backend = "vanilla", .n_head = gpt.n_head, .mask = flex::causal()};
  std::vector<std::pair<std::string, int64_t>> runs;
  std::vector<ModelCheck> left_out;
  for (const Backend& backend : backends()) {
    if (backend.name == "vanilla") continue;
    if (const std::string reason = why_no_decoding(backend, gpt, options); !reason.empty()) {
      left_out.push_back({.heads = "-",
                          .backend = backend.name,
                          .check = "left out",
                          .bound_from = reason,
                          .left_out = true,
                          .needed = backend.fused});
      continue;
    }
    for (const int64_t n_kv_head : {int64_t{1}, gpt.n_head / 2, gpt.n_head}) {
      runs.emplace_back(backend.name, n_kv_head);
    }
  }
  std::vector<ModelCheck> all;
  for (size_t i = 0; i < runs.size(); ++i) {
    const auto& [name, n_kv_head] = runs[i];
    show_progress(i + 1, runs.size(), name + " " + kind_of_heads(gpt.n_head, n_kv_head));
    AttentionSetup candidate = reference;
    candidate.backend = name;
    const auto checks = verify_pair(options, n_kv_head, candidate, reference);
    all.insert(all.end(), checks.begin(), checks.end());
  }
  all.insert(all.end(), left_out.begin(), left_out.end());
  return all;
}

ordered_json to_json(const std::vector<ModelCheck>& checks, const VerifyModelOptions& options) {
  ordered_json rows = ordered_json::array();
  bool passed = !checks.empty();
  for (const ModelCheck& one : checks) {
    passed = passed && one.passed();
    if (one.left_out) {
      rows.push_back({{"backend", one.backend},
                      {"check", one.check},
                      {"skipped", one.bound_from},
                      {"passed", one.passed()}});
      continue;
    }
    rows.push_back({{"heads", one.heads},
                    {"backend", one.backend},
                    {"check", one.check},
                    {"difference", one.difference},
                    {"bound", one.bound},
                    {"bound_from", one.bound_from},
                    {"passed", one.passed()}});
  }
  return {{"machine", describe_environment(options.device)},
          {"model", options.model},
          {"device", options.device.str()},
          {"dtype", dtype_name(options.dtype)},
          {"passed", passed},
          {"checks", rows}};
}

std::string to_markdown(const std::vector<ModelCheck>& checks) {
  Table table = {{"", "backend", "heads", "check", "largest difference", "bound", "from"}};
  for (const ModelCheck& one : checks) {
    const auto number = [&](double value) { return one.left_out ? "-" : with_digits(value, 2); };
    table.push_back({!one.passed()  ? "FAIL"
                     : one.left_out ? "SKIPPED"
                                    : "PASS",
                     one.backend, one.heads, one.check, number(one.difference), number(one.bound),
                     one.bound_from});
  }
  return markdown_table(table, 7);
}

}  // namespace nanoflex
