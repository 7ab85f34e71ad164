// What the head's kernel is told, filled by the host and passed by value. Also compiled by NVRTC.
#pragma once

#include "attention/cuda/params.h"

namespace nanoflex::cuda {

constexpr int kHeadThreads = 512;                        ///< of a block
constexpr int kHeadSharedBytes = kHeadThreads / 32 * 4;  ///< a sum of each warp

/// Rows of logits z = x weight^T, of which the kernel makes losses and gradients, in fp32. With
/// capped logits l = softcap tanh(z / softcap) and L = log(sum_j e^l_j), the loss of a row whose
/// target is t is L - l_t + z_loss L^2.
struct HeadParams {
  void* logits;            ///< [rows, V]; where `gradients`, d(loss)/dz replaces z
  int64_t stride;          ///< from a row to the next; rows begin at multiples of 16 bytes
  const int64_t* targets;  ///< [rows]; -1: no loss, no gradient; else not below V: NaN
  float* losses;           ///< [rows]
  int V;
  float softcap;  ///< at most 38: e^(2 softcap) times V must fit fp32
  float z_loss;
  bool gradients;
};

}  // namespace nanoflex::cuda
