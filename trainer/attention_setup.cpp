#include "trainer/attention_setup.h"

#include <algorithm>
#include <sstream>
#include <stdexcept>

#include "attention/flex/block_mask.h"
#include "attention/flex/bounds.h"
#include "attention/flex/masks.h"
#include "attention/flex/parse.h"
#include "attention/flex/scores.h"
#include "attention/registry.h"
#include "model/safetensors.h"

namespace nanoflex {
namespace {

[[noreturn]] void reject_attention(const std::string& what) {
  throw std::invalid_argument("[attention] " + what);
}

std::vector<std::string> split_names(const std::string& text) {
  std::vector<std::string> names;
  std::istringstream stream(text);
  for (std::string name; std::getline(stream, name, ',');) {
    const size_t begin = name.find_first_not_of(" \t"), end = name.find_last_not_of(" \t");
    if (begin == std::string::npos) continue;
    names.push_back(name.substr(begin, end - begin + 1));
    if (std::count(names.begin(), names.end(), names.back()) > 1) {
      reject_attention("learned_tensors must name each tensor once, names '" + names.back() +
                       "' twice");
    }
  }
  return names;
}

flex::Vocabulary vocabulary_with(const std::map<std::string, at::Tensor>& given,
                                 const std::string& learned) {
  flex::Vocabulary vocabulary = flex::vocabulary_of(given);
  for (const std::string& name : split_names(learned)) {
    vocabulary.tensors[name] = flex::Type::kFloat;
  }
  return vocabulary;
}

std::string mask_text(const Config& config) {
  if (config.mask != "auto") return config.mask;
  return config.attention == "flex" ? "causal & document" : "causal";
}

std::vector<std::optional<int64_t>> windows_of(const Config& config) {
  std::vector<std::optional<int64_t>> windows;
  if (config.window_size && config.window_pattern.find('S') == std::string::npos) {
    reject_attention("window_size is of the S layers of window_pattern, which is '" +
                     config.window_pattern +
                     "'; add --window-pattern SSSL, or use a mask such as causal & window(" +
                     std::to_string(*config.window_size) + ")");
  }
  if (config.window_pattern.empty()) return windows;
  const int64_t size = config.window_size.value_or(config.sequence_len / 2);
  if (config.window_pattern.find_first_not_of("SL") != std::string::npos) {
    reject_attention("window_pattern must be made of S and L, is '" + config.window_pattern + "'");
  }
  for (int64_t layer = 0; layer < config.n_layer; ++layer) {
    const char kind = config.window_pattern[layer % config.window_pattern.size()];
    windows.push_back(kind == 'S' ? std::optional(size) : std::nullopt);
  }
  return windows;
}

// The sizes of a tensor that a score reads: as large as its indices ask for.
std::vector<int64_t> sizes_read(const flex::Expression& score, const std::string& name,
                                const flex::Box& box) {
  std::vector<flex::Expression> reads;
  flex::for_each_node(score, [&](const flex::Expression& part) {
    const flex::Node& node = part.node();
    if (node.op == flex::Op::kLoad && node.name == name) reads.push_back(part);
  });
  if (reads.empty()) reject_attention("learned tensor '" + name + "' is not read by the score");
  std::vector<int64_t> sizes(reads[0].node().operands.size(), 1);
  for (const flex::Expression& read : reads) {
    if (read.node().operands.size() != sizes.size()) {
      reject_attention("learned tensor '" + name + "' is indexed by different numbers of values");
    }
    for (size_t i = 0; i < sizes.size(); ++i) {
      const flex::Expression& index = read.node().operands[i];
      const flex::Bounds bounds = flex::Bounder(index).over(box);
      constexpr double kMost = 1 << 28;
      if (bounds.low < 0 || bounds.high >= kMost) {
        reject_attention(c10::str("index '", flex::to_text(index), "' of learned tensor '", name,
                                  "' goes from ", bounds.low, " to ", bounds.high,
                                  "; it must stay within 0 and 2^28"));
      }
      sizes[i] = std::max(sizes[i], static_cast<int64_t>(bounds.high) + 1);
    }
  }
  return sizes;
}

// Fixed tensors that have a formula, and those that are learned, by their first values.
void add_tensors(AttentionSetup& setup, const Config& config, at::Device device) {
  if (!setup.score.defined()) return;
  std::vector<std::string> learned = split_names(config.learned_tensors);
  for (const std::string& name : flex::free_tensors(setup.score)) {
    const bool listed = std::find(learned.begin(), learned.end(), name) != learned.end();
    if (name == "relative_bias" && !listed && !setup.tensors.count(name)) learned.push_back(name);
    if (name == "alibi_slopes" && !setup.tensors.count(name)) {
      setup.tensors[name] = flex::alibi_slopes(config.n_head).to(device);
    }
  }
  const flex::Box box =
      flex::whole_box(config.batch_size, config.n_head, config.sequence_len, config.sequence_len);
  for (const std::string& name : learned) {
    const std::vector<int64_t> sizes = sizes_read(setup.score, name, box);
    const auto known = setup.tensors.find(name);
    const at::Tensor initial =
        known != setup.tensors.end() ? known->second : at::zeros(sizes, at::kFloat);
    setup.learned.push_back({name, initial});
    setup.tensors[name] = initial.to(device);
  }
}

// A file of which nothing is read was named by mistake.
void check_read(const AttentionSetup& setup, const std::string& file) {
  std::vector<std::string> read = flex::free_tensors(setup.mask);
  if (setup.score.defined()) {
    for (const std::string& name : flex::free_tensors(setup.score)) read.push_back(name);
  }
  std::string names;
  for (const auto& [name, tensor] : setup.tensors) {
    if (std::find(read.begin(), read.end(), name) != read.end()) return;
    names += (names.empty() ? "" : ", ") + name;
  }
  reject_attention("neither mask nor score reads anything of attention_tensors '" + file +
                   "', which holds " + (names.empty() ? "nothing" : names) + "; leave it out");
}

AttentionSetup describe_attention(const Config& config, at::Device device) {
  AttentionSetup setup{.backend = config.attention, .n_head = config.n_head};
  if (!config.attention_tensors.empty()) {
    for (const auto& [name, tensor] : read_safetensors(config.attention_tensors)) {
      setup.tensors[name] = tensor.to(device);
    }
  }
  const flex::Vocabulary vocabulary = vocabulary_with(setup.tensors, config.learned_tensors);
  setup.mask = flex::parse_mask(mask_text(config), vocabulary);
  if (!config.score.empty()) setup.score = flex::parse_score(config.score, vocabulary);
  if (!config.attention_tensors.empty()) check_read(setup, config.attention_tensors);
  setup.windows = windows_of(config);
  if (!setup.score.defined() && !config.learned_tensors.empty()) {
    reject_attention("learned_tensors names '" + config.learned_tensors +
                     "', but there is no score");
  }
  add_tensors(setup, config, device);
  return setup;
}

}  // namespace

AttentionChoice AttentionSetup::bind(const at::Tensor& document_starts) const {
  return bind_documents(document_starts.cumsum(1));
}

AttentionChoice AttentionSetup::bind_documents(const at::Tensor& documents) const {
  std::map<std::string, at::Tensor> named = tensors;
  named["document"] = documents;
  AttentionChoice choice{.backend = backend, .spec = {.mask = flex::bind(mask, named)}};
  if (score.defined()) choice.spec.score = flex::bind(score, named);
  for (const auto& window : windows) {
    choice.masks.push_back(window ? choice.spec.mask & flex::window(*window) : choice.spec.mask);
  }
  return choice;
}

AttentionSetup AttentionSetup::on_cpu() const {
  AttentionSetup copy = *this;
  for (auto& [name, tensor] : copy.tensors) tensor = tensor.detach().to(at::kCPU);
  return copy;
}

void AttentionSetup::read_from(const Gpt& model) {
  for (const auto& [name, tensor] : model.score_tensors()) tensors[name] = tensor;
}

GptOptions gpt_options(const Config& config, const AttentionSetup& attention) {
  return {.n_layer = config.n_layer,
          .n_head = config.n_head,
          .n_kv_head = config.n_kv_head,
          .n_embd = config.n_embd,
          .sequence_len = config.sequence_len,
          .vocab_size = config.vocab_size,
          .score_tensors = attention.learned};
}

AttentionSetup choose_attention(const Config& config, at::Device device, at::ScalarType dtype) {
  AttentionSetup setup = describe_attention(config, device);
  const int64_t T = config.sequence_len, D = config.n_embd / config.n_head;
  const auto kind = at::TensorOptions().dtype(dtype).device(device);
  const at::Tensor q = at::zeros({1, 1, 1, 1}, kind).expand({1, config.n_head, T, D});
  const at::Tensor k = at::zeros({1, 1, 1, 1}, kind).expand({1, config.n_kv_head, T, D});
  const at::Tensor starts = at::zeros({1, T}, at::TensorOptions().dtype(at::kBool).device(device));
  const AttentionChoice choice = setup.bind(starts);
  Spec spec = choice.spec;
  // The layer with the most demanding mask decides for all.
  for (const flex::Expression& mask : choice.masks) {
    if (mask.node().size > spec.mask.node().size) spec.mask = mask;
  }
  const Backend& backend = choose_backend(config.attention, q, k, k, spec);
  setup.backend = backend.name;
  setup.fused = backend.fused;
  return setup;
}

MaskShare mask_share(const AttentionSetup& attention, const at::Tensor& document_starts) {
  const int64_t B = document_starts.size(0), T = document_starts.size(1);
  const AttentionChoice choice = attention.on_cpu().bind(document_starts.to(at::kCPU));
  std::vector<flex::Expression> masks = choice.masks;
  if (masks.empty()) masks = {choice.spec.mask};
  MaskShare share{.sparsity = 0, .visited = 0};
  for (const flex::Expression& mask : masks) {
    const flex::BlockMaskOptions options = {.B = B, .H = attention.n_head, .T = T, .S = T};
    const flex::BlockMask blocks = flex::make_block_mask(mask, options);
    const auto count = static_cast<double>(masks.size());
    share.sparsity += (1 - flex::visible_share(mask, options)) / count;
    const double visited = blocks.kinds.ne(0).to(at::kDouble).mean().item<double>();
    share.visited += (attention.fused ? visited : 1) / count;
  }
  return share;
}

}  // namespace nanoflex
