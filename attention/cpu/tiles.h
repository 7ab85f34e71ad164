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

/// Steps of a product over `count` numbers, filled up to what the arithmetic takes at once.
template <typename Math>
constexpr int64_t steps_of(int64_t count) {
  return rounded_up((count + Math::kPair - 1) / Math::kPair, Math::kUnit);
}

/// Rows as the left factor of a product along D: [rows, steps_of(D)], with zeros beyond D; where
/// rows come in units, up to a whole one.
template <typename Math, typename Input>
Operand<typename Math::Element> left_rows(const Input* data, int64_t stride, int64_t rows,
                                          int64_t D, typename Math::Element* scratch) {
  using Element = typename Math::Element;
  constexpr bool kSame = sizeof(Input) * Math::kPair == sizeof(Element);
  constexpr int64_t kCrowded = 256;  // rows that many elements apart share a few sets of the cache
  const int64_t steps = steps_of<Math>(D);
  if constexpr (kSame) {
    const bool whole = D == steps * Math::kPair && stride % Math::kPair == 0;
    const bool spread = Math::kUnit == 1 || stride == D || stride % kCrowded != 0;
    if (whole && spread && rows % Math::kUnit == 0) {
      return {reinterpret_cast<const Element*>(data), stride / Math::kPair, 1};
    }
  }
  for (int64_t i = 0; i < rows; ++i) {
    const Input* row = data + i * stride;
    Element* out = scratch + i * steps;
    int64_t step = 0;
    using V = Vectors<Math::kLanes>;
    for (; (step + Math::kLanes) * Math::kPair <= D; step += Math::kLanes) {
      if constexpr (kSame) {
        V::store(out + step, V::load(reinterpret_cast<const Element*>(row) + step));
      } else {
        V::store(out + step, V::widen(V::load(row + step)));
      }
    }
    for (; step < steps; ++step) {
      out[step] = step * Math::kPair < D ? element_at<Math>(row, step, D) : Element{};
    }
  }
  for (int64_t i = rows * steps; i < rounded_up(rows, Math::kUnit) * steps; ++i) scratch[i] = {};
  return {scratch, steps, 1};
}

// Neighbours d .. d + kLanes of row i, or of the pair of rows i and i + 1.
template <typename Math, typename Input>
auto row_vector(const Input* data, int64_t stride, int64_t rows, int64_t i, int64_t d) {
  using V = Vectors<Math::kLanes>;
  const Input* first = data + i * stride + d;
  if constexpr (Math::kPair == 2) {
    const typename V::U low = V::bits(V::load(first));
    return i + 1 < rows ? low | V::bits(V::load(first + stride)) << 16 : low;
  } else if constexpr (sizeof(Input) == 2) {
    return V::widen(V::load(first));
  } else {
    return V::load(first);
  }
}

template <typename Math, typename Input>
typename Math::Element row_element(const Input* data, int64_t stride, int64_t rows, int64_t i,
                                   int64_t d) {
  const Input* first = data + i * stride + d;
  if constexpr (Math::kPair == 2) {
    return *first | (i + 1 < rows ? static_cast<uint32_t>(first[stride]) << 16 : 0u);
  } else {
    return to_float(*first);
  }
}

/// Rows as the right factor of a product along the rows: [steps_of(rows), D], which pair
/// neighbouring rows; `width` >= D columns, zero beyond D. `padded`: whether elements beyond D are
/// read.
template <typename Math, typename Input>
Columns<const typename Math::Element> stacked_rows(const Input* data, int64_t stride, int64_t rows,
                                                   int64_t D, int64_t width, bool padded,
                                                   typename Math::Element* scratch) {
  using V = Vectors<Math::kLanes>;
  if constexpr (Math::kPair == 1 && sizeof(Input) == sizeof(float)) {
    if (!padded || width == D) return {data, stride, Math::kLanes};
  }
  const int64_t steps = steps_of<Math>(rows);
  const auto out = columns_of<Math>(scratch, steps, width);
  for (int64_t step = 0; step < steps; ++step) {
    const int64_t i = step * Math::kPair;
    for (int64_t d = 0; d < width; d += Math::kLanes) {
      auto* to = out.data + step * out.row + d / Math::kLanes * out.panel;
      if (i < rows && d + Math::kLanes <= D) {
        V::store(to, row_vector<Math>(data, stride, rows, i, d));
        continue;
      }
      for (int64_t at = d; at < smaller<int64_t>(d + Math::kLanes, width); ++at) {
        to[at - d] = i < rows && at < D ? row_element<Math>(data, stride, rows, i, at)
                                        : typename Math::Element{};
      }
    }
  }
  return {out.data, out.row, out.panel};
}

// Columns 0 .. 16 of 32 rows of 16-bit words to rows of 32 words, in half the instructions of what
// V::transpose needs; false where there are fewer, or no such instructions. With whole masks, since
// g++ 12 warns of instructions without.
inline bool transpose_words([[maybe_unused]] const uint16_t* data, [[maybe_unused]] int64_t stride,
                            [[maybe_unused]] int64_t rows, [[maybe_unused]] int64_t columns,
                            [[maybe_unused]] uint32_t* out) {
#ifdef __AVX512BW__
  if (rows < 32 || columns < 16) return false;
  for (int half = 0; half < 2; ++half, data += 8, out += 8 * 16) {
    __m512i x[8], y[8];
    for (int i = 0; i < 8; ++i) {  // a quarter holds 8 words of row i, 8 + i, 16 + i, 24 + i
      const auto words = [&](int quarter) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(data + (8 * quarter + i) * stride));
      };
      x[i] = _mm512_zextsi128_si512(words(0));
      x[i] = _mm512_mask_broadcast_i32x4(x[i], 0x00f0, words(1));
      x[i] = _mm512_mask_broadcast_i32x4(x[i], 0x0f00, words(2));
      x[i] = _mm512_mask_broadcast_i32x4(x[i], 0xf000, words(3));
    }
    for (int i = 0; i < 8; i += 2) {
      y[i] = _mm512_unpacklo_epi16(x[i], x[i + 1]);
      y[i + 1] = _mm512_unpackhi_epi16(x[i], x[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
      for (int j = 0; j < 2; ++j) {
        x[i + 2 * j] = _mm512_maskz_unpacklo_epi32(0xffff, y[i + j], y[i + j + 2]);
        x[i + 2 * j + 1] = _mm512_maskz_unpackhi_epi32(0xffff, y[i + j], y[i + j + 2]);
      }
    }
    for (int i = 0; i < 4; ++i) {
      _mm512_storeu_si512(out + 2 * i * 16, _mm512_maskz_unpacklo_epi64(0xff, x[i], x[i + 4]));
      _mm512_storeu_si512(out + (2 * i + 1) * 16,
                          _mm512_maskz_unpackhi_epi64(0xff, x[i], x[i + 4]));
    }
  }
  return true;
#else
  return false;
#endif
}

/// Rows as the left factor of a product along the rows: [D, steps_of(rows)], which pair
/// neighbouring rows.
template <typename Math, typename Input>
Operand<typename Math::Element> left_columns(const Input* data, int64_t stride, int64_t rows,
                                             int64_t D, typename Math::Element* scratch) {
  if constexpr (Math::kUnit == 1) {
    const auto stacked = stacked_rows<Math>(data, stride, rows, D, D, false, scratch);
    return {stacked.data, 1, stacked.row};
  } else {  // tile after tile, each kLanes rows of kLanes neighbours along the product
    using V = Vectors<Math::kLanes>;
    constexpr int kLanes = Math::kLanes;
    constexpr int64_t kRows = kLanes * Math::kPair;  // of a tile's columns
    const int64_t depth = rounded_up(D, kLanes);
    for (int64_t row = 0; row < rows; row += kRows) {
      for (int64_t d = 0; d < D; d += kLanes) {
        auto* out = scratch + row / Math::kPair * depth + d * kLanes;
        if (transpose_words(data + row * stride + d, stride, rows - row, D - d, out)) continue;
        typename V::F tile[kLanes] = {};
        for (int i = 0; i < kLanes && row + i * Math::kPair < rows; ++i) {
          const int64_t first = row + i * Math::kPair;
          if (d + kLanes <= D) {
            tile[i] =
                reinterpret_cast<typename V::F>(row_vector<Math>(data, stride, rows, first, d));
          } else {
            auto* elements = reinterpret_cast<typename Math::Element*>(&tile[i]);
            for (int64_t at = d; at < D; ++at) {
              elements[at - d] = row_element<Math>(data, stride, rows, first, at);
            }
          }
        }
        V::transpose(tile);
        for (int i = 0; i < kLanes; ++i) {
          V::store(reinterpret_cast<float*>(out) + i * kLanes, tile[i]);
        }
      }
    }
    return {scratch, kLanes, depth};
  }
}

/// Zeros in the rows begin .. end of the panels that `width` columns lie in.
template <typename Math, typename T>
void clear_rows(Columns<T> x, int64_t width, int64_t begin, int64_t end) {
  for (int64_t column = 0; column < width; column += Math::kLanes) {
    for (int64_t row = begin; row < end; ++row) {
      auto* at = x.data + row * x.row + column / Math::kLanes * x.panel;
      for (int i = 0; i < Math::kLanes; ++i) at[i] = {};
    }
  }
}

/// Ends a right factor of `rows` rows, `width` columns wide, with zeros up to a whole unit; its
/// steps.
template <typename Math>
int fill_up(Columns<typename Math::Element> factor, int64_t width, int64_t rows) {
  const int64_t steps = steps_of<Math>(rows);
  clear_rows<Math>(factor, width, (rows + Math::kPair - 1) / Math::kPair, steps);
  return static_cast<int>(steps);
}

/// Writes row `column` into a right factor [steps, width]: one column of it.
template <typename Math, typename Input>
void put_column(const Input* row, int64_t D, int64_t column, Columns<typename Math::Element> out) {
  auto* to = out.data + column / Math::kLanes * out.panel + column % Math::kLanes;
  for (int64_t step = 0; step * Math::kPair < D; ++step) {
    to[step * out.row] = element_at<Math>(row, step, D);
  }
}

/// Writes `count` rows into a right factor [steps_of(D), count] as columns, with zeros beyond D;
/// row(i) points to the i-th. What lies beyond the last kLanes columns is left alone.
template <typename Math, typename Input, typename Row>
void put_columns(const Row& row, int64_t count, int64_t D, Columns<typename Math::Element> out) {
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
      const auto to = panel_of(out, column / kLanes).from(d / Math::kPair);
      for (int i = 0; i < kLanes; ++i) {
        V::store(reinterpret_cast<float*>(to.data + i * to.row), tile[i]);
      }
    }
    const int64_t rest = smaller<int64_t>(D - d, kStep);
    for (int i = 0; rest > 0 && i < kLanes; ++i) {
      put_column<Math>(rows[i] + d, rest, column + i, out.from(d / Math::kPair));
    }
  }
  for (int64_t column = whole; column < count; ++column) {
    put_column<Math>(row(column), D, column, out);
  }
  clear_rows<Math>(out, count, (D + Math::kPair - 1) / Math::kPair, steps_of<Math>(D));
}

/// Whether all numbers of some rows are finite.
template <int kLanes, typename Input>
bool finite_rows(const Input* data, int64_t stride, int64_t rows, int64_t D) {
  using V = Vectors<kLanes>;
  constexpr bool kShort = sizeof(Input) == 2;  // two in a word
  constexpr uint32_t kExponent = kShort ? 0x7f807f80 : 0x7f800000;
  constexpr uint32_t kOne = kShort ? 0x00800080 : 0x00800000;  // more than the highest exponent
  constexpr int kStep = kLanes * (kShort ? 2 : 1);
  typename V::U carries{};
  bool finite = true;
  for (int64_t row = 0; row < rows; ++row, data += stride) {
    int64_t d = 0;
    for (; d + kStep <= D; d += kStep) {
      carries |= (V::load(reinterpret_cast<const uint32_t*>(data + d)) & kExponent) + kOne;
    }
    for (; d < D; ++d) finite &= to_float(data[d]) * 0.0f == 0.0f;
  }
  return finite && !V::any((carries & (kExponent + kOne)) != 0);
}

/// fp32 to the inputs' type.
inline void put(float* out, float x) { *out = x; }
inline void put(uint16_t* out, float x) { *out = narrow(x); }

/// Column i of `columns` [D, width], times factor[i], to the row that row(i) points to; null: not.
/// Whether all of it is finite.
template <int kLanes, typename Output, typename Row>
bool put_rows(Columns<const float> columns, int64_t D, int64_t width, const float* factor,
              const Row& row) {
  using V = Vectors<kLanes>;
  using F = typename V::F;
  constexpr int kPair = sizeof(Output) == sizeof(float) ? 1 : 2;  // numbers in a word
  F zeros{};  // times what is not finite they are NaN
  for (int64_t column = 0; column < width; column += kLanes) {
    const auto from = panel_of(columns, column / kLanes);
    const F by = V::load(factor + column);
    const auto scaled = [&](int64_t d) {
      const F x = V::load(from.from(d).data) * by;
      zeros += x * 0.0f;
      return x;
    };
    Output* rows[kLanes];
    for (int i = 0; i < kLanes; ++i) rows[i] = row(column + i);
    int64_t d = 0;
    for (; d + kPair * kLanes <= D; d += kPair * kLanes) {
      F words[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        words[i] = scaled(d + kPair * i);
        if constexpr (kPair == 2) {
          words[i] = reinterpret_cast<F>(V::pair(words[i], scaled(d + kPair * i + 1)));
        }
      }
      V::transpose(words);
      for (int i = 0; i < kLanes; ++i) {
        if (rows[i]) V::store(reinterpret_cast<float*>(rows[i] + d), words[i]);
      }
    }
    for (; d < D; ++d) {
      const F x = scaled(d);
      for (int i = 0; i < kLanes; ++i) {
        if (rows[i]) put(rows[i] + d, x[i]);
      }
    }
  }
  return !V::any(zeros != 0.0f);
}

/// Columns of a panel that are multiplied apart where they need fewer rows than the rest.
template <typename Math>
constexpr int kProductColumns = Math::kLanes*(Math::kUnit > 1 ? 2 : Math::kVectors);
template <typename Math>
constexpr int kProducts = Math::kLanes* Math::kVectors / kProductColumns<Math>;

/// The products of a panel's columns, of as many at once as have the same rows:
/// product(first vector, columns, rows).
template <typename Math, typename Product>
void by_columns(const RowRange (&rows)[kProducts<Math>], const Product& product) {
  constexpr int kColumns = kProductColumns<Math>;
  for (int i = 0, count; i < kProducts<Math>; i += count) {
    for (count = 1; i + count < kProducts<Math> && rows[i + count] == rows[i];) ++count;
    product(i * kColumns / Math::kLanes, count * kColumns, rows[i]);
  }
}

}  // namespace
}  // namespace nanoflex::cpu
