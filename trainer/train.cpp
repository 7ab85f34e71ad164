#include "trainer/train.h"

#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>

#include <chrono>
#include <cmath>
#include <sstream>
#include <stdexcept>

#include "data/dataset.h"
#include "data/loader.h"
#include "data/shard.h"
#include "model/weights.h"
#include "trainer/attention_setup.h"
#include "trainer/budget.h"
#include "trainer/evaluate.h"
#include "trainer/interrupt.h"
#include "trainer/machine.h"
#include "trainer/memory.h"
#include "trainer/optimizers.h"
#include "trainer/profiled_steps.h"
#include "trainer/progress.h"
#include "trainer/run_folder.h"
#include "trainer/step.h"
#include "trainer/summary.h"

namespace nanoflex {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Config with every "auto" and inherited value filled in, so that its YAML repeats the run.
Config fill_in(Config config, at::Device device, at::ScalarType dtype,
               const AttentionSetup& attention, int threads) {
  config.device = device.str();
  config.dtype = dtype_name(dtype);
  config.threads = threads;
  config.attention = attention.backend;
  config.mask = flex::to_text(attention.mask);
  config.score = flex::to_text(attention.score);
  config.device_batch_size = config.device_batch_size.value_or(config.batch_size);
  for (auto* rate : {&config.matrix_lr, &config.embedding_lr, &config.unembedding_lr}) {
    *rate = rate->value_or(config.learning_rate);
  }
  for (auto* path : {&config.init_from, &config.val_data, &config.tokenizer, &config.data,
                     &config.attention_tensors}) {
    const bool is_path = !path->empty() && *path != "shakespeare";
    if (is_path) *path = std::filesystem::absolute(*path).lexically_normal().string();
  }
  return config;
}

data::Dataset open_data(const Config& config, Progress& progress) {
  const int64_t largest = std::min<int64_t>(8192, config.vocab_size);
  return data::open_dataset({.data = config.data,
                             .val_data = config.val_data,
                             .tokenizer = config.tokenizer,
                             .tokenizer_vocab_size = config.tokenizer_vocab_size.value_or(largest),
                             .vocab_size = config.vocab_size,
                             .bos_id = config.bos_id,
                             .text_dir = (source_dir() / ".deps" / "text").string(),
                             .cache_dir = (source_dir() / ".cache" / "tokens").string(),
                             .log = [&](const std::string& line) { progress.say(line); }});
}

Gpt make_model(const Config& config, AttentionSetup& attention, at::Device device,
               at::ScalarType dtype) {
  Gpt model(gpt_options(config, attention), static_cast<uint64_t>(config.seed), device, dtype);
  attention.read_from(model);
  if (!config.init_from.empty()) load_weights(model, config.init_from);
  return model;
}

bool finite_weights(const Gpt& model) {
  const at::NoGradGuard no_grad;
  at::Tensor total = at::zeros({}, model.parameters().front().value.options());
  for (const Parameter& parameter : model.parameters()) total += parameter.value.sum();
  return std::isfinite(total.item<double>());
}

// One run, from its first step to its record.
class Run {
 public:
  Run(Config config, const std::vector<std::string>& command)
      : config_(std::move(config)),
        progress_(config_.log_interval),
        device_(choose_device(config_.device)),
        dtype_(choose_dtype(config_.dtype, device_)),
        threads_(set_threads(config_.threads)),
        attention_(choose_attention(config_, device_, dtype_)),
        model_(make_model(config_, attention_, device_, dtype_)),
        budget_(make_budget(model_, config_)),
        dataset_(open_data(config_, progress_)),
        loader_(dataset_.train, {.batch_size = config_.batch_size,
                                 .sequence_len = config_.sequence_len,
                                 .bos_id = dataset_.bos_id,
                                 .packing = config_.packing}),
        optimizers_(model_,
                    {.matrix = config_.matrix_lr.value_or(config_.learning_rate),
                     .embedding = config_.embedding_lr.value_or(config_.learning_rate),
                     .unembedding = config_.unembedding_lr.value_or(config_.learning_rate)}),
        profiled_(config_, budget_, device_, dtype_),
        folder_(config_.runs_dir, config_.run_id),
        resolved_(fill_in(config_, device_, dtype_, attention_, threads_)) {
    if (data::names_shards(config_.data)) resolved_.bos_id = dataset_.bos_id;
    summary_ = begin_summary(folder_.id(), command, resolved_, device_, budget_);
    if (config_.attention == "auto") {
      progress_.say("attention: auto chose " + attention_.backend);
    }
    folder_.write_config(resolved_);
    write_summary("running");
    announce();
  }

  TrainResult execute() try { return loop(); } catch (...) {
    write_summary("failed");
    throw;
  }

 private:
  TrainResult loop() {
    const InterruptGuard interrupt;
    const Clock::time_point begin = Clock::now();
    std::string status = "finished";
    for (int64_t step = 1; !budget_.steps || step <= *budget_.steps; ++step) {
      const bool last = take_step(step, begin);
      if (last) break;
      if (interrupt.requested()) {
        status = "interrupted";
        break;
      }
    }
    progress_.finish();
    finish(status);
    return {status, folder_.path()};
  }

  void write_summary(const std::string& status) {
    end_summary(summary_, status, measure_, budget_, device_, attention_);
    folder_.write_summary(summary_);
  }

  void announce() {
    std::ostringstream line;
    line << "run " << folder_.id() << ": " << short_number(parameter_count(model_))
         << "parameters, " << budget_.flops_per_token << " FLOPs/token, ";
    if (budget_.steps) line << *budget_.steps << " steps of ";
    line << budget_.tokens_per_step << " tokens, " << attention_.backend << " attention ("
         << flex::to_text(attention_.mask)
         << (attention_.score.defined() ? "; " + flex::to_text(attention_.score) : "") << "), "
         << dtype_name(dtype_) << " on " << device_.str() << " with " << threads_ << " threads";
    progress_.say(line.str());
  }

  // Returns whether time is up.
  bool take_step(int64_t step, Clock::time_point begin) {
    synchronize(device_);
    profiled_.before(step);
    const Clock::time_point step_begin = Clock::now();
    paused_seconds_ = 0;
    const data::Batch batch = loader_.next();
    if (step == 1) count_mask(batch);
    const auto [loss, grad_norm] = compute_gradients(model_, attention_, optimizers_, batch,
                                                     {.device = device_,
                                                      .rows = *resolved_.device_batch_size,
                                                      .grad_clip = config_.grad_clip,
                                                      .z_loss = config_.z_loss});
    if (!std::isfinite(loss) || !std::isfinite(grad_norm)) stop_not_finite(step, loss, grad_norm);
    // Written once the weights have given a finite loss, so that the last checkpoint is a good one.
    const int64_t interval = config_.checkpoint_interval;
    if (interval > 0 && step > 1 && (step - 1) % interval == 0) save(step - 1);
    const double multiplier = learning_rate_multiplier(config_, step, budget_.steps);
    optimizers_.step(multiplier);
    synchronize(device_);

    StepMetrics metrics{.step = step, .loss = loss, .grad_norm = grad_norm};
    metrics.learning_rate = config_.learning_rate * multiplier;
    metrics.tokens = step * budget_.tokens_per_step;
    metrics.step_seconds = seconds_since(step_begin) - paused_seconds_;
    metrics.tokens_per_second = static_cast<double>(budget_.tokens_per_step) / metrics.step_seconds;
    metrics.tflops_per_second = metrics.tokens_per_second * budget_.flops_per_token / 1e12;
    metrics.memory_bytes = peak_tensor_bytes(device_);
    profiled_.after(step, folder_.path() / "trace.json");
    if (profiled_.ended_with(step)) profiled_batch_ = batch;
    const bool time_up = budget_.seconds && seconds_since(begin) >= *budget_.seconds;
    const bool last = time_up || step == budget_.steps;
    record(metrics, last, seconds_since(begin));
    return last;
  }

  void count_mask(const data::Batch& batch) {
    const Clock::time_point begin = Clock::now();
    measure_.mask = mask_share(attention_, batch.document_starts);
    paused_seconds_ += seconds_since(begin);
  }

  // Once the run is measured: this takes memory of its own.
  void write_profile() {
    const auto profile = profiled_.result(model_, attention_, optimizers_, *profiled_batch_);
    write_file(folder_.path() / "profile.json", profile.dump(2) + "\n");
    write_file(folder_.path() / "profile.md", profile_markdown(profile));
    summary_["profile"] = profile_summary(profile);
    folder_.write_summary(summary_);
    progress_.say("profile: " + (folder_.path() / "profile.md").string());
  }

  // Steps that were profiled are slower than they would be.
  void record(StepMetrics metrics, bool last, double elapsed) {
    measure_.add(metrics, config_.warmup_steps + config_.profile);
    if (last || (config_.val_interval > 0 && metrics.step % config_.val_interval == 0)) {
      validate(metrics);
    }
    folder_.append(metrics);
    ProgressState state{.steps = budget_.steps};
    if (budget_.steps) state.share = static_cast<double>(metrics.step) / *budget_.steps;
    if (budget_.seconds) {
      state.share = std::max(state.share.value_or(0), elapsed / *budget_.seconds);
    }
    if (state.share > 0) state.seconds_left = elapsed / *state.share * (1 - *state.share);
    progress_.step(metrics, state);
  }

  void validate(StepMetrics& metrics) {
    const auto validation =
        evaluate(model_, attention_, dataset_.validation, dataset_.tokenizer.get(),
                 {.batch_size = *resolved_.device_batch_size,
                  .tokens = config_.val_tokens,
                  .device = device_,
                  .bos_id = dataset_.bos_id});
    if (!validation) return;
    metrics.validation_loss = validation->loss;
    metrics.bits_per_byte = validation->bits_per_byte;
    measure_.validation = validation;
  }

  void save(int64_t step) {
    const Clock::time_point begin = Clock::now();
    save_weights(model_, folder_.weights_file());
    if (dataset_.tokenizer) {
      std::filesystem::copy_file(dataset_.tokenizer->path(),
                                 folder_.path() / "checkpoint" / "tokenizer.model",
                                 std::filesystem::copy_options::overwrite_existing);
    }
    saved_step_ = step;
    paused_seconds_ += seconds_since(begin);
  }

  [[noreturn]] void stop_not_finite(int64_t step, double loss, double grad_norm) {
    progress_.finish();
    std::ostringstream text;
    text << "[train] step " << step << ": loss " << loss << ", gradient norm " << grad_norm
         << "; last good checkpoint: ";
    if (saved_step_ > 0) {
      text << folder_.weights_file().string() << " of step " << saved_step_;
    } else {
      text << "none (--checkpoint-interval makes them)";
    }
    text << "; try a lower --learning-rate, --grad-clip 1 or --lr-warmup-steps 10";
    throw std::runtime_error(text.str());
  }

  void finish(const std::string& status) {
    if (!finite_weights(model_)) {
      stop_not_finite(measure_.steps, *measure_.final_loss, std::nan(""));
    }
    save(measure_.steps);
    write_summary(status);
    if (profiled_batch_) write_profile();
    for (const std::string& line : headline(summary_)) progress_.say(line);
    progress_.say("record: " + folder_.path().string());
  }

  Config config_;
  Progress progress_;
  at::Device device_;
  at::ScalarType dtype_;
  int threads_;
  AttentionSetup attention_;
  Gpt model_;
  Budget budget_;
  data::Dataset dataset_;
  data::Loader loader_;
  Optimizers optimizers_;
  ProfiledSteps profiled_;
  std::optional<data::Batch> profiled_batch_;
  RunFolder folder_;
  Config resolved_;
  nlohmann::ordered_json summary_;
  Measurement measure_;
  int64_t saved_step_ = 0;
  double paused_seconds_ = 0;  // of the step at hand, spent on what is not training
};

}  // namespace

std::filesystem::path source_dir() { return NANOFLEX_SOURCE_DIR; }

Config resolve(const Config& config) {
  const at::Device device = choose_device(config.device);
  const at::ScalarType dtype = choose_dtype(config.dtype, device);
  return fill_in(config, device, dtype, choose_attention(config, device, dtype),
                 set_threads(config.threads));
}

TrainResult train(const Config& config, const std::vector<std::string>& command) {
  check(config);
  track_cpu_memory();
  // GPU attention kernels add gradients in any order unless told otherwise.
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  return Run(config, command).execute();
}

}  // namespace nanoflex
