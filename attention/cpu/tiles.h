// Tiles of q, k, v and dO as the products want them: as they lie in memory where that serves, else
// copied, widened, paired or transposed into scratch.
#pragma once

#include "attention/cpu/gemm.h"
#include "attention/cpu/sight.h"

namespace nanoflex::cpu {
namespace {

/// Memory of one thread, handed out front to back.
class Scratch {
 public:
  /// Null: nothing is handed out, only counted.
  explicit Scratch(char* begin) : begin_(begin) {}
  template <typename T>
  T* take(int64_t count) {
    T* result = begin_ ? reinterpret_cast<T*>(begin_ + used_) : nullptr;
    used_ += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return result;
  }
  int64_t used() const { return used_; }

 private:
  char* begin_;
  int64_t used_ = 0;
};

inline int64_t rounded_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

template <typename Input>
Input* row_of(const Rows& rows, int64_t b, int64_t h, int64_t row) {
  return static_cast<Input*>(rows.data) + b * rows.batch + h * rows.head + row * rows.row;
}

inline float to_float(float x) { return x; }
inline float to_float(uint16_t x) { return widen(x); }

// Element `step` of a row: one number, or two neighbours (zero beyond D).
template <typename Math, typename Input>
typename Math::Element element_at(const Input* row, int64_t step, int64_t D) {
  if constexpr (Math::kPair == 1) {
    return to_float(row[step]);
  } else {
    const uint32_t low = row[2 * step], high = 2 * step + 1 < D ? row[2 * step + 1] : 0;
    return low | high << 16;
  }
}

/// Rows as the left factor of a product along D.
template <typename Math, typename Input>
Operand<typename Math::Element> left_rows(const Input* data, int64_t stride, int64_t rows,
                                          int64_t D, typename Math::Element* scratch) {
  using Element = typename Math::Element;
  constexpr bool kSame = sizeof(Input) * Math::kPair == sizeof(Element);
  if constexpr (kSame) {
    if (D % Math::kPair == 0 && stride % Math::kPair == 0) {
      return {reinterpret_cast<const Element*>(data), stride / Math::kPair, 1};
    }
  }
  const int64_t steps = (D + Math::kPair - 1) / Math::kPair;
  for (int64_t i = 0; i < rows; ++i) {
    int64_t step = 0;
    if constexpr (!kSame) {
      using V = Vectors<Math::kLanes>;
      for (; step + Math::kLanes <= steps; step += Math::kLanes) {
        V::store(scratch + i * steps + step, V::widen(V::load(data + i * stride + step)));
      }
    }
    for (; step < steps; ++step) {
      scratch[i * steps + step] = element_at<Math>(data + i * stride, step, D);
    }
  }
  return {scratch, steps, 1};
}

/// Rows as a factor of a product along the rows: elements [rows / kPair, D], which pair
/// neighbouring rows; each `width` >= D elements long, zero beyond D. `padded`: whether elements
/// beyond D are read.
template <typename Math, typename Input>
Operand<typename Math::Element> stacked_rows(const Input* data, int64_t stride, int64_t rows,
                                             int64_t D, int64_t width, bool padded,
                                             typename Math::Element* scratch) {
  using V = Vectors<Math::kLanes>;
  if constexpr (Math::kPair == 1 && sizeof(Input) == sizeof(float)) {
    if (!padded || width == D) return {data, 1, stride};
  }
  for (int64_t i = 0; i < rows; i += Math::kPair) {
    const Input* first = data + i * stride;
    const bool alone = i + 1 == rows;
    typename Math::Element* out = scratch + i / Math::kPair * width;
    int64_t d = 0;
    for (; d + Math::kLanes <= D; d += Math::kLanes) {
      if constexpr (Math::kPair == 2) {
        using U = typename V::U;
        const U low = __builtin_convertvector(V::load(first + d), U);
        const U high = alone ? U{} : __builtin_convertvector(V::load(first + stride + d), U);
        V::store(out + d, low | high << 16);
      } else if constexpr (sizeof(Input) == 2) {
        V::store(out + d, V::widen(V::load(first + d)));
      } else {
        V::store(out + d, V::load(first + d));
      }
    }
    for (; d < D; ++d) {
      if constexpr (Math::kPair == 2) {
        out[d] = first[d] | (alone ? 0u : static_cast<uint32_t>(first[stride + d]) << 16);
      } else {
        out[d] = to_float(first[d]);
      }
    }
    for (; d < width; ++d) out[d] = 0;
  }
  return {scratch, 1, width};
}

/// Writes row `column` into a right factor [steps, width]: one column of it.
template <typename Math, typename Input>
void put_column(const Input* row, int64_t D, int64_t column, int64_t width,
                typename Math::Element* out) {
  const int steps = static_cast<int>((D + Math::kPair - 1) / Math::kPair);
  for (int step = 0; step < steps; ++step) {
    out[step * width + column] = element_at<Math>(row, step, D);
  }
}

/// Writes `count` <= width rows into a right factor [steps, width] as columns; row(i) points to the
/// i-th. What lies beyond them is left alone.
template <typename Math, typename Input, typename Row>
void put_columns(const Row& row, int64_t count, int64_t D, int64_t width,
                 typename Math::Element* out) {
  using V = Vectors<Math::kLanes>;
  constexpr int kLanes = Math::kLanes;
  constexpr int kStep = kLanes * Math::kPair;  // of D
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t column = 0; column < whole; column += kLanes) {
    const Input* rows[kLanes];
    for (int i = 0; i < kLanes; ++i) rows[i] = row(column + i);
    int64_t d = 0;
    for (; d + kStep <= D; d += kStep) {
      typename V::F tile[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        if constexpr (sizeof(Input) * Math::kPair == sizeof(float)) {
          tile[i] = V::load(reinterpret_cast<const float*>(rows[i] + d));
        } else {
          tile[i] = V::widen(V::load(rows[i] + d));
        }
      }
      V::transpose(tile);
      auto* to = reinterpret_cast<float*>(out + d / Math::kPair * width + column);
      for (int i = 0; i < kLanes; ++i) V::store(to + i * width, tile[i]);
    }
    const int64_t rest = smaller<int64_t>(D - d, kStep);
    for (int i = 0; rest > 0 && i < kLanes; ++i) {
      put_column<Math>(rows[i] + d, rest, column + i, width, out + d / Math::kPair * width);
    }
  }
  for (int64_t column = whole; column < count; ++column) {
    put_column<Math>(row(column), D, column, width, out);
  }
}

/// fp32 to the inputs' type.
inline void put(float* out, float x) { *out = x; }
inline void put(uint16_t* out, float x) { *out = narrow(x); }

/// Column i of `columns` [D, width], times factor[i], to the row that row(i) points to; null: not.
template <int kLanes, typename Output, typename Row>
void put_rows(const float* columns, int64_t D, int64_t width, const float* factor, const Row& row) {
  using V = Vectors<kLanes>;
  for (int64_t column = 0; column < width; column += kLanes) {
    Output* rows[kLanes];
    for (int i = 0; i < kLanes; ++i) rows[i] = row(column + i);
    int64_t d = 0;
    for (; d + kLanes <= D; d += kLanes) {
      typename V::F tile[kLanes];
      for (int i = 0; i < kLanes; ++i) tile[i] = V::load(columns + (d + i) * width + column);
      V::transpose(tile);
      for (int i = 0; i < kLanes; ++i) {
        if (!rows[i]) continue;
        const typename V::F scaled = tile[i] * factor[column + i];
        if constexpr (sizeof(Output) == sizeof(float)) {
          V::store(rows[i] + d, scaled);
        } else {
          V::store(rows[i] + d, V::narrow(scaled));
        }
      }
    }
    for (; d < D; ++d) {
      for (int i = 0; i < kLanes; ++i) {
        if (rows[i]) put(rows[i] + d, columns[d * width + column + i] * factor[column + i]);
      }
    }
  }
}

}  // namespace
}  // namespace nanoflex::cpu
