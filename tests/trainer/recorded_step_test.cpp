// Steps that a GPU replays against steps that are launched; skipped where there is no GPU.
#include "trainer/recorded_step.h"

#include <ATen/Context.h>
#include <gtest/gtest.h>

#include "tests/trainer/small_run.h"

namespace nanoflex {
namespace {

constexpr int kSteps = 8;

data::Batch random_batch(int64_t B, int64_t T, int64_t vocabulary) {
  data::Batch batch{at::randint(vocabulary, {B, T}, at::kLong),
                    at::randint(vocabulary, {B, T}, at::kLong),
                    at::randint(60, {B, T}, at::kLong).eq(0)};
  batch.targets.select(1, 0).fill_(-1);
  batch.document_starts.select(1, 0).fill_(true);
  return batch;
}

Config recorded_config(const std::string& backend, int64_t rows) {
  Config config;
  config.n_layer = 2, config.n_embd = 256, config.sequence_len = 512, config.vocab_size = 512;
  config.batch_size = 4, config.device_batch_size = rows, config.attention = backend;
  if (backend == "flex") config.window_pattern = "SL";
  return config;
}

data::Batch random_batch_of(const Config& config) {
  return random_batch(config.batch_size, config.sequence_len, config.vocab_size);
}

/// A model in training.
struct Trainee {
  Config config;
  at::Device device;
  at::ScalarType dtype;
  AttentionSetup attention = choose_attention(config, device, dtype);
  Gpt model = Gpt(gpt_options(config, attention), 1, device, dtype);
  Optimizers optimizers = Optimizers(model, {});
  StepOptions options = {.device = device, .rows = *config.device_batch_size};
};

// What a recorded step relies on.
TEST(RecordedStep, ABoundChoiceFollowsDocumentsThatAreWrittenOver) {
  Trainee t = {recorded_config("flex", 2), at::kCPU, at::kFloat};
  at::manual_seed(2);
  const data::Batch batch = random_batch_of(t.config);
  const StepInputs inputs = step_inputs(random_batch_of(t.config), at::kCPU);
  const auto choices = bind_rows(t.attention, inputs.documents, t.options.rows);
  run_gradients(t.model, choices, t.optimizers, inputs, t.options);
  t.optimizers.step(1);  // from weights of zero, whose loss no mask changes

  StepInputs next = step_inputs(batch, at::kCPU);
  inputs.documents.copy_(next.documents);
  next.documents = inputs.documents;
  const StepTensors followed = run_gradients(t.model, choices, t.optimizers, next, t.options);
  const StepResult fresh =
      compute_gradients(t.model, t.attention, t.optimizers, batch, t.options).wait();
  EXPECT_EQ(followed.loss.item<double>(), fresh.loss);
  EXPECT_EQ(followed.grad_norm.item<double>(), fresh.grad_norm);
}

TEST(Step, MicroBatchesKeepTheirOwnDocuments) {
  const at::Tensor tokens = at::zeros({2, 4}, at::kLong);
  const at::Tensor starts = at::tensor({1, 0, 0, 1, 0, 1, 0, 0}).view({2, 4}).to(at::kBool);
  EXPECT_TRUE(step_inputs({tokens, tokens, starts}, at::kCPU)
                  .documents.equal(at::tensor({1, 1, 1, 2, 0, 1, 1, 1}).view({2, 4})));
  Trainee t = {recorded_config("flex", 2), at::kCPU, at::kFloat};
  at::manual_seed(2);
  const data::Batch batch = random_batch_of(t.config);
  const auto step = [&](int64_t rows) {
    t.options.rows = rows;
    return compute_gradients(t.model, t.attention, t.optimizers, batch, t.options).wait();
  };
  step(4);
  t.optimizers.step(1);  // from weights of zero, whose loss no mask changes
  const StepResult parts = step(2), whole = step(4);
  EXPECT_NEAR(parts.loss, whole.loss, 1e-5);
  EXPECT_NEAR(parts.grad_norm, whole.grad_norm, 1e-4);
}

TEST(Step, GradientsAreClipped) {
  Trainee t = {recorded_config("flash", 4), at::kCPU, at::kFloat};
  t.options.grad_clip = 0.01;
  at::manual_seed(2);
  compute_gradients(t.model, t.attention, t.optimizers, random_batch_of(t.config), t.options);
  EXPECT_NEAR(t.optimizers.clip_gradients(0).item<double>(), 0.01, 1e-6);
}

/// Losses and norms of steps whose documents and rates change, and what was said of recording.
struct Steps {
  std::vector<double> numbers;
  std::string news;
};

Steps take_steps(const Config& config, bool graph) {
  Trainee t = {config, at::Device(at::kCUDA, 0), at::kBFloat16};
  RecordedStep recorded(t.model, t.attention, t.optimizers, {.step = t.options, .graph = graph});
  at::manual_seed(3);
  Steps steps;
  for (int step = 0; step < kSteps; ++step) {
    const StepResult result = recorded.compute_gradients(random_batch_of(config)).wait();
    recorded.update(1.0 / (1 + step));
    steps.numbers.insert(steps.numbers.end(), {result.loss, result.grad_norm});
    steps.news += recorded.take_news();
  }
  return steps;
}

TEST(RecordedStepCuda, GivesTheSameBitsWhateverChangesFromBatchToBatch) {
  if (!at::hasCUDA()) GTEST_SKIP() << "there is no GPU here";
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);  // as train() does
  for (const std::string backend : {"sdpa", "flash", "flex"}) {
    for (const int64_t rows : {4, 2}) {
      SCOPED_TRACE(backend + ", " + std::to_string(rows) + " rows at once");
      const Config config = recorded_config(backend, rows);
      const Steps launched = take_steps(config, false), replayed = take_steps(config, true);
      EXPECT_EQ(launched.news, "");
      EXPECT_EQ(replayed.news, "graph: the step is recorded, and replayed from here on");
      EXPECT_EQ(replayed.numbers, launched.numbers);
    }
  }
}

TEST(RecordedStep, ACpuHasNoneToLeaveOut) {
  Config config = reference_config();
  config.graph = "off";
  EXPECT_EQ(rejection(config),
            "[train] graph is of a GPU's steps, and the device is cpu; leave out --no-graph");
}

}  // namespace
}  // namespace nanoflex
