#pragma once

#include <ATen/Functions.h>

#include <map>
#include <string>
#include <vector>

#include "model/gpt.h"

namespace nanoflex {

inline constexpr char kOptimizerScope[] = "nanoflex::optimizer";  ///< of at::RecordFunction

/// One tensor that an optimizer keeps of a parameter: the live one, to be read or copied into.
struct KeptTensor {
  at::Tensor parameter;
  std::string name;
  at::Tensor value;
};

/// AdamW (Loshchilov and Hutter 2019) without weight decay, betas 0.8 and 0.95, epsilon 1e-10. On a
/// CPU gradients may be sparse: rows that have one.
class AdamW {
 public:
  explicit AdamW(std::vector<CastWeight> weights);
  /// Updates the weights in place from their gradients.
  void step(double learning_rate);
  /// The same with a rate that is read, an fp32 scalar on their device, when the update runs there.
  void step(const at::Tensor& learning_rate);
  std::vector<KeptTensor> kept() const;

 private:
  std::vector<CastWeight> weights_;
  std::vector<at::Tensor> mean_, square_, steps_;
};

/// Muon (Jordan et al. 2024): Nesterov momentum 0.95, made orthogonal by five Newton-Schulz steps
/// in bf16, scaled by sqrt(max(1, rows / columns)).
class Muon {
 public:
  explicit Muon(const std::vector<CastWeight>& weights);
  void step(double learning_rate);
  void step(const at::Tensor& learning_rate);  ///< as AdamW's
  std::vector<KeptTensor> kept() const;

 private:
  struct Group {  // matrices of one shape, which are updated as one batch
    std::vector<CastWeight> weights;
    at::Tensor momentum;  // [matrices, rows, columns]
  };
  static void update(const Group& group, const at::Tensor& learning_rate);
  static double scale_of(const Group& group);

  std::vector<Group> groups_;
};

/// The nearest semi-orthogonal matrices to g [matrices, rows, columns], roughly: singular values
/// move to about 1. bf16 result.
at::Tensor orthogonalize(const at::Tensor& g);

/// The rates of the three groups; embedding and head are further scaled by (width / 768)^-0.5.
struct LearningRates {
  double matrix = 6e-4, embedding = 6e-4, unembedding = 6e-4;
};

/// All of a model's optimizers: Muon for the matrices of the blocks, AdamW for embedding and head.
class Optimizers {
 public:
  Optimizers(const Gpt& model, const LearningRates& rates);
  /// One update with every rate times `multiplier`.
  void step(double multiplier);
  /// Its two halves. On a GPU, update() reads the multiplier from the GPU's memory, so that one
  /// that is recorded and replayed (recorded_step.h) follows what set_multiplier() says.
  void set_multiplier(double multiplier);
  void update();
  void zero_gradients();
  /// The Euclidean norm of all gradients; they are scaled down to `largest` when above (0: never).
  at::Tensor clip_gradients(double largest);

  /// All that the next update depends on beside weights and gradients: live tensors under
  /// "<parameter>.<what>", such as lm_head.weight.mean.
  std::map<std::string, at::Tensor> state() const;
  /// Takes over a state(); names it does not know are left alone. Throws std::invalid_argument
  /// naming the first tensor that is missing or of another shape or type; nothing is changed then.
  void restore(const std::map<std::string, at::Tensor>& saved);

 private:
  std::map<const void*, std::string> names_;  // of the parameters
  std::vector<CastWeight> weights_;
  LearningRates rates_;
  double multiplier_ = 1;
  at::Tensor multiplier_on_gpu_;  // fp32 scalar; undefined on a CPU
  AdamW embedding_, unembedding_;
  Muon matrices_;
};

}  // namespace nanoflex
