#include "evidence/verify_attention.h"

#include <torch/csrc/autograd/autograd.h>

#include <map>
#include <stdexcept>

#include "attention/flex/parse.h"
#include "attention/flex/scores.h"
#include "attention/registry.h"
#include "model/safetensors.h"
#include "trainer/machine.h"

namespace nanoflex {
namespace {

using TensorMap = std::map<std::string, at::Tensor>;

at::Tensor take(TensorMap& tensors, const std::string& name, const std::string& file) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) {
    throw std::invalid_argument("[verify] " + file + " has no tensor '" + name +
                                "'; it needs q, k and v");
  }
  return tensors.extract(found).mapped();
}

// A backend without a logsumexp runs without it.
Spec with_logsumexp(Spec spec, const std::string& backend, const at::Tensor& q, const at::Tensor& k,
                    const at::Tensor& v) {
  Spec asked = spec;
  asked.need_logsumexp = true;
  if (backend == "auto") return asked;
  const Backend& named = named_backend(backend);
  const bool only_without = !named.why_unsupported(q, k, v, asked).empty() &&
                            named.why_unsupported(q, k, v, spec).empty();
  return only_without ? spec : asked;
}

void add_gradients(TensorMap& out, const Attention& result, const at::Tensor& d_output,
                   const std::vector<std::pair<std::string, at::Tensor>>& inputs) {
  std::vector<at::Tensor> leaves;
  for (const auto& [name, tensor] : inputs) leaves.push_back(tensor);
  const auto gradients = torch::autograd::grad({result.output}, leaves, {d_output}, std::nullopt,
                                               /*create_graph=*/false, /*allow_unused=*/true);
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (gradients[i].defined()) out[inputs[i].first] = gradients[i].cpu().contiguous();
  }
}

}  // namespace

std::string verify_attention(const VerifyAttentionOptions& options) {
  const at::Device device = choose_device(options.device);
  TensorMap tensors = read_safetensors(options.tensors);
  const auto leaf = [&](const at::Tensor& x) {
    return x.is_floating_point() ? x.to(device).detach().requires_grad_() : x.to(device);
  };
  const std::string file = options.tensors.string();
  const at::Tensor q = leaf(take(tensors, "q", file)), k = leaf(take(tensors, "k", file)),
                   v = leaf(take(tensors, "v", file));
  std::vector<std::pair<std::string, at::Tensor>> inputs = {{"dq", q}, {"dk", k}, {"dv", v}};
  const at::Tensor d_output =
      tensors.contains("do") ? take(tensors, "do", file).to(device) : at::Tensor();
  for (auto& [name, tensor] : tensors) {
    tensor = leaf(tensor);
    if (tensor.is_floating_point()) inputs.emplace_back("d_" + name, tensor);
  }
  if (d_output.defined() && (d_output.sizes() != q.sizes() || d_output.dtype() != q.dtype())) {
    throw std::invalid_argument(c10::str("[verify] do must be like q, ", q.dtype(), " ", q.sizes(),
                                         ", is ", d_output.dtype(), " ", d_output.sizes()));
  }
  const flex::Vocabulary vocabulary = flex::vocabulary_of(tensors);
  Spec spec = {.mask = flex::bind(flex::parse_mask(options.mask, vocabulary), tensors),
               .scale = options.scale};
  if (!options.score.empty()) {
    const flex::Expression score = flex::parse_score(options.score, vocabulary);
    tensors.try_emplace("alibi_slopes", flex::alibi_slopes(q.size(1)).to(device));
    spec.score = flex::bind(score, tensors);
  }
  // o and gradients are those that a model gets, which does not ask for the logsumexp.
  const Attention result = attend(q, k, v, spec, options.backend);
  TensorMap out = {{"o", result.output.detach().cpu().contiguous()}};
  const Attention asked =
      attend(q, k, v, with_logsumexp(spec, options.backend, q, k, v), options.backend);
  if (asked.logsumexp.defined()) out["logsumexp"] = asked.logsumexp.detach().cpu().contiguous();
  if (d_output.defined()) add_gradients(out, result, d_output, inputs);
  write_safetensors(options.out, out);
  std::string names;
  for (const auto& [name, tensor] : out) names += (names.empty() ? "" : ", ") + name;
  return options.out.string() + ": " + names + " of " +
         choose_backend(options.backend, q, k, v, spec).name + " attention (" +
         flex::to_text(spec.mask) + (spec.score.defined() ? "; " + flex::to_text(spec.score) : "") +
         "), " + c10::toString(q.scalar_type()) + " on " + device.str();
}

}  // namespace nanoflex
