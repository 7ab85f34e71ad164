#include "attention/flex/mask_judge.h"

#include <algorithm>

namespace nanoflex::flex {
namespace {

at::Device device_of(const Expression& expression) {
  std::optional<at::Device> device;
  for_each_node(expression, [&](const Expression& part) {
    const at::Tensor& tensor = part.node().tensor;
    if (!device && tensor.defined()) device = tensor.device();
  });
  return device.value_or(at::kCPU);
}

// What evaluate() says of a box.
at::Tensor evaluate_box(const Expression& expression, const BlockMaskOptions& options,
                        const Box& box) {
  const int64_t offset = options.S - options.T;
  return evaluate(expression, {.T = options.T,
                               .S = options.S,
                               .device = device_of(expression),
                               .rows = Range{box.q_low - offset, box.q_high - offset + 1},
                               .columns = Range{box.kv_low, box.kv_high + 1},
                               .batches = Range{box.b_low, box.b_high + 1},
                               .heads = Range{box.h_low, box.h_high + 1}});
}

Box box_of(const Area& area, const BlockMaskOptions& options) {
  const int64_t offset = options.S - options.T;
  return {.b_low = area.b,
          .b_high = area.b,
          .h_low = area.h,
          .h_high = area.h,
          .q_low = area.rows.begin + offset,
          .q_high = area.rows.end + offset - 1,
          .kv_low = area.keys.begin,
          .kv_high = area.keys.end - 1};
}

struct Dimension {
  Op op;
  int64_t Box::*low;
  int64_t Box::*high;
};
constexpr Dimension kDimensions[] = {{Op::kBatch, &Box::b_low, &Box::b_high},
                                     {Op::kHead, &Box::h_low, &Box::h_high},
                                     {Op::kQuery, &Box::q_low, &Box::q_high},
                                     {Op::kKey, &Box::kv_low, &Box::kv_high}};

// Looks for a read outside of a tensor in one of its indices by halving boxes; evaluate() has the
// last word, and refuses it.
class ReadCheck {
 public:
  ReadCheck(const Expression& read, int64_t index, const BlockMaskOptions& options)
      : read_(read),
        options_(options),
        index_(read.node().operands[index], Floats::kSingle),
        size_(read.node().tensor.size(index)) {
    Box box = whole_box(options.B, options.H, options.T, options.S);
    for (const Dimension& dimension : kDimensions) {
      if (!has_operator(read.node().operands[index], dimension.op)) {
        box.*dimension.high = box.*dimension.low;
      }
    }
    check(box);
  }

 private:
  void check(const Box& box) {
    const Integers values = index_.run(box).whole;
    if (values.low >= 0 && values.high < size_) return;
    const auto span = [&](const Dimension& d) { return box.*d.high - box.*d.low; };
    const Dimension* widest =
        std::max_element(std::begin(kDimensions), std::end(kDimensions),
                         [&](const Dimension& a, const Dimension& b) { return span(a) < span(b); });
    if (values.high < 0 || values.low >= size_) return evaluate_corner(box);
    int64_t points = 1;
    for (const Dimension& dimension : kDimensions) points *= span(dimension) + 1;
    if (points <= kAtOnce) {
      evaluate_box(read_, options_, box);
      return;
    }
    const int64_t middle = box.*widest->low + span(*widest) / 2;
    Box first = box, second = box;
    first.*widest->high = middle;
    second.*widest->low = middle + 1;
    check(first);
    check(second);
  }

  void evaluate_corner(Box box) const {
    for (const Dimension& dimension : kDimensions) box.*dimension.high = box.*dimension.low;
    evaluate_box(read_, options_, box);
  }

  // Points that are looked at rather than halved: intervals may never decide on one that is
  // rounded.
  static constexpr int64_t kAtOnce = 128 * 128;
  const Expression& read_;
  const BlockMaskOptions& options_;
  IntervalProgram index_;
  const int64_t size_;
};

void check_read(const Expression& read, const BlockMaskOptions& options) {
  const auto indices = static_cast<int64_t>(read.node().operands.size());
  for (int64_t i = 0; i < indices; ++i) ReadCheck(read, i, options);
}

}  // namespace

MaskJudge::MaskJudge(const Expression& mask, const BlockMaskOptions& options)
    : mask_(require_mask(mask)),
      options_(options),
      program_(mask_, Floats::kSingle),
      batches_(has_operator(mask, Op::kBatch) ? options.B : 1),
      heads_(has_operator(mask, Op::kHead) ? options.H : 1) {
  if (!program_.run(whole_box(options.B, options.H, options.T, options.S)).may_fail) return;
  for_each_node(mask, [&](const Expression& part) {
    if (part.node().op == Op::kLoad) check_read(part, options);
  });
}

Verdict MaskJudge::judge(const Area& area) {
  ++judged_;
  const Integers value = program_.run(box_of(area, options_)).whole;
  if (value.single()) return value.low == 1 ? Verdict::kVisible : Verdict::kHidden;
  if (area.pairs() > 1) return Verdict::kOpen;
  return evaluated(area) ? Verdict::kVisible : Verdict::kHidden;
}

// For what intervals round: a pair's neighbours are asked for next, so the block around it is
// evaluated at once.
bool MaskJudge::evaluated(const Area& pair) {
  const int64_t row = pair.rows.begin, key = pair.keys.begin;
  const auto holds = [](Range range, int64_t i) { return range.begin <= i && i < range.end; };
  const bool known = tile_values_.defined() && tile_.b == pair.b && tile_.h == pair.h &&
                     holds(tile_.rows, row) && holds(tile_.keys, key);
  if (!known) {
    const int64_t size = options_.block_size;
    const auto block = [&](int64_t i, int64_t end) {
      return Range{i / size * size, std::min(i / size * size + size, end)};
    };
    tile_ = {pair.b, pair.h, block(row, options_.T), block(key, options_.S)};
    tile_values_ = evaluate_area(tile_).to(at::kCPU).contiguous();
  }
  return tile_values_
      .data_ptr<bool>()[(row - tile_.rows.begin) * tile_.keys.size() + key - tile_.keys.begin];
}

int64_t MaskJudge::count(const Area& area) const {
  return evaluate_area(area).sum().item<int64_t>();
}

// [rows, keys]
at::Tensor MaskJudge::evaluate_area(const Area& area) const {
  return evaluate_box(mask_, options_, box_of(area, options_))
      .expand({1, 1, area.rows.size(), area.keys.size()})[0][0];
}

}  // namespace nanoflex::flex
