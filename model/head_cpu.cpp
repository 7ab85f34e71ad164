#include "model/head_cpu.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ceil_div.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "attention/units.h"
#include "model/cpu/dispatch.h"
#include "model/head.h"

namespace nanoflex {
namespace {

using cpu::HeadChunk;
using cpu::HeadKernels;

constexpr int64_t kSections = 48;  // of the vocabulary: enough for many cores, whatever there are

// Work of one thread at a time, on a chunk of rows after the other.
class Head {
 public:
  Head(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets,
       const HeadOptions& options, const HeadKernels& kernels)
      : x_(x),
        weight_(weight),
        targets_(targets),
        options_(options),
        kernels_(kernels),
        rows_(std::clamp<int64_t>(x.size(0), 1, kernels.rows(x.size(1)))),
        stride_(cpu::head_stride(rows_)) {
    const int64_t N = x.size(0), C = x.size(1), V = weight.size(0);
    tiles_per_section_ = at::ceil_div(V, cpu::kHeadTile * kSections);
    sections_ = at::ceil_div(V, section_size());
    const auto floats = x.options().dtype(at::kFloat);
    columns_ = at::empty({cpu::padded_width(C), stride_}, floats);
    sums_ = at::empty({sections_, stride_}, floats);
    target_z_ = at::empty({rows_}, floats);
    factors_ = at::empty({stride_}, floats);
    result_.losses = at::empty({N}, floats);
    if (!options.gradients) return;
    result_.dx = at::empty_like(x);
    result_.dweight = at::empty({V, C}, floats);
    slope_ = at::empty({V, stride_}, x.options());
    scaled_ = at::empty({stride_, cpu::padded_width(C)}, floats);
    dx_ = at::empty({sections_, cpu::padded_width(C), stride_}, floats);
  }

  HeadResult run() {
    if (x_.size(0) == 0 && options_.gradients) result_.dweight.zero_();
    for (int64_t row = 0; row < x_.size(0); row += rows_) {
      take_rows(row, std::min(rows_, x_.size(0) - row));
    }
    return result_;
  }

 private:
  int64_t section_size() const { return tiles_per_section_ * cpu::kHeadTile; }

  void take_rows(int64_t row, int64_t rows) {
    HeadChunk chunk = {.C = x_.size(1),
                       .rows = rows,
                       .stride = stride_,
                       .softcap = static_cast<float>(kLogitSoftcap),
                       .x = x_.narrow(0, row, rows).const_data_ptr(),
                       .weight = weight_.const_data_ptr(),
                       .targets = targets_.const_data_ptr<int64_t>() + row,
                       .columns = columns_.mutable_data_ptr<float>(),
                       .target_z = target_z_.mutable_data_ptr<float>(),
                       .slope = slope_.defined() ? slope_.mutable_data_ptr() : nullptr};
    kernels_.pack(chunk);
    for_sections([&](int64_t i, const cpu::HeadSection& section, char* scratch) {
      kernels_.exponentials(chunk, section, scratch, sums(i));
    });
    settle(chunk, row);
    if (!options_.gradients) return;
    const at::Tensor scaled_x =
        (x_.narrow(0, row, rows) * factors_.narrow(0, 0, rows).unsqueeze(1)).to(x_.scalar_type());
    chunk.scaled_x = scaled_x.const_data_ptr();
    chunk.scaled = scaled_.mutable_data_ptr<float>();
    chunk.dweight = result_.dweight.mutable_data_ptr<float>();
    chunk.first = row == 0;
    kernels_.pack_scaled(chunk);
    for_sections([&](int64_t i, const cpu::HeadSection& section, char* scratch) {
      kernels_.gradients(chunk, section, scratch,
                         dx_.mutable_data_ptr<float>() + i * dx_.stride(0));
    });
    const at::Tensor dx = dx_.sum(0);
    kernels_.put_rows(chunk, dx.const_data_ptr<float>(), factors_.const_data_ptr<float>(),
                      result_.dx.narrow(0, row, rows).mutable_data_ptr());
  }

  // No result depends on which thread takes which section.
  template <typename Body>
  void for_sections(const Body& body) const {
    const int64_t bytes = kernels_.scratch_bytes(x_.size(1));
    const int64_t threads = std::min<int64_t>(sections_, at::get_num_threads());
    std::vector<at::Tensor> memory(threads);
    for_each_unit(sections_, threads, [&](int64_t i, int64_t thread) {
      at::Tensor& scratch = memory[thread];
      if (!scratch.defined()) scratch = at::empty({bytes}, at::kByte);  // aligned to 64 bytes
      const int64_t begin = i * section_size();
      body(i, {begin, std::min(begin + section_size(), weight_.size(0))},
           static_cast<char*>(scratch.mutable_data_ptr()));
    });
  }

  // Losses of the chunk's rows, the factors that their slopes lack, and the slopes of targets,
  // where a weight of 1 is subtracted.
  void settle(const HeadChunk& chunk, int64_t row) {
    auto* losses = result_.losses.mutable_data_ptr<float>() + row;
    for (int64_t i = 0; i < chunk.rows; ++i) {
      const int64_t target = chunk.targets[i];
      double sum = 0;
      for (int64_t section = 0; section < sections_; ++section) sum += sums(section)[i];
      float& factor = factors_.mutable_data_ptr<float>()[i];
      losses[i] = factor = 0;
      if (target == kIgnoredTarget) continue;
      const double tanh = std::tanh(chunk.target_z[i] / kLogitSoftcap);
      const double logit = kLogitSoftcap * tanh, logsumexp = std::log(sum);
      losses[i] = static_cast<float>(logsumexp - logit + options_.z_loss * logsumexp * logsumexp);
      const double stretch = 1 + 2 * options_.z_loss * logsumexp;
      factor = static_cast<float>(options_.factor * stretch / sum);
      const double slope = (std::exp(logit) - sum / stretch) * (1 - tanh * tanh);
      if (options_.gradients) put_slope(target, i, slope);
    }
  }

  void put_slope(int64_t target, int64_t row, double value) {
    const int64_t at = target * stride_ + row;
    if (slope_.scalar_type() == at::kFloat) {
      slope_.mutable_data_ptr<float>()[at] = static_cast<float>(value);
    } else {
      slope_.mutable_data_ptr<at::BFloat16>()[at] = static_cast<float>(value);
    }
  }

  float* sums(int64_t section) const { return sums_.mutable_data_ptr<float>() + section * stride_; }

  const at::Tensor x_, weight_, targets_;
  const HeadOptions options_;
  const HeadKernels kernels_;
  const int64_t rows_, stride_;  // of x in a chunk, and of what has a column for each
  int64_t tiles_per_section_, sections_;
  at::Tensor columns_, sums_, target_z_, slope_, scaled_, dx_, factors_;
  HeadResult result_;
};

}  // namespace

HeadResult head_cpu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets,
                    const HeadOptions& options, const cpu::ModelKernelSet& kernels) {
  return Head(x, weight, targets, options, cpu::of_dtype(kernels, x).head).run();
}

}  // namespace nanoflex
