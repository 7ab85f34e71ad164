#pragma once

#include <ATen/Functions.h>

#include <vector>

#include "model/cast_weight.h"
#include "model/cpu/kernels.h"

namespace nanoflex {

/// One tensor of an AdamW update. All but the copy are fp32, contiguous and of one shape.
struct AdamWTensor {
  at::Tensor value, mean, square;
  at::Tensor gradient;  ///< or sparse and coalesced: rows that have one, the others' being zero
  at::Tensor copy;      ///< gets the values in bf16; undefined: none is wanted
  cpu::AdamWFactors factors;
};

/// Updates them all in place, each number read and written once. A row of a sparse gradient's zeros
/// moves as AdamW says, by its decaying mean. The same bits for any number of threads.
void adamw_cpu(const std::vector<AdamWTensor>& tensors, const cpu::ModelKernelSet& kernels);

/// Muon up to where its matrices are made orthogonal: momentum [matrices, rows, columns] fp32 takes
/// in the gradients, one a matrix; the result is Nesterov's direction, in bf16.
at::Tensor take_momentum_cpu(const at::Tensor& momentum, const std::vector<at::Tensor>& gradients,
                             double weight, const cpu::ModelKernelSet& kernels);

/// The rest of it: value -= rate direction, for each matrix. direction: [matrices, rows, columns]
/// bf16.
void move_cpu(const std::vector<CastWeight>& weights, const at::Tensor& direction, double rate,
              const cpu::ModelKernelSet& kernels);

}  // namespace nanoflex
