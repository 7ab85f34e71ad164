// A mask's or a score's text from a stranger ends in an expression or a message, soon; and what is
// accepted can be printed and read back, differentiated, and turned into block masks and kernels.
#include <ATen/Functions.h>

#include "attention/flex/block_mask.h"
#include "attention/flex/cuda_source.h"
#include "attention/flex/derivative.h"
#include "attention/flex/parse.h"
#include "attention/flex/simplify.h"
#include "tests/fuzz/input_file.h"

namespace nanoflex::flex {
namespace {

const std::map<std::string, at::Tensor>& tensors() {
  static const auto* made = new std::map<std::string, at::Tensor>{
      {"document", at::arange(16).div(5, "floor").to(at::kInt).expand({2, 16}).contiguous()},
      {"slopes", at::rand({2})},
      {"bias", at::rand({2, 32})}};
  return *made;
}

void use(const Expression& made, bool is_score) {
  const Vocabulary vocabulary = vocabulary_of(tensors());
  const std::string text = to_text(made);
  if (text.size() <= 4096) {
    const Expression back = is_score ? parse_score(text, vocabulary) : parse_mask(text, vocabulary);
    require(same_form(back, made), "reads back as another expression: " + text);
  }
  const Expression bound = flex::bind(simplify(made), tensors());
  if (!free_tensors(bound).empty()) return;  // names of tensors that a run makes
  if (is_score) {
    derivative(bound);
    captured_reads(bound);
    cuda_source({}, bound);
    return;
  }
  cuda_source(bound, {});
  const BlockMask mask =
      make_block_mask(bound, {.B = 2, .H = 2, .T = 16, .S = 16, .block_size = 16});
  require(mask.sparsity() >= 0 && mask.sparsity() <= 1, "sparsity out of range: " + text);
}

}  // namespace
}  // namespace nanoflex::flex

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nanoflex::flex;
  const std::string text(reinterpret_cast<const char*>(data), size);
  for (const bool is_score : {false, true}) {
    try {
      const Vocabulary vocabulary = vocabulary_of(tensors());
      use(is_score ? parse_score(text, vocabulary) : parse_mask(text, vocabulary), is_score);
    } catch (const std::invalid_argument&) {  // a message
    }
  }
  return 0;
}
