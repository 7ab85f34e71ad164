// Whole training runs on small fixtures: what a user would see of ./train.
#include "trainer/train.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <thread>

#include "attention/flex/masks.h"
#include "attention/registry.h"
#include "model/safetensors.h"
#include "model/weights.h"
#include "tests/trainer/small_run.h"
#include "trainer/attention_setup.h"
#include "trainer/report.h"

namespace nanoflex {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::vector<double> train_losses(const Config& config) {
  return losses(train(config, {"train"}).folder);
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = a.size() == b.size() ? 0 : INFINITY;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    largest = std::max(largest, std::isfinite(a[i] - b[i]) ? std::abs(a[i] - b[i]) : INFINITY);
  }
  return largest;
}

TEST(Train, ZLossIsAddedToEachLoss) {
  Config config = reference_config();
  config.init_from = "";  // the head is zero then: every logsumexp is ln(vocabulary)
  config.max_steps = 1;
  config.z_loss = 0.01;
  const double log_vocabulary = std::log(static_cast<double>(config.vocab_size));
  const double expected = log_vocabulary + 0.01 * log_vocabulary * log_vocabulary;
  EXPECT_NEAR(train_losses(config).at(0), expected, 1e-5);
}

// Rounding alone moves these losses by up to 6e-5; a missing Nesterov step by 1.4e-3.
TEST(Train, AgreesWithThePythonReference) {
  const json reference = read_json(fixture("losses.json"));
  const auto expected = reference.at("losses").get<std::vector<double>>();
  const std::vector<double> ours = train_losses(reference_config());
  ASSERT_EQ(ours.size(), expected.size());
  EXPECT_TRUE(std::abs(ours[0] - expected[0]) < 1e-5) << ours[0] << " " << expected[0];
  EXPECT_TRUE(largest_difference(ours, expected) < 1e-4);
}

// Sharper than losses: sees the rounding of the rotary tables, for one.
TEST(Train, FirstLogitsAgreeWithThePythonReference) {
  const Config config = reference_config();
  Gpt model({config.n_layer, config.n_head, config.n_kv_head, config.n_embd, config.sequence_len,
             config.vocab_size},
            0, at::kCPU, at::kFloat);
  load_weights(model, config.init_from);
  std::ifstream shard(config.data, std::ios::binary);
  shard.seekg(1024);
  std::vector<uint16_t> ids(config.batch_size * config.sequence_len);
  shard.read(reinterpret_cast<char*>(ids.data()), static_cast<std::streamsize>(2 * ids.size()));
  const at::Tensor tokens = at::tensor(std::vector<int64_t>(ids.begin(), ids.end()))
                                .view({config.batch_size, config.sequence_len});
  const AttentionSetup attention = choose_attention(config, at::kCPU, at::kFloat);
  const at::NoGradGuard no_grad;
  const at::Tensor logits = model.logits(tokens, attention.bind(at::zeros_like(tokens, at::kBool)));
  const json reference = read_json(fixture("losses.json"));
  for (const json& place : reference.at("first_batch").at("logits")) {
    const at::Tensor row =
        logits[place.at("row").get<int64_t>()][place.at("position").get<int64_t>()];
    const auto values = place.at("values").get<std::vector<double>>();
    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_TRUE(std::abs(row[static_cast<int64_t>(i)].item<double>() - values[i]) < 1e-5);
    }
  }
}

TEST(Train, EveryBackendGivesTheSameLosses) {
#ifdef __OPTIMIZE__
  constexpr double kBound = 1e-4;
#else
  constexpr double kBound = 2e-4;  // the sanitizers' compiler rounds otherwise: a little over 1e-4
#endif
  const std::vector<double> expected = train_losses(reference_config());
  for (const std::string& backend : backend_names()) {
    Config config = reference_config();
    config.attention = backend;
    EXPECT_TRUE(largest_difference(train_losses(config), expected) < kBound) << backend;
  }
}

// Windows by layer, a score, and tensors of it that are learned: fused as on whole tensors.
TEST(Train, ScoresWindowsAndLearnedTensorsTrainAlikeInFlexAndOnWholeTensors) {
  Config config = reference_config();
  config.max_steps = 5;
  config.mask = "causal & (document | kv < 2)";
  config.score = "softcap(5) + slope[h] * (kv - q) + bias[h][min(max(q - kv, 0), 6)]";
  config.learned_tensors = "slope, bias";
  config.window_pattern = "SL";
  config.window_size = 9;
  config.init_from = "";
  const std::vector<double> expected = train_losses(config);
  config.attention = "flex";
  const TrainResult result = train(config, {"train"});
  EXPECT_TRUE(largest_difference(losses(result.folder), expected) < 1e-4);

  const json attention = read_json(result.folder / "summary.json").at("attention");
  EXPECT_EQ(attention.at("windows")[0], 9);
  EXPECT_EQ(attention.at("windows")[1], nullptr);
  EXPECT_EQ(attention.at("learned_tensors").at("bias"), json({config.n_head, 7}));
  EXPECT_TRUE(attention.at("issued_flops_per_token") <= attention.at("flops_per_token"));
  const auto weights = read_safetensors(result.folder / "checkpoint" / "model.safetensors");
  for (const char* name : {"transformer.score.slope", "transformer.score.bias"}) {
    EXPECT_TRUE(weights.at(name).abs().min().item<double>() > 0) << name;  // began at 0
  }
  Config again;
  apply_yaml(again, result.folder / "config.yaml");
  again.run_id = "again";
  EXPECT_EQ(largest_difference(train_losses(again), losses(result.folder)), 0);
}

TEST(Train, WhatAScoreCannotBeIsSaidBeforeAnyWork) {
  Config config = reference_config();
  config.attention = "flex";
  config.score = "score + slop[h]";
  config.learned_tensors = "slope";
  EXPECT_NE(rejection(config).find("did you mean 'slope'"), std::string::npos) << rejection(config);
  config.score = "score + slope[q - kv]";
  EXPECT_NE(rejection(config).find("index 'q - kv' of learned tensor 'slope' goes from "),
            std::string::npos)
      << rejection(config);
  config.score = "score";
  EXPECT_NE(rejection(config).find("learned tensor 'slope' is not read by the score"),
            std::string::npos)
      << rejection(config);
  config.score = "", config.learned_tensors = "", config.window_pattern = "SX";
  EXPECT_NE(rejection(config).find("window_pattern must be made of S and L, is 'SX'"),
            std::string::npos)
      << rejection(config);
  const std::filesystem::path folder = fresh_folder();
  std::filesystem::create_directories(folder);
  config.attention_tensors = (folder / "tensors.safetensors").string();
  write_safetensors(config.attention_tensors, {{"bias", at::zeros({4})}});
  config.window_pattern = "";
  EXPECT_EQ(rejection(config),
            "[attention] neither mask nor score reads anything of "
            "attention_tensors '" +
                config.attention_tensors + "', which holds bias; leave it out");
  config.attention_tensors = "", config.window_size = 5;
  EXPECT_NE(rejection(config).find("add --window-pattern SSSL, or use a mask such as causal & "
                                   "window(5)"),
            std::string::npos)
      << rejection(config);
}

TEST(Train, MicroBatchesGiveTheLossesOfOneBatch) {
  Config config = reference_config();
  const std::vector<double> expected = train_losses(config);
  config.device_batch_size = 2;
  EXPECT_TRUE(largest_difference(train_losses(config), expected) < 1e-4);
}

// With one step a rate of half is the first of two steps' warm-up.
TEST(Train, ScheduleClippingAndMicroBatchesHold) {
  const auto weights = [](const auto& change) {
    Config config = reference_config();
    config.max_steps = 1;
    change(config);
    return bytes(train(config, {"train"}).folder / "checkpoint" / "model.safetensors");
  };
  EXPECT_EQ(weights([](Config& config) { config.lr_warmup_steps = 2; }),
            weights([](Config& config) { config.learning_rate /= 2; }));
  const auto peak = [](const Config& config) {
    const json summary = read_json(train(config, {"train"}).folder / "summary.json");
    return summary.at("results").at("peak_memory_bytes").get<int64_t>();
  };
  Config config = reference_config();
  config.max_steps = 3;
  const std::vector<double> plain = train_losses(config);
  config.grad_clip = 0.5;
  EXPECT_NE(train_losses(config), plain);
  config.grad_clip = 0;
  config.batch_size = 32;
  const int64_t whole = peak(config);
  config.device_batch_size = 1;
  EXPECT_LT(peak(config), whole);
}

TEST(Train, EachRateIsOfItsGroup) {
  const auto before = read_safetensors(fixture("model.safetensors"));
  const std::pair<std::optional<double> Config::*, std::string> groups[] = {
      {&Config::embedding_lr, "wte"},
      {&Config::unembedding_lr, "lm_head"},
      {&Config::matrix_lr, ".h."}};
  for (const auto& [rate, part] : groups) {
    Config config = reference_config();
    config.max_steps = 1;
    config.*rate = 0.0;
    const fs::path run = train(config, {"train"}).folder;
    for (const auto& [name, x] : read_safetensors(run / "checkpoint" / "model.safetensors")) {
      EXPECT_EQ(x.equal(before.at(name)), has(name, part)) << part << " at rest: " << name;
    }
  }
}

TEST(Train, TheSameSeedGivesTheSameBits) {
  Config config = reference_config();
  config.init_from = "";
  config.max_steps = 6;
  const fs::path first = train(config, {"train"}).folder, second = train(config, {"train"}).folder;
  EXPECT_EQ(losses(first), losses(second));
  const auto a = read_safetensors(first / "checkpoint" / "model.safetensors");
  const auto b = read_safetensors(second / "checkpoint" / "model.safetensors");
  for (const auto& [name, tensor] : a) EXPECT_TRUE(at::equal(tensor, b.at(name))) << name;
  config.seed = 43;
  EXPECT_NE(train_losses(config), losses(first));
}

TEST(Train, TheRecordTellsTheRunAndItsConfigRepeatsIt) {
  Config config = reference_config();
  config.attention = "flex";
  config.mask = "auto";
  config.max_steps = 7;
  config.val_interval = 3;
  config.run_id = "told";
  const TrainResult result = train(config, {"train", "--max-steps", "7"});
  const json summary = read_json(result.folder / "summary.json");
  EXPECT_EQ(summary.at("schema"), 1);
  EXPECT_EQ(summary.at("run_id"), "told");
  EXPECT_EQ(summary.at("status"), "finished");
  EXPECT_EQ(summary.at("command"), json({"train", "--max-steps", "7"}));
  EXPECT_EQ(summary.at("attention").at("backend"), "flex");
  EXPECT_EQ(summary.at("attention").at("mask"), "causal & document");
  EXPECT_EQ(summary.at("attention").at("fused"), true);
  EXPECT_EQ(summary.at("attention").at("score"), nullptr);
  EXPECT_TRUE(summary.at("attention").at("sparsity") > 0.5);  // more than causal alone hides
  EXPECT_EQ(summary.at("budget").at("steps"), 7);
  const json& results = summary.at("results");
  EXPECT_DOUBLE_EQ(results.at("tflops_per_second").get<double>(),
                   results.at("tokens_per_second").get<double>() *
                       summary.at("budget").at("flops_per_token").get<double>() / 1e12);
  EXPECT_EQ(summary.at("budget").at("measured_steps"), 2);
  EXPECT_TRUE(summary.at("results").at("peak_memory_bytes") > 100'000);
  EXPECT_TRUE(summary.at("results").at("peak_rss_bytes") > 1'000'000);
  const std::vector<json> metrics = metrics_of(result.folder);
  ASSERT_EQ(metrics.size(), 7);
  for (size_t i = 0; i < metrics.size(); ++i) {
    EXPECT_EQ(metrics[i].at("step"), i + 1);
    EXPECT_EQ(metrics[i].contains("validation_loss"), i == 2 || i == 5 || i == 6) << i;
    for (const char* name : {"loss", "learning_rate", "grad_norm", "tokens", "step_seconds",
                             "tokens_per_second", "tflops_per_second", "memory_bytes"}) {
      EXPECT_TRUE(metrics[i].at(name).is_number()) << name;
    }
  }
  EXPECT_EQ(metrics[6].at("loss"), summary.at("results").at("final_loss"));
  for (const char* file : {"run.md", "report.html", "checkpoint/model.safetensors"}) {
    EXPECT_TRUE(fs::file_size(result.folder / file) > 100) << file;
  }
  Config again;
  apply_yaml(again, result.folder / "config.yaml");
  EXPECT_EQ(train_losses(again), losses(result.folder));
}

TEST(Train, AnIdInUseIsRefusedAndItsRecordUntouched) {
  Config config = reference_config();
  config.max_steps = 1;
  config.run_id = "taken";
  const fs::path folder = train(config, {"train"}).folder;
  const auto before = fs::last_write_time(folder / "summary.json");
  EXPECT_NE(rejection(config).find("run_id 'taken' is in use"), std::string::npos);
  EXPECT_EQ(fs::last_write_time(folder / "summary.json"), before);
  for (const char* bad : {"../up", "a/b", ".hidden", "a\nb", "-x"}) {
    config.run_id = bad;
    EXPECT_NE(rejection(config).find("run_id must be letters"), std::string::npos) << bad;
  }
}

TEST(Train, ALossThatIsNotFiniteStopsTheRunAndKeepsTheLastGoodCheckpoint) {
  Config config = reference_config();
  config.learning_rate = 1e30;
  config.checkpoint_interval = 1;
  config.run_id = "diverged";
  const std::string message = rejection(config);
  EXPECT_NE(message.find("[train] step 2: loss"), std::string::npos) << message;
  EXPECT_NE(message.find("last good checkpoint: none"), std::string::npos) << message;
  EXPECT_NE(message.find("lower --learning-rate"), std::string::npos) << message;
  const fs::path folder = fs::path(config.runs_dir) / "diverged";
  EXPECT_EQ(read_json(folder / "summary.json").at("status"), "failed");
  EXPECT_FALSE(fs::exists(folder / "checkpoint" / "model.safetensors"));
}

TEST(Train, AnInterruptFinishesTheStepAndLeavesAValidRecord) {
  Config config = reference_config();
  config.max_steps = 1'000'000;
  config.run_id = "stopped";
  const std::jthread presser = interrupt_after_three_steps(config, SIGINT);
  const TrainResult result = train(config, {"train"});
  EXPECT_EQ(result.status, "interrupted");
  const json summary = read_json(result.folder / "summary.json");
  EXPECT_EQ(summary.at("status"), "interrupted");
  EXPECT_EQ(summary.at("budget").at("steps"), losses(result.folder).size());
  EXPECT_NO_THROW(read_safetensors(result.folder / "checkpoint" / "model.safetensors"));
}

TEST(Train, SecondsEndARunToo) {
  Config config = reference_config();
  config.max_steps = std::nullopt;
  config.max_seconds = 0.2;
  const TrainResult result = train(config, {"train"});
  EXPECT_EQ(result.status, "finished");
  EXPECT_GE(losses(result.folder).size(), 1);
}

TEST(Train, ADeviceThatIsNotThereIsAnError) {
  Config config = reference_config();
  config.device = "cuda:99";
  EXPECT_NE(rejection(config).find("device 'cuda:99' is not there"), std::string::npos);
  config.device = "tpu";
  EXPECT_NE(rejection(config).find("device must be auto, cpu, cuda or cuda:N, is 'tpu'"),
            std::string::npos);
}

TEST(Train, Tf32IsOfAGpusFloat32) {
  Config config = reference_config();
  config.dtype = "float32", config.tf32 = "on";
  EXPECT_EQ(rejection(config),
            "[machine] tf32 is of float32 on a GPU, and this is float32 on cpu; leave out tf32");
}

TEST(Train, SdpaSaysWhichMasksItCannotRun) {
  Config config = reference_config();
  config.attention = "sdpa";
  config.mask = "causal & document";
  EXPECT_NE(rejection(config).find("'sdpa' cannot run"), std::string::npos) << rejection(config);
  EXPECT_FALSE(fs::exists(config.runs_dir));
}

// Rows of it are set by its length alone, so that runs are held against each other on one text.
TEST(Train, ValidatesOnTheSameTextWhateverTheBatch) {
  const auto validation = [](int64_t rows) {
    Config config = reference_config();
    config.max_steps = 1;
    config.device_batch_size = rows;
    config.val_tokens = 300;
    return read_json(train(config, {"train"}).folder / "summary.json")
        .at("results")
        .at("validation_loss")
        .get<double>();
  };
  EXPECT_NEAR(validation(8), validation(1), 1e-5);
}

TEST(MaskShare, CountsPairsThatAreHiddenAndBlocksThatAreWorkedOn) {
  const MaskShare share =
      mask_share({.backend = "flex", .fused = true, .n_head = 2, .mask = flex::causal()},
                 at::zeros({1, 512}, at::kBool));
  EXPECT_DOUBLE_EQ(share.visited, 10.0 / 16);
  EXPECT_NEAR(share.sparsity, 1 - 513.0 / 1024, 1e-12);
}

TEST(Windows, FollowTheirPatternThroughTheLayers) {
  Config config = reference_config();
  config.n_layer = 5, config.window_pattern = "SSL", config.window_size = 9;
  config.attention = "flex";
  const std::optional<int64_t> all;
  using Each = std::vector<std::optional<int64_t>>;
  EXPECT_EQ(choose_attention(config, at::kCPU, at::kFloat).windows, (Each{9, 9, all, 9, 9}));
}

}  // namespace
}  // namespace nanoflex
