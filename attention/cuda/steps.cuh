// The steps of a kernel's loop over blocks of keys (or queries): all of them or, where a program's
// mask leaves blocks empty, the others.
#pragma once

#include "attention/cuda/mask.cuh"

namespace nanoflex::cuda {

enum class Sight { none, some, all };

/// Pairs of some heads; ends included, none beyond the last row and key.
struct PairBlock {
  int b, first_head, heads, first_row, last_row, first_key, last_key;
};

/// How many of these pairs may attend, as far as the blocks know.
__device__ __forceinline__ Sight sight(const BlockKinds& blocks, const PairBlock& pairs) {
  if (blocks.kinds == nullptr) return Sight::some;
  bool none = true, all = true;
  for (int h = pairs.first_head; h < pairs.first_head + pairs.heads; ++h) {
    const unsigned char* kinds = blocks.kinds + pairs.b * blocks.batch + h * blocks.head;
    for (int row = pairs.first_row / blocks.size; row <= pairs.last_row / blocks.size; ++row) {
      for (int key = pairs.first_key / blocks.size; key <= pairs.last_key / blocks.size; ++key) {
        const int kind = kinds[static_cast<int64_t>(row) * blocks.row + key];
        none = none && kind == 0;
        all = all && kind == 2;
      }
    }
  }
  return none ? Sight::none : all ? Sight::all : Sight::some;
}

/// Turn i of the loop takes step here(i), then advance() follows; next(i) is what the turn after it
/// will take, if has_next(i).
struct EveryStep {
  int count;
  __device__ __forceinline__ bool has(int i) const { return i < count; }
  __device__ __forceinline__ bool has_next(int i) const { return i + 1 < count; }
  __device__ __forceinline__ int here(int i) const { return i; }
  __device__ __forceinline__ int next(int i) const { return i + 1; }
  /// Whether the program's mask hides some pair of this turn's step.
  __device__ __forceinline__ bool is_cut() const { return false; }
  __device__ __forceinline__ void advance() {}
};

/// Those in which some pair may attend. sight_of(step) tells; a warp's lanes ask it about 32 steps
/// at once. All lanes of a warp take part in all calls.
template <typename SightOf>
class SeenSteps {
 public:
  __device__ __forceinline__ SeenSteps(int count, const SightOf& sight_of)
      : sight_of_(sight_of), count_(count) {
    find_next();
    advance();
  }
  __device__ __forceinline__ bool has(int) const { return here_ < count_; }
  __device__ __forceinline__ bool has_next(int) const { return next_ < count_; }
  __device__ __forceinline__ int here(int) const { return here_; }
  __device__ __forceinline__ int next(int) const { return next_; }
  __device__ __forceinline__ bool is_cut() const { return here_is_cut_; }
  __device__ __forceinline__ void advance() {
    here_ = next_;
    here_is_cut_ = next_is_cut_;
    if (here_ < count_) find_next();
  }

 private:
  __device__ __forceinline__ void find_next() {
    while (seen_ == 0) {
      first_ += 32;
      if (first_ >= count_) {
        next_ = count_;
        return;
      }
      const int step = first_ + lane_index();
      const Sight sight = step < count_ ? sight_of_(step) : Sight::none;
      seen_ = __ballot_sync(0xffffffff, sight != Sight::none);
      cut_ = __ballot_sync(0xffffffff, sight == Sight::some);
    }
    const int lane = __ffs(static_cast<int>(seen_)) - 1;
    next_ = first_ + lane;
    next_is_cut_ = (cut_ >> lane & 1) != 0;
    seen_ &= seen_ - 1;
  }

  SightOf sight_of_;
  int count_, here_ = 0, next_ = 0;
  bool here_is_cut_ = false, next_is_cut_ = false;
  int first_ = -32;              // of the 32 steps that these are bits of:
  uint32_t seen_ = 0, cut_ = 0;  // those not taken yet; those in which some pair is hidden
};

template <typename Program, typename SightOf>
__device__ __forceinline__ auto steps_of(int count, const SightOf& sight_of) {
  if constexpr (Program::kHasMask) {
    return SeenSteps<SightOf>(count, sight_of);
  } else {
    return EveryStep{count};
  }
}

}  // namespace nanoflex::cuda
