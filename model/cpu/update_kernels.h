// What optimizers do to each element, as a row of pointers for each instruction set. All is fp32
// but for what is said to be bf16. Plain pointers and sizes: see attention/cpu/problem.h.
#pragma once

#include <cstdint>

namespace nanoflex::cpu {

/// An update by AdamW:
///   mean += (g - mean) mean_weight;  square = square square_decay + g^2 square_weight
///   value -= rate mean / (sqrt(square) root_scale + epsilon)
struct AdamWFactors {
  float mean_weight, square_decay, square_weight, rate, root_scale, epsilon;
};

/// Elements that lie side by side.
struct AdamWSpan {
  int64_t count;
  const float* gradient;  ///< null: zeros
  float *value, *mean, *square;
  uint16_t* copy;  ///< gets the values in bf16; null: none is wanted
};

/// Muon's momentum, with Nesterov's look ahead:
///   momentum += (g - momentum) weight;  direction = momentum - (momentum - g) weight
struct MomentumSpan {
  int64_t count;
  float weight;
  const float* gradient;
  float* momentum;
  uint16_t* direction;  ///< bf16
};

/// value -= rate direction
struct MoveSpan {
  int64_t count;
  float rate;
  const uint16_t* direction;  ///< bf16
  float* value;
  uint16_t* copy;  ///< as above
};

struct UpdateKernels {
  void (*adamw)(const AdamWFactors&, const AdamWSpan&);
  void (*momentum)(const MomentumSpan&);
  void (*move)(const MoveSpan&);
};

}  // namespace nanoflex::cpu
