// A pyramid over a tensor's last two dimensions: a cell of level k holds the least and greatest of
// 4^k x 4^k elements. A range is made of the largest cells that lie in it.
#include "attention/flex/range_table.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace nanoflex::flex {
namespace {

constexpr int kFanoutBits = 2;
constexpr int64_t kFanout = 1 << kFanoutBits;

int64_t divided_by_fanout(int64_t x) { return (x + kFanout - 1) / kFanout; }

template <typename Element>
struct Cell {
  using Limits = std::numeric_limits<Element>;
  Element low = Limits::has_infinity ? Limits::infinity() : Limits::max();
  Element high = Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
  bool has_nan = false;

  void include(Element element) {
    if constexpr (std::is_floating_point_v<Element>) {
      if (std::isnan(element)) {
        has_nan = true;
        return;
      }
    }
    low = std::min(low, element);
    high = std::max(high, element);
  }
  void include(const Cell& other) {
    low = std::min(low, other.low);
    high = std::max(high, other.high);
    has_nan |= other.has_nan;
  }
  bool includes(const Cell& other) const {
    return low <= other.low && high >= other.high && has_nan >= other.has_nan;
  }
};

template <typename Element>
class Table final : public RangeTable {
 public:
  Table(const at::Tensor& tensor, Floats floats)
      : tensor_(tensor.contiguous()), floats_(floats), elements_(tensor_.data_ptr<Element>()) {
    const int64_t dims = tensor.dim();
    const int64_t rows = dims > 1 ? tensor.size(-2) : 1, columns = dims > 0 ? tensor.size(-1) : 1;
    const int64_t planes = tensor.numel() / std::max<int64_t>(1, rows * columns);
    levels_.push_back({rows, columns, {}});
    while (levels_.back().rows > 1 || levels_.back().columns > 1) add_level(planes);
  }

  ValueRange over(std::span<const Integers> indices) const override {
    Query query;
    const size_t dims = indices.size();
    if (dims > 0) query.columns = indices[dims - 1];
    if (dims > 1) query.rows = indices[dims - 2];
    over_planes(dims > 2 ? indices.first(dims - 2) : indices.first(0), 0, query);
    const Cell<Element>& found = query.found;
    if constexpr (std::is_floating_point_v<Element>) {
      Reals values = found.low > found.high ? kOnlyNan : to_reals(found.low, found.high, floats_);
      values.may_be_nan = found.has_nan;
      return {.real = values};
    } else {
      return {.whole = {static_cast<int64_t>(found.low), static_cast<int64_t>(found.high)}};
    }
  }

 private:
  struct Level {
    int64_t rows, columns;
    std::vector<Cell<Element>> cells;  // [planes, rows, columns]; of level 0 the elements
  };
  struct Query {
    Integers rows = {0, 0}, columns = {0, 0};
    int64_t plane = 0;
    Cell<Element> found;
  };

  void add_level(int64_t planes) {
    const size_t below = levels_.size() - 1;
    const Level& fine = levels_[below];
    Level coarse = {divided_by_fanout(fine.rows), divided_by_fanout(fine.columns), {}};
    coarse.cells.resize(planes * coarse.rows * coarse.columns);
    for (int64_t row = 0; row < planes * fine.rows; ++row) {
      const int64_t plane = row / fine.rows, coarse_row = row % fine.rows / kFanout;
      Cell<Element>* cells =
          coarse.cells.data() + (plane * coarse.rows + coarse_row) * coarse.columns;
      const int64_t first = row * fine.columns;
      for (int64_t i = 0; i < fine.columns; ++i) {
        if (below == 0) {
          cells[i / kFanout].include(elements_[first + i]);
        } else {
          cells[i / kFanout].include(fine.cells[first + i]);
        }
      }
    }
    levels_.push_back(std::move(coarse));
  }

  // Every plane that the leading indices allow.
  void over_planes(std::span<const Integers> leading, size_t dimension, Query& query) const {
    if (dimension == leading.size()) return over_plane(query);
    const int64_t outer = query.plane * tensor_.size(static_cast<int64_t>(dimension));
    for (int64_t i = leading[dimension].low; i <= leading[dimension].high; ++i) {
      query.plane = outer + i;
      over_planes(leading, dimension + 1, query);
    }
  }

  // Begins at the level where the range is a few cells.
  void over_plane(Query& query) const {
    int level = 0;
    const auto cells = [&](Integers range) {
      const int shift = level * kFanoutBits;
      return (range.high >> shift) - (range.low >> shift) + 1;
    };
    while (std::max(cells(query.rows), cells(query.columns)) > kFanout) ++level;
    include(level, touched(level, query.rows, query.rows),
            touched(level, query.columns, query.columns), query);
  }

  // Cells of a level, each as far as it lies in the query.
  void include(int level, Integers rows, Integers columns, Query& query) const {
    const Level& cells = levels_[level];
    for (int64_t row = rows.low; row <= rows.high; ++row) {
      const int64_t first = (query.plane * cells.rows + row) * cells.columns;
      for (int64_t column = columns.low; column <= columns.high; ++column) {
        if (level == 0) {
          query.found.include(elements_[first + column]);
          continue;
        }
        const Cell<Element>& cell = cells.cells[first + column];
        if (query.found.includes(cell)) continue;
        const Integers inner_rows = extent(level, row, levels_[0].rows);
        const Integers inner_columns = extent(level, column, levels_[0].columns);
        if (holds(query.rows, inner_rows) && holds(query.columns, inner_columns)) {
          query.found.include(cell);
        } else {
          include(level - 1, touched(level - 1, inner_rows, query.rows),
                  touched(level - 1, inner_columns, query.columns), query);
        }
      }
    }
  }

  // The cell's elements in one dimension, of `size`.
  static Integers extent(int level, int64_t cell, int64_t size) {
    const int shift = level * kFanoutBits;
    return {cell << shift, std::min((cell + 1) << shift, size) - 1};
  }
  static bool holds(Integers outer, Integers inner) {
    return outer.low <= inner.low && inner.high <= outer.high;
  }
  // The cells of a level that hold what two ranges of elements have in common.
  static Integers touched(int level, Integers a, Integers b) {
    const int shift = level * kFanoutBits;
    return {std::max(a.low, b.low) >> shift, std::min(a.high, b.high) >> shift};
  }

  const at::Tensor tensor_;
  const Floats floats_;
  const Element* const elements_;
  std::vector<Level> levels_;
};

}  // namespace

std::unique_ptr<RangeTable> make_range_table(const at::Tensor& tensor, Floats floats) {
  const at::Tensor values = tensor.detach().to(at::kCPU);
  const at::ScalarType type = values.scalar_type();
  if (type == at::kBool) return std::make_unique<Table<bool>>(values, floats);
  if (at::isIntegralType(type, /*includeBool=*/false)) {
    const bool fits = type == at::kInt || values.element_size() < 4;
    if (fits) return std::make_unique<Table<int32_t>>(values.to(at::kInt), floats);
    return std::make_unique<Table<int64_t>>(values.to(at::kLong), floats);
  }
  if (type == at::kDouble && floats == Floats::kSingleOrDouble) {
    return std::make_unique<Table<double>>(values, floats);
  }
  return std::make_unique<Table<float>>(values.to(at::kFloat), floats);
}

}  // namespace nanoflex::flex
