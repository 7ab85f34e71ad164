// A training step as CUDA graphs.
#include "trainer/recorded_step.h"

#ifdef NANOFLEX_CUDA
#include <ATen/core/CachingHostAllocator.h>
#include <ATen/core/grad_mode.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <optional>
#include <sstream>
#include <utility>

#include "attention/cuda/program_cuda.h"
#include "attention/fused.h"
#include "trainer/memory.h"
#include "trainer/out_of_memory.h"
#endif

namespace nanoflex {

#ifndef NANOFLEX_CUDA

std::unique_ptr<StepRecorder> make_step_recorder(const Gpt&, const AttentionSetup&, Optimizers&,
                                                 const RecordedStepOptions&) {
  return nullptr;
}

#else

namespace {

// A block mask, which the host makes anew for each batch, and where the kernels of a recorded step
// read the kinds of its blocks.
struct KernelBlocks {
  size_t choice, mask;
  at::Tensor kinds;
};

// Of all layers, or of each.
std::vector<flex::Expression> masks_of(const AttentionChoice& choice) {
  return choice.masks.empty() ? std::vector{choice.spec.mask} : choice.masks;
}

void empty_cache() { c10::cuda::CUDACachingAllocator::emptyCache(); }

// Says whether its capture came to an end, though it may have failed to become a graph since.
struct Graph : at::cuda::CUDAGraph {
  bool ended() const { return capture_ended_; }
};

template <class Call>
void ignoring_errors(const Call& call) {
  try {
    call();
  } catch (const std::exception&) {  // one has been thrown already
  }
}

// What capture_begin() opened, of a capture that `work` made impossible: capture_end() then throws
// before it closes all of it.
template <class Pool>
void close_impossible_capture(c10::DeviceIndex device, const Pool& pool) {
  ignoring_errors([&] { c10::cuda::CUDACachingAllocator::endAllocateToPool(device, pool); });
  ignoring_errors([&] { c10::cuda::CUDACachingAllocator::releasePool(device, pool); });
  at::HostAllocator* const host = at::getHostAllocator(at::kCUDA);
  ignoring_errors([&] { host->end_allocate_to_pool(pool); });
  ignoring_errors([&] { host->release_pool(pool); });
  ignoring_errors([&] {  // random generators are told that recording ends
    const at::Tensor number = at::zeros({1}, at::Device(at::kCUDA, device));
    at::cuda::CUDAGraph little;
    little.capture_begin();
    number.zero_();
    little.capture_end();
  });
}

// Records what `work` launches on the current stream, which after an error is as it was before. A
// recording takes memory from the pool alone: what the allocator keeps of launched steps goes back.
template <class Pool, class Work>
void record(Graph& graph, const Pool& pool, const Work& work) {
  const c10::DeviceIndex device = c10::cuda::current_device();
  empty_cache();
  graph.capture_begin(pool);
  try {
    work();
    graph.capture_end();
  } catch (...) {
    if (graph.ended()) throw;  // no memory for the graph, say: reset() gives back what it holds
    ignoring_errors([&] {
      try {
        graph.capture_end();
      } catch (const std::exception&) {
        close_impossible_capture(device, pool);
      }
    });
    throw;
  }
}

// All steps run on a stream of their own, since the default one cannot be recorded, and read their
// inputs from the same memory, where they lay when one of them was recorded.
class CudaRecorder : public StepRecorder {
 public:
  CudaRecorder(const Gpt& model, const AttentionSetup& attention, Optimizers& optimizers,
               const RecordedStepOptions& options)
      : model_(model),
        attention_(attention),
        masks_on_cpu_(attention.on_cpu()),
        optimizers_(optimizers),
        options_(options),
        stream_(
            c10::cuda::getStreamFromPool(/*isHighPriority=*/false, options.step.device.index())) {
    synchronize(options.step.device);  // model and optimizers were filled on another stream
  }

  ~CudaRecorder() override {
    ignoring_errors([&] { stream_.synchronize(); });  // others may free what its kernels read
  }

  StepReading compute_gradients(const data::Batch& batch) override {
    const c10::cuda::CUDAStreamGuard guard(stream_);
    load(batch);
    if (checked_ == kCheckedReplays) {
      gradients_.replay();
      return StepReading(result_);
    }
    if (state_ == State::replaying) return checked_replay();
    const StepReading reading(run());
    if (state_ == State::unable || launched_++ < options_.launched) return reading;
    const StepResult launched = reading.wait();
    return recorded() && replays_as(launched) ? reading : given_up();
  }

  void update(double multiplier) override {
    const c10::cuda::CUDAStreamGuard guard(stream_);
    optimizers_.set_multiplier(multiplier);
    state_ == State::replaying ? update_.replay() : optimizers_.update();
  }

  std::string take_news() override { return std::exchange(news_, ""); }

 private:
  enum class State { launching, replaying, unable };

  StepTensors run() { return run_gradients(model_, choices_, optimizers_, inputs_, options_.step); }

  // Beside a recorded step's memory there may be none for a launched one.
  StepReading checked_replay() {
    std::optional<StepReading> reading;
    StepResult launched;
    try {
      reading = StepReading(run());
      launched = reading->wait();
    } catch (const c10::OutOfMemoryError&) {
      optimizers_.zero_gradients();
      empty_cache();
      checked_ = kCheckedReplays;
      news_ =
          "graph: the step is recorded, and replayed from here on (no memory is left to check it "
          "again)";
      gradients_.replay();
      return StepReading(result_);
    }
    return replays_as(launched) ? *reading : given_up();
  }

  // The step launched, once all that recording holds has gone back: its gradients' place, above
  // all.
  StepReading given_up() {
    state_ = State::unable;
    stream_.synchronize();
    optimizers_.zero_gradients();
    result_ = {};
    gradients_.reset();
    update_.reset();
    empty_cache();
    return StepReading(run());
  }

  // Copied from pinned memory, so that the host need not wait for the steps before.
  static void queue_copy(const at::Tensor& to, const at::Tensor& from) {
    to.copy_(from.pin_memory(), /*non_blocking=*/true);
  }

  // What was recorded as a constant and is none shows in the second replay.
  bool replays_as(const StepResult& launched) {
    gradients_.replay();
    const StepResult replayed = StepReading(result_).wait();
    if (replayed.loss == launched.loss && replayed.grad_norm == launched.grad_norm) {
      optimizers_.zero_gradients();  // the launched step's; those that are replayed stay
      if (++checked_ == kCheckedReplays) {
        news_ = "graph: the step is recorded, and replayed from here on";
        empty_cache();  // nothing is launched any more
      }
      return true;
    }
    std::ostringstream text;
    text << "graph: the recorded step's loss and gradient norm are " << replayed.loss << " and "
         << replayed.grad_norm << ", the launched one's " << launched.loss << " and "
         << launched.grad_norm << ", so each is launched";
    news_ = text.str();
    return false;
  }

  void load(const data::Batch& batch) {
    const at::NoGradGuard no_grad;
    const int64_t rows = options_.step.rows;
    if (!inputs_.tokens.defined()) {
      inputs_ = step_inputs(batch, options_.step.device);
      choices_ = bind_rows(attention_, inputs_.documents, rows);
      return;
    }
    const StepInputs on_cpu = step_inputs(batch, at::kCPU);
    queue_copy(inputs_.tokens, on_cpu.tokens);
    queue_copy(inputs_.targets, on_cpu.targets);
    queue_copy(inputs_.documents, on_cpu.documents);
    inputs_.count_on_gpu.fill_(static_cast<double>(on_cpu.count));
    if (state_ != State::replaying || blocks_.empty()) return;
    const std::vector<AttentionChoice> choices = bind_rows(masks_on_cpu_, on_cpu.documents, rows);
    for (const KernelBlocks& blocks : blocks_) {
      queue_copy(blocks.kinds, block_mask(choices[blocks.choice], blocks.mask)->kinds);
    }
  }

  // Null where kernels need none.
  std::shared_ptr<const flex::BlockMask> block_mask(const AttentionChoice& choice,
                                                    size_t mask) const {
    const GptOptions& sizes = model_.options();
    const auto of_heads = [&](int64_t heads) {
      return at::empty({1, 1, 1, 1}, options_.step.device)
          .expand({options_.step.rows, heads, inputs_.tokens.size(1), sizes.head_dim()});
    };
    Spec spec = choice.spec;
    spec.mask = masks_of(choice)[mask];
    return fused_options(of_heads(sizes.n_head), of_heads(sizes.n_kv_head), spec).blocks;
  }

  // Remembers what kernels read of the inputs' block masks. The launched step before has made them,
  // and whatever else of the masks needs to look at tensors: recording finds it all made
  // (flex/remembered.h, cuda::device_kinds).
  void find_blocks() {
    if (attention_.backend != "flex") return;
    for (size_t choice = 0; choice < choices_.size(); ++choice) {
      for (size_t mask = 0; mask < masks_of(choices_[choice]).size(); ++mask) {
        const auto blocks = block_mask(choices_[choice], mask);
        if (!blocks) continue;
        const at::Tensor kinds = cuda::device_kinds(blocks, options_.step.device);
        const bool known =
            std::any_of(blocks_.begin(), blocks_.end(),
                        [&](const KernelBlocks& one) { return one.kinds.is_same(kinds); });
        if (!known) blocks_.push_back({choice, mask, kinds});
      }
    }
  }

  // Recording runs nothing: the step at hand is then replayed, like all that follow. In two parts,
  // since the loss is looked at before the weights change.
  bool recorded() {
    try {
      find_blocks();
      const auto pool = at::cuda::graph_pool_handle();
      record(gradients_, pool, [&] { result_ = run(); });
      record(update_, pool, [&] { optimizers_.update(); });
      state_ = State::replaying;
      return true;
    } catch (const std::exception& problem) {
      news_ = "graph: the step cannot be recorded, so each is launched kernel by kernel: " +
              first_line(problem);
      return false;
    }
  }

  const Gpt& model_;
  const AttentionSetup& attention_;
  const AttentionSetup masks_on_cpu_;  // with scores of when this was made
  Optimizers& optimizers_;
  const RecordedStepOptions options_;
  const c10::cuda::CUDAStream stream_;
  StepInputs inputs_;
  std::vector<AttentionChoice> choices_;  // of inputs_
  std::vector<KernelBlocks> blocks_;
  StepTensors result_;  // of a replay
  Graph gradients_, update_;
  State state_ = State::launching;
  int64_t launched_ = 0, checked_ = 0;
  std::string news_;
};

}  // namespace

std::unique_ptr<StepRecorder> make_step_recorder(const Gpt& model, const AttentionSetup& attention,
                                                 Optimizers& optimizers,
                                                 const RecordedStepOptions& options) {
  return std::make_unique<CudaRecorder>(model, attention, optimizers, options);
}

#endif

}  // namespace nanoflex
