// The head's loss on tiles of the vocabulary, with rows of x as vector lanes. A chunk of rows meets
// the vocabulary twice:
//   z = weight x^T;  sum += e^l;  slope = e^l (1 - tanh^2)   with l = softcap tanh(z / softcap)
//   dx += weight^T slope / sum;  dweight += slope x / sum
// What a target adds to its slope comes between (head_cpu.cpp).
#pragma once

#include "attention/cpu/elementary.h"
#include "attention/cpu/tiles.h"
#include "model/cpu/head_kernels.h"

namespace nanoflex::cpu {
namespace {

// Rows of x that a chunk holds at most. Products on tile registers are done before memory is: there
// more rows share what is read of the weight and of its gradient, while the cache still holds what
// a section sums up of dx.
template <typename Math>
int64_t head_rows(int64_t C) {
  return Math::kUnit > 1 && C <= 256 ? 512 : 256;
}

// x as a right factor.
template <typename Math>
Columns<typename Math::Element> head_columns(const HeadChunk& p) {
  auto* columns = reinterpret_cast<typename Math::Element*>(p.columns);
  return columns_of<Math>(columns, steps_of<Math>(p.C), p.stride);
}

template <typename Math, typename Input>
class HeadTile {
  using V = Vectors<Math::kLanes>;
  using F = typename V::F;
  using Element = typename Math::Element;

 public:
  HeadTile(const HeadChunk& chunk, Scratch& scratch)
      : p_(chunk),
        width_(static_cast<int>(rounded_up(chunk.rows, Math::kLanes))),
        steps_(static_cast<int>(steps_of<Math>(chunk.C))),
        weight_scratch_(scratch.take<Element>(kHeadTile * padded_width(chunk.C))),
        z_(scratch.take<float>(kHeadTile * chunk.stride)),
        slope_scratch_(scratch.take<Element>(kHeadTile * chunk.stride)),
        sums_(scratch.take<float>(chunk.stride)),
        dweight_(scratch.take<float>(kHeadTile * padded_width(chunk.C))) {}

  void exponentials(const HeadSection& section, float* sums) {
    for (int i = 0; i < width_; ++i) sums[i] = 0;
    for (int64_t v = section.begin; v < section.end; v += kHeadTile) {
      const int count = smaller<int64_t>(kHeadTile, section.end - v);
      const auto weight = left_rows<Math>(row(v), p_.C, count, p_.C, weight_scratch_);
      multiply<Math>(static_cast<int>(rounded_up(count, Math::kUnit)), width_, steps_, weight,
                     head_columns<Math>(p_), z(), false);
      for (int64_t i = 0; i < p_.rows; ++i) {
        const int64_t at = p_.targets[i] - v;
        if (at < 0 || at >= count) continue;
        p_.target_z[i] = panel_of(z(), i / Math::kLanes).from(at).data[i % Math::kLanes];
      }
      soften(v, count, section.end);
      for (int i = 0; i < width_; i += Math::kLanes) {
        V::store(sums + i, V::load(sums + i) + V::load(sums_ + i));
      }
    }
  }

  void gradients(const HeadSection& section, float* dx) {
    const int depth = static_cast<int>(rounded_up(p_.C, Math::kUnit));
    for (int64_t v = section.begin; v < section.end; v += kHeadTile) {
      const int count = smaller<int64_t>(kHeadTile, section.end - v);
      const Input* slope = slopes(v);
      if (count * p_.C <= kFetched) fetch(p_.dweight + v * p_.C, count * p_.C);
      const auto weight = left_columns<Math>(row(v), p_.C, count, p_.C, weight_scratch_);
      const auto right =
          stacked_rows<Math>(slope, p_.stride, count, width_, p_.stride, false, slope_scratch_);
      multiply<Math>(depth, width_, static_cast<int>(steps_of<Math>(count)), weight, right,
                     columns_of<Math>(dx, padded_width(p_.C), p_.stride), v > section.begin);
      add_dweight(v, count, left_rows<Math>(slope, p_.stride, count, p_.rows, slope_scratch_));
    }
  }

 private:
  static constexpr int64_t kFetched = 65536;  // numbers of dweight, few enough to stay in cache

  const Input* row(int64_t v) const { return static_cast<const Input*>(p_.weight) + v * p_.C; }
  Input* slopes(int64_t v) const {
    return p_.slope ? static_cast<Input*>(p_.slope) + v * p_.stride : nullptr;
  }

  // Has memory brought near while there is other work to do.
  template <typename T>
  static void fetch(const T* from, int64_t count) {
    constexpr int64_t kLine = 64 / sizeof(T);
    for (int64_t i = 0; i < count; i += kLine) __builtin_prefetch(from + i, 0, 2);
  }

  // z to slopes, and the tile's sums. `end`: of the section.
  void soften(int64_t v, int count, int64_t end) {
    constexpr int kGroup = 4 * Math::kLanes;
    for (int i = 0; i < width_; i += Math::kLanes) V::store(sums_ + i, F{});
    for (int j = 0; j < count; ++j) {
      const int64_t next = v + kHeadTile + j;
      if (next < end) fetch(row(next), p_.C);
      int i = 0;
      for (; i + kGroup <= width_; i += kGroup) soften<4>(slopes(v + j), j, i);
      for (; i < width_; i += Math::kLanes) soften<1>(slopes(v + j), j, i);
    }
  }

  // The j-th entry of the tile against kCount vectors of rows from the i-th on.
  template <int kCount>
  void soften(Input* slope, int j, int i) {
    const float inverse = 1 / p_.softcap, exponent = p_.softcap * kLog2E;
    F tanh[kCount];
    for (int n = 0; n < kCount; ++n) {
      tanh[n] = V::load(panel_of(z(), i / Math::kLanes + n).from(j).data) * inverse;
    }
    Elementary<Math::kLanes>::tanh_of_moderate(tanh);
    for (int n = 0; n < kCount; ++n, i += Math::kLanes) {
      const F e = V::template exp2<Math::kPair == 2>(tanh[n] * exponent);
      V::store(sums_ + i, V::load(sums_ + i) + e);
      if (!slope) continue;
      const F rise = e * (1.0f - tanh[n] * tanh[n]);
      if constexpr (sizeof(Input) == sizeof(float)) {
        V::store(slope + i, rise);
      } else {
        V::store(slope + i, V::narrow(rise));
      }
    }
  }

  void add_dweight(int64_t v, int count, Operand<Element> slope) {
    const int steps = static_cast<int>(steps_of<Math>(p_.rows));
    const auto right =
        columns_of<Math>(reinterpret_cast<const Element*>(p_.scaled), steps, padded_width(p_.C));
    const int64_t width = padded_width(p_.C);
    float* out = p_.dweight + v * p_.C;
    if (p_.C % Math::kLanes == 0 && count % Math::kUnit == 0) {
      return multiply<Math>(count, static_cast<int>(p_.C), steps, slope, right,
                            {out, p_.C, Math::kLanes}, !p_.first);
    }
    const int columns = static_cast<int>(rounded_up(p_.C, Math::kLanes));
    multiply<Math>(static_cast<int>(rounded_up(count, Math::kUnit)), columns, steps, slope, right,
                   {dweight_, width, Math::kLanes}, false);
    for (int j = 0; j < count; ++j) {
      for (int64_t c = 0; c < p_.C; ++c) {
        const float sum = dweight_[j * width + c];
        out[j * p_.C + c] = p_.first ? sum : out[j * p_.C + c] + sum;
      }
    }
  }

  Columns<float> z() const { return columns_of<Math>(z_, kHeadTile, p_.stride); }

  const HeadChunk& p_;
  const int width_, steps_;
  Element* const weight_scratch_;
  float* const z_;
  Element* const slope_scratch_;
  float *const sums_, *const dweight_;
};

template <typename Math, typename Input>
int64_t head_scratch_bytes(int64_t C) {
  Scratch counted(nullptr);
  HeadChunk chunk{};
  chunk.C = C;
  chunk.stride = head_stride(head_rows<Math>(C));
  HeadTile<Math, Input>(chunk, counted);
  return counted.used();
}

template <typename Math, typename Input>
void pack_head(const HeadChunk& p) {
  const auto* x = static_cast<const Input*>(p.x);
  const auto columns = head_columns<Math>(p);
  for (int64_t i = 0; i < steps_of<Math>(p.C) * p.stride; ++i) columns.data[i] = 0;
  put_columns<Math, Input>([&](int64_t row) { return x + row * p.C; }, p.rows, p.C, columns);
}

template <typename Math, typename Input>
void run_exponentials(const HeadChunk& chunk, const HeadSection& section, char* memory,
                      float* sums) {
  Scratch scratch(memory);
  [[maybe_unused]] const typename Math::Session session{};
  HeadTile<Math, Input>(chunk, scratch).exponentials(section, sums);
}

template <typename Math, typename Input>
void pack_scaled_head(const HeadChunk& p) {
  auto* out = reinterpret_cast<typename Math::Element*>(p.scaled);
  const auto* x = static_cast<const Input*>(p.scaled_x);
  const int64_t width = padded_width(p.C);
  stacked_rows<Math>(x, p.C, p.rows, p.C, width, true, out);
}

template <typename Math, typename Input>
void run_head_gradients(const HeadChunk& chunk, const HeadSection& section, char* memory,
                        float* dx) {
  Scratch scratch(memory);
  [[maybe_unused]] const typename Math::Session session{};
  HeadTile<Math, Input>(chunk, scratch).gradients(section, dx);
}

template <typename Math, typename Input>
void put_head_rows(const HeadChunk& p, const float* dx, const float* factor, void* out) {
  auto* rows = static_cast<Input*>(out);
  const auto columns = columns_of<Math>(dx, padded_width(p.C), p.stride);
  put_rows<Math::kLanes, Input>(columns, p.C, p.stride, factor, [&](int64_t row) {
    return row < p.rows ? rows + row * p.C : nullptr;
  });
}

template <typename Math, typename Input>
HeadKernels head_kernels_of() {
  return {head_rows<Math>,
          head_scratch_bytes<Math, Input>,
          pack_head<Math, Input>,
          run_exponentials<Math, Input>,
          pack_scaled_head<Math, Input>,
          run_head_gradients<Math, Input>,
          put_head_rows<Math, Input>};
}

}  // namespace
}  // namespace nanoflex::cpu
