// Which pairs a kernel looks at: the band of params.h, and a program that flex plugs in.
#pragma once

#include "attention/cuda/ptx.cuh"

namespace nanoflex::cuda {

constexpr float kInfinity = __builtin_bit_cast(float, 0x7f800000);
constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

/// What a program says. q is the query's position among the keys (row + S - T); b, h, q and kv are
/// always within their tensors. All have blocks(). One with a mask has
///   bool mask(int b, int h, int q, int kv) const;  // may they attend?
/// and one with a score, where s is the scaled one and results have the same bits in every kernel,
///   float score(float s, int b, int h, int q, int kv) const;  // the changed one
///   float score(float s, int b, int h, int q, int kv, float& derivative) const;  // and d/ds of it
struct NoProgram {
  static constexpr bool kHasMask = false, kHasScore = false;
  /// What is known of the mask beforehand.
  __device__ __forceinline__ BlockKinds blocks() const { return {}; }
};

struct Range {
  int begin, end;
};

/// The blocks of kSize keys (or queries) that a range of them touches; perhaps none.
template <int kSize>
struct BlocksOfRange {
  int first, last;  // one past the last

  __device__ __forceinline__ explicit BlocksOfRange(Range range)
      : first(range.begin / kSize),
        last(range.end > range.begin ? (range.end + kSize - 1) / kSize : range.begin / kSize) {}

  __device__ __forceinline__ int count() const { return last - first; }
  __device__ __forceinline__ int at(int i) const { return first + i; }

  /// Keeps part `index` of `parts` equal ones.
  __device__ __forceinline__ void split(int index, int parts) {
    const int size = (last - first + parts - 1) / parts;
    first = min(first + index * size, last);
    last = min(first + size, last);
  }
};

struct Band {
  int left, right, offset, T, S;

  __device__ __forceinline__ explicit Band(const AttentionParams& p)
      : left(p.left), right(p.right), offset(p.S - p.T), T(p.T), S(p.S) {}

  __device__ __forceinline__ int position(int row) const { return row + offset; }
  /// For a program: those of rows and keys beyond the last, of which nothing is kept, are the
  /// last's.
  __device__ __forceinline__ int program_position(int row) const {
    return min(position(row), S - 1);
  }
  __device__ __forceinline__ int program_key(int key) const { return min(key, S - 1); }

  /// Keys that any of query rows first .. last sees.
  __device__ __forceinline__ Range keys(int first, int last) const {
    return {max(position(first) - left, 0), min(position(last) + right + 1, S)};
  }
  /// Query rows that see any of keys first .. last.
  __device__ __forceinline__ Range rows(int first, int last) const {
    return {max(first - right - offset, 0), min(last + left - offset + 1, T)};
  }
  __device__ __forceinline__ bool sees(int row, int key) const {
    const int distance = key - position(row);
    return distance >= -left && distance <= right && key < S;
  }
  /// Does no row of first_row .. last_row see any of the keys?
  __device__ __forceinline__ bool none(int first_row, int last_row, int first_key,
                                       int last_key) const {
    return first_key > position(last_row) + right || last_key < position(first_row) - left ||
           first_key >= S;
  }
  /// Does every such row see all of them?
  __device__ __forceinline__ bool all(int first_row, int last_row, int first_key,
                                      int last_key) const {
    return last_key <= position(first_row) + right && first_key >= position(last_row) - left &&
           last_key < S;
  }
};

/// Whether a row of a head sees a key, by band and program; any answer for rows beyond the last.
template <typename Program>
__device__ __forceinline__ bool sees_key(const Band& band, const Program& program, int b, int h,
                                         int row, int kv) {
  if (!band.sees(row, kv)) return false;
  if constexpr (Program::kHasMask) return program.mask(b, h, band.program_position(row), kv);
  return true;
}

}  // namespace nanoflex::cuda
