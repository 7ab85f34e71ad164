#include "trainer/train.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "data/loader.h"
#include "data/shard.h"
#include "model/safetensors.h"
#include "model/weights.h"
#include "trainer/attention_setup.h"
#include "trainer/budget.h"
#include "trainer/checkpoint.h"
#include "trainer/evaluate.h"
#include "trainer/interrupt.h"
#include "trainer/machine.h"
#include "trainer/memory.h"
#include "trainer/optimizers.h"
#include "trainer/out_of_memory.h"
#include "trainer/prepare.h"
#include "trainer/profiled_steps.h"
#include "trainer/progress.h"
#include "trainer/random_state.h"
#include "trainer/recorded_step.h"
#include "trainer/run_folder.h"
#include "trainer/run_messages.h"
#include "trainer/run_pictures.h"
#include "trainer/summary.h"
#include "trainer/written_sample.h"

namespace nanoflex {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Where training stands after a step, for a checkpoint: what the next step's beginning changes.
struct Moment {
  nlohmann::json loader;
  std::map<std::string, at::Tensor> random;
  double elapsed_seconds = 0;
};

// A step that was queued and whose loss has not been read.
struct Flight {
  int64_t step;
  Clock::time_point begin;
  double learning_rate, paused_seconds;  // of the step, spent on what is not training
  bool validates;
  StepReading reading;
};

// One run, from its first step, or a checkpoint, to its record.
class Run {
 public:
  Run(Config config, const std::vector<std::string>& command,
      const std::optional<ResumePoint>& from, ReadBack read_back)
      : config_(std::move(config)),
        progress_(config_.log_interval, config_.progress),
        device_(choose_device(config_.device)),
        dtype_(choose_dtype(config_.dtype, device_)),
        read_behind_(read_back == ReadBack::kByDevice ? device_.is_cuda()
                                                      : read_back == ReadBack::kBehind),
        threads_(set_threads(config_.threads)),
        attention_(choose_attention(config_, device_, dtype_)),
        model_(make_model(config_, attention_, choices(), from)),
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
        recorded_(model_, attention_, optimizers_, step_options()),
        profiled_(config_, budget_, device_, dtype_),
        folder_(open_folder(from)),
        resolved_(fill_in(config_, choices())) {
    if (data::names_shards(config_.data)) resolved_.bos_id = dataset_.bos_id;
    summary_ = begin_summary(folder_.id(), command, resolved_, device_, budget_);
    summary_["parameters"] = parameter_count(model_);
    if (from) describe_origin(summary_, *from);
    if (config_.attention == "auto") {
      progress_.say("attention: auto chose " + attention_.backend);
    }
    folder_.write_config(resolved_);
    write_summary("running");
    progress_.say(announcement(folder_.id(), parameter_count(model_), budget_, attention_,
                               dtype_name(dtype_) + " on " + device_.str() + " with " +
                                   std::to_string(threads_) + " threads"));
  }

  // The record says why a run failed.
  TrainResult execute() try { return loop(); } catch (const std::exception& problem) {
    const auto shortage = memory_shortage(problem);
    const std::string text = shortage
                                 ? shortage_message(step_, *shortage, resolved_, checkpoint_left())
                                 : first_line(problem);
    progress_.finish();
    try {
      summary_["error"] = text;
      write_summary("failed");
      write_pictures();
      write_summary("failed");         // with them in the report
    } catch (const std::exception&) {  // what ended the run, a full disk say, ends this too
    }
    if (shortage) throw std::invalid_argument(text);
    throw;
  }

 private:
  Choices choices() const {
    return {.device = device_, .dtype = dtype_, .attention = attention_, .threads = threads_};
  }

  // A profile is of launches: recording waits for it.
  RecordedStepOptions step_options() const {
    const int64_t profiled = config_.profile > 0 ? config_.warmup_steps + config_.profile : 0;
    return {.step = {.device = device_,
                     .rows = config_.device_batch_size.value_or(config_.batch_size),
                     .grad_clip = config_.grad_clip,
                     .z_loss = config_.z_loss},
            .graph = config_.graph == "on",
            .launched = std::max<int64_t>(3, profiled)};
  }

  // Takes everything over from the checkpoint before the first change on disk.
  RunFolder open_folder(const std::optional<ResumePoint>& from) {
    if (!from) return {config_.runs_dir, config_.run_id};
    restore(*from);
    check_budget_left(*from, budget_);
    const std::string metrics = first_metrics(from->run / "metrics.jsonl", measure_.steps);
    reset_peak_memory(device_);
    if (from->branch) return {config_.runs_dir, config_.run_id, metrics};
    rewind_checkpoints(from->run, measure_.steps);
    if (!measure_.mask) remove_mask_pictures(from->run);
    return RunFolder({from->run, from->state.run_id, from->lock, metrics});
  }

  void restore(const ResumePoint& from) {
    const auto training = read_safetensors(from.checkpoint / "training.safetensors");
    optimizers_.restore(training);
    set_random_state(training, device_);
    loader_.restore(from.state.loader);
    measure_ = measurement_from(from.state.measurement);
    if (measures_anew(from, config_)) measure_.begin_anew();
    budget_.steps = steps_after(budget_, config_, measure_.steps, measure_.flops);
    elapsed_before_ = from.state.elapsed_seconds;
    began_at_ = measure_.steps;
    if (!from.branch) saved_step_ = measure_.steps;
  }

  double elapsed() const { return elapsed_before_ + (begin_ ? seconds_since(*begin_) : 0.0); }

  TrainResult loop() {
    const InterruptGuard interrupt;
    begin_ = Clock::now();
    std::string status = "finished";
    step_ = measure_.steps;
    bool last = step_ > 0 && spent_share(budget_, step_, elapsed()) >= 1;
    while (!last && status == "finished") {
      last = take_step(step_ + 1);
      if (!last && interrupt.requested()) status = "interrupted";
    }
    drain();
    progress_.finish();
    finish(status);
    return {status, folder_.path()};
  }

  void write_summary(const std::string& status) {
    end_summary(summary_, status, measure_, budget_, device_, attention_);
    folder_.write_summary(summary_);
  }

  // Queues a step. Returns whether it is the last one.
  bool take_step(int64_t step) {
    step_ = step;
    const bool profiled = profiled_.watches(step), saves = is_to_save(step - 1);
    if (profiled || saves) drain();
    profiled_.before(step);
    const Clock::time_point begin = Clock::now();
    paused_seconds_ = 0;
    const std::optional<Moment> due = saves ? std::optional(moment()) : std::nullopt;
    const data::Batch batch = loader_.next();
    if (!measure_.mask) count_mask(batch);
    if (!document_starts_.defined()) {
      const auto row = batch.document_starts.sum(1).argmax().item<int64_t>();
      document_starts_ = batch.document_starts.narrow(0, row, 1).clone();
    }
    const StepReading reading = recorded_.compute_gradients(batch);
    if (const std::string news = recorded_.take_news(); !news.empty()) progress_.say(news);
    if (due) {
      // Written once the weights have given a finite loss, so that the last checkpoint is a good
      // one.
      check_finite(step, reading.wait());
      save(*due);
    }
    const double multiplier = learning_rate_multiplier(config_, step, budget_.steps);
    recorded_.update(multiplier);
    settle();
    const bool last = spent_share(budget_, step, elapsed()) >= 1;
    const bool validates = last || (config_.val_interval > 0 && step % config_.val_interval == 0);
    flight_ = Flight{.step = step,
                     .begin = begin,
                     .learning_rate = config_.learning_rate * multiplier,
                     .paused_seconds = paused_seconds_,
                     .validates = validates,
                     .reading = reading};
    if (profiled || validates || !read_behind_) drain();
    if (profiled_.after(step, folder_.path() / "trace.json")) profiled_batch_ = batch;
    return last;
  }

  // Waits for all that was queued, its update too: who reads the weights does so on another stream.
  void drain() {
    synchronize(device_);
    settle();
  }

  // Waits for the loss of the step in flight, if there is one, and records it.
  void settle() {
    if (!flight_) return;
    const Flight flight = *std::exchange(flight_, std::nullopt);
    const StepResult result = flight.reading.wait();
    check_finite(flight.step, result);
    const Clock::time_point now = Clock::now(), begin = std::max(flight.begin, settled_);
    settled_ = now;

    StepMetrics metrics{.step = flight.step, .loss = result.loss, .grad_norm = result.grad_norm};
    metrics.learning_rate = flight.learning_rate;
    metrics.tokens = measure_.tokens + budget_.tokens_per_step;
    metrics.step_seconds =
        std::chrono::duration<double>(now - begin).count() - flight.paused_seconds;
    metrics.tokens_per_second = static_cast<double>(budget_.tokens_per_step) / metrics.step_seconds;
    metrics.tflops_per_second = metrics.tokens_per_second * budget_.flops_per_token / 1e12;
    metrics.memory_bytes = measure_.peaks(device_).tensor_bytes;
    record(metrics, flight.validates);
  }

  void check_finite(int64_t step, const StepResult& result) const {
    if (std::isfinite(result.loss) && std::isfinite(result.grad_norm)) return;
    throw std::runtime_error(not_finite_message(
        step, c10::str("loss ", result.loss, ", gradient norm ", result.grad_norm),
        checkpoint_left()));
  }

  void count_mask(const data::Batch& batch) {
    const Clock::time_point begin = Clock::now();
    measure_.mask = mask_share(attention_, batch.document_starts);
    paused_seconds_ += seconds_since(begin);
  }

  // Once the run is measured: these take time and memory of their own.
  void write_pictures() const {
    if (document_starts_.defined())
      write_mask_pictures(folder_.path(), attention_, document_starts_);
  }

  void write_profile() {
    const auto profile = profiled_.result(model_, attention_, optimizers_, *profiled_batch_);
    write_file(folder_.path() / "profile.json", profile.dump(2) + "\n");
    write_file(folder_.path() / "profile.md", profile_markdown(profile));
    summary_["profile"] = profile_summary(profile);
    progress_.say("profile: " + (folder_.path() / "profile.md").string());
  }

  // Steps that were profiled are slower than they would be, and so are those in which this process
  // records one.
  void record(StepMetrics metrics, bool validates) {
    int64_t unmeasured = config_.warmup_steps + config_.profile;
    if (recorded_.records()) {
      const int64_t recording = step_options().launched + kCheckedReplays;
      unmeasured = std::max(unmeasured, began_at_ - measure_.unmeasured_steps + recording);
    }
    measure_.add(metrics, budget_, unmeasured);
    if (validates) validate(metrics);
    folder_.append(metrics);
    const double share = spent_share(budget_, metrics.step, elapsed());
    const double left = elapsed() / share * (1 - share);
    progress_.step(metrics, {.steps = budget_.steps, .share = share, .seconds_left = left});
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

  Moment moment() const { return {loader_.position(), random_state(device_), elapsed()}; }

  bool is_to_save(int64_t step) const {
    const int64_t interval = config_.checkpoint_interval;
    return interval > 0 && step > saved_step_ && step % interval == 0;
  }

  // The state after measure_.steps, which was `then`.
  void save(const Moment& then) {
    const Clock::time_point begin = Clock::now();
    std::map<std::string, at::Tensor> training = optimizers_.state();
    training.insert(then.random.begin(), then.random.end());
    folder_.flush_metrics();
    write_checkpoint(folder_.path(),
                     {.run_id = folder_.id(),
                      .step = measure_.steps,
                      .elapsed_seconds = then.elapsed_seconds,
                      .loader = then.loader,
                      .measurement = to_json(measure_, device_)},
                     {.model = model_,
                      .training = std::move(training),
                      .config = resolved_,
                      .tokenizer = dataset_.tokenizer ? dataset_.tokenizer->path() : ""});
    saved_step_ = measure_.steps;
    paused_seconds_ += seconds_since(begin);
  }

  std::string checkpoint_left() const { return last_checkpoint(folder_.path(), saved_step_); }

  void finish(const std::string& status) {
    if (!finite_weights(model_)) {
      throw std::runtime_error(not_finite_message(
          measure_.steps, "the update left weights that are not finite", checkpoint_left()));
    }
    if (saved_step_ < measure_.steps) save(moment());
    write_summary(status);
    write_pictures();
    summary_["samples"] = written_samples(resolved_, model_, dataset_, device_, dtype_);
    if (profiled_batch_) write_profile();
    folder_.write_summary(summary_);
    if (config_.profile > 0 && !summary_.contains("profile")) {
      progress_.say("profile: none, for not all of its steps were taken here in one go");
    }
    for (const std::string& line : headline(summary_)) progress_.say(line);
    progress_.say("record: " + folder_.path().string());
    if (status == "interrupted") {
      progress_.say("interrupted after step " + std::to_string(measure_.steps) +
                    "; to go on: ./train --resume " + folder_.path().string());
    }
  }

  Config config_;
  Progress progress_;
  at::Device device_;
  at::ScalarType dtype_;
  bool read_behind_;
  int threads_;
  AttentionSetup attention_;
  Gpt model_;
  Budget budget_;
  data::Dataset dataset_;
  data::Loader loader_;
  Optimizers optimizers_;
  RecordedStep recorded_;
  ProfiledSteps profiled_;
  std::optional<data::Batch> profiled_batch_;
  at::Tensor document_starts_;  // [1, T], of the row with most documents of its first batch
  Measurement measure_;
  int64_t began_at_ = 0;                    // steps, in processes before this one
  double elapsed_before_ = 0;               // training, in processes before this one
  std::optional<Clock::time_point> begin_;  // of training, in this one
  int64_t saved_step_ = 0;                  // of the last checkpoint in folder_
  RunFolder folder_;                        // after all that a checkpoint restores
  Config resolved_;
  nlohmann::ordered_json summary_;
  int64_t step_ = 0;           // queued last
  double paused_seconds_ = 0;  // of that step, so far
  std::optional<Flight> flight_;
  Clock::time_point settled_{};  // when the last loss was read
};

}  // namespace

TrainResult train(const Config& config, const std::vector<std::string>& command,
                  const std::optional<ResumePoint>& from, ReadBack read_back) {
  check(config);
  track_cpu_memory();
  const at::Device device = choose_device(config.device);
  reset_peak_memory(device);  // of runs before in this process
  use_deterministic_kernels(device);
  set_tf32(config.tf32, device, choose_dtype(config.dtype, device));
  std::optional<Run> run;
  try {
    run.emplace(config, command, from, read_back);
  } catch (const std::exception& problem) {
    const auto shortage = memory_shortage(problem);
    if (!shortage) throw;
    throw std::invalid_argument("[train] before the first step: " + *shortage +
                                "; lower --n-embd, --n-layer, --vocab-size or --batch-size");
  }
  return run->execute();
}

}  // namespace nanoflex
