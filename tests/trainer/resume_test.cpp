// Runs that stop and go on: the same bits as runs that never stopped, and clear words otherwise.
#include "trainer/resume.h"

#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <thread>

#include "attention/registry.h"
#include "data/tokenizer.h"
#include "model/safetensors.h"
#include "tests/trainer/small_run.h"
#include "trainer/command_line.h"

namespace nanoflex {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
// Takes a finished run back to its checkpoint at 6, and there again: the end must be the same.
void expect_same_end(const Config& config) {
  const fs::path run = train(config, {"train"}).folder, end = checkpoint_folder(run, 8);
  const std::vector<json> whole = steps(run);
  const std::string weights = bytes(end / "model.safetensors");
  const auto training = read_safetensors(end / "training.safetensors");
  EXPECT_EQ(whole.size(), 8);
  resume(checkpoint_folder(run, 6));
  EXPECT_EQ(steps(run), whole);
  EXPECT_TRUE(bytes(end / "model.safetensors") == weights);
  for (const auto& [name, tensor] : read_safetensors(end / "training.safetensors")) {
    if (name == "random.cpu") continue;  // LibTorch leaves bytes between its fields unset
    EXPECT_TRUE(at::equal(tensor, training.at(name))) << name;
  }
  EXPECT_TRUE(bytes(run / "checkpoint" / "model.safetensors") == weights);
}

TEST(Resume, GivesTheSameBitsUnderEveryBackend) {
  for (const std::string& backend : backend_names()) {
    SCOPED_TRACE(backend);
    Config config = eight_steps();
    config.attention = backend;
    expect_same_end(config);
  }
}

TEST(ResumeCuda, GivesTheSameBitsUnderEveryBackend) {
  if (!at::hasCUDA()) GTEST_SKIP() << "there is no GPU here";
  for (const std::string& backend : backend_names()) {
    for (const std::string graph : {"on", "off"}) {
      SCOPED_TRACE(backend + ", graph " + graph);
      Config config = eight_steps();
      config.attention = backend;
      config.device = "cuda";
      config.graph = graph;
      expect_same_end(config);
    }
  }
}

TEST(Resume, GivesTheSameBitsWithEverythingThatKeepsState) {
  Config config = eight_steps();
  config.attention = "flex";
  config.score = "score + slope[h] * (kv - q)";
  config.learned_tensors = "slope";
  config.init_from = "";
  config.packing = "best_fit";
  config.device_batch_size = 2;
  config.grad_clip = 0.5;
  config.z_loss = 1e-4;
  config.lr_warmup_steps = 3;
  config.lr_warmdown_steps = 4;
  config.val_interval = 4;
  expect_same_end(config);
}

TEST(Resume, TheRecordIsThatOfTheWholeRun) {
  Config config = eight_steps();
  const fs::path run = train(config, {"first", "command"}).folder;
  const json whole = read_json(run / "summary.json");
  EXPECT_EQ(whole.at("resumed"), json::array());
  EXPECT_EQ(whole.at("parent"), nullptr);
  std::ofstream(run / "metrics.jsonl", std::ios::app) << R"({"step": 9, "lo)";  // torn
  resume(checkpoint_folder(run, 6));
  resume(checkpoint_folder(run, 6));
  const json again = read_json(run / "summary.json");
  EXPECT_EQ(again.at("resumed"), json({6, 6}));
  EXPECT_EQ(again.at("command"), json({"first", "command"}));
  EXPECT_EQ(again.at("status"), "finished");
  EXPECT_EQ(again.at("budget"), whole.at("budget"));
  EXPECT_EQ(again.at("attention"), whole.at("attention"));
  EXPECT_EQ(again.at("config"), whole.at("config"));
  for (const char* name : {"first_loss", "final_loss", "validation_loss"}) {
    EXPECT_EQ(again.at("results").at(name), whole.at("results").at(name)) << name;
  }
  const json saved = read_json(checkpoint_folder(run, 6) / "state.json").at("measurement");
  EXPECT_GE(again.at("results").at("peak_memory_bytes").get<int64_t>(),
            saved.at("peak_tensor_bytes").get<int64_t>());
  const auto elapsed = [&](int64_t step) {
    return read_json(checkpoint_folder(run, step) / "state.json").at("elapsed_seconds");
  };
  EXPECT_GT(elapsed(8).get<double>(), elapsed(6).get<double>());
  double seconds = 0;  // of the steps after warm-up, as the metrics of both parts have them
  for (const json& line : metrics_of(run)) {
    if (line.at("step") > config.warmup_steps) seconds += line.at("step_seconds").get<double>();
  }
  EXPECT_NEAR(again.at("results").at("tokens_per_second").get<double>(), 3 * 8 * 32 / seconds,
              1e-6 / seconds);
}

TEST(Resume, TextThatARunWroteAtItsEndChangesNothingAfterIt) {
  Config config = reference_config();
  config.init_from = "";
  config.vocab_size = 320;
  const fs::path folder = fresh_folder();
  fs::create_directories(folder);
  config.tokenizer = (folder / "tokenizer.model").string();
  std::ofstream(config.tokenizer) << data::train_tokenizer({"to be or not to be"}, 300);
  config.max_steps = 4;
  config.run_id = "whole";
  const fs::path whole = train(config, {"train"}).folder;
  config.max_steps = 2;
  config.run_id = "part";
  const fs::path part = train(config, {"train"}).folder;
  EXPECT_EQ(read_json(part / "summary.json").at("samples").at("texts").size(), 2);
  resume(part, {"--max-steps", "4"});
  EXPECT_EQ(losses(part), losses(whole));
}

TEST(Resume, AnInterruptedRunGoesOnWithTheSameBits) {
  Config config = eight_steps();
  config.max_steps = 1'000'000;
  config.run_id = "stopped";
  const std::jthread presser = interrupt_after_three_steps(config, SIGTERM);
  const TrainResult stopped = train(config, {"train"});
  ASSERT_EQ(stopped.status, "interrupted");
  config.max_steps = losses(stopped.folder).size() + 2;
  config.run_id = "whole";
  const fs::path whole = train(config, {"train"}).folder;
  const TrainResult resumed = resume("auto", {"--runs-dir", config.runs_dir, "--max-steps",
                                              key_text(config, find_key("budget.max_steps", ""))});
  EXPECT_EQ(resumed.status, "finished");
  EXPECT_EQ(resumed.folder, stopped.folder);
  EXPECT_EQ(steps(resumed.folder), steps(whole));
  EXPECT_TRUE(has(refusal("auto", {"--runs-dir", config.runs_dir}), "auto: no run below "));
}

TEST(Resume, AChangedConfigIsRefusedByItsKeysUnlessAllowed) {
  const fs::path run = train(eight_steps(), {"train"}).folder;
  const Arguments changes = {"--learning-rate", "0.01", "--z-loss", "0.001", "--max-steps", "9"};
  const std::string message = refusal(run, changes);
  EXPECT_TRUE(has(message, "learning_rate from 6e-04 to 0.01, z_loss from 0 to 0.001")) << message;
  EXPECT_TRUE(has(message, "--allow-changes learning_rate,z_loss")) << message;
  EXPECT_FALSE(has(message, "max_steps")) << message;

  const fs::path file = run / "other.yaml";
  std::ofstream(file) << "model:\n  n_layer: 3\nbudget:\n  max_steps: 9\n";
  EXPECT_TRUE(has(refusal(run, {"--config", file.string()}), "change n_layer from 2 to 3, and so"));

  Arguments allowed = changes;
  allowed.insert(allowed.end(), {"--allow-changes", "learning_rate,zloss"});
  EXPECT_TRUE(has(refusal(run, allowed), "'zloss'; did you mean 'z_loss'?"));
  allowed.back() = "learning_rate,z_loss";
  resume(run, allowed);
  const json last = metrics_of(run).back();
  EXPECT_EQ(last.at("step"), 9);
  EXPECT_EQ(last.at("learning_rate"), 0.01);
  Config recorded;
  apply_yaml(recorded, run / "config.yaml");
  EXPECT_EQ(recorded.z_loss, 0.001);
}

// Numbers of other settings say nothing of the new ones: steps are timed anew, after as many of
// warm-up, and tokens are those that were read.
TEST(Resume, WhatIsMeasuredIsOfTheSettingsThatHold) {
  const Config config = eight_steps();
  const fs::path run = train(config, {"train"}).folder;
  const Arguments half = {
      "--batch-size",        "4", "--allow-changes", "batch_size,device_batch_size",
      "--device-batch-size", "4", "--max-steps",     "16"};
  resume(run, half);
  const json record = read_json(run / "summary.json");
  const auto lines = metrics_of(run);
  EXPECT_EQ(lines[7].at("tokens"), 8 * 8 * 32);
  EXPECT_EQ(lines[8].at("tokens"), 8 * 8 * 32 + 4 * 32);
  EXPECT_EQ(record.at("budget").at("unmeasured_steps"), 8);
  EXPECT_EQ(record.at("budget").at("measured_steps"), 8 - config.warmup_steps);
  double seconds = 0;
  for (size_t i = 8 + config.warmup_steps; i < lines.size(); ++i) {
    seconds += lines[i].at("step_seconds").get<double>();
  }
  EXPECT_NEAR(record.at("results").at("tokens_per_second").get<double>(),
              (8 - config.warmup_steps) * 4 * 32 / seconds, 1e-6 / seconds);

  const Arguments other = {"--branch",       "--run-id",    "full",    "--mask",
                           "full",           "--attention", "vanilla", "--allow-changes",
                           "mask,attention", "--max-steps", "17"};
  const json full = read_json(resume(run, other).folder / "summary.json");
  EXPECT_EQ(full.at("attention").at("sparsity"), 0);
  EXPECT_GT(record.at("attention").at("sparsity"), 0.1);
}

// A budget of FLOPs pays for what was taken at the old price and the rest at the new one, also when
// the run stops once more.
TEST(Resume, ABudgetOfFlopsPaysEveryStepAtItsPrice) {
  Config config = eight_steps();
  const int64_t price =
      read_json(train(config, {"train"}).folder / "summary.json").at("budget").at("flops_per_step");
  config = eight_steps();
  config.max_steps = std::nullopt;
  config.target_flops = 16.0 * static_cast<double>(price);
  config.checkpoint_interval = 8;
  const fs::path run = train(config, {"train"}).folder;
  ASSERT_EQ(losses(run).size(), 16);
  const fs::path twig =
      resume(checkpoint_folder(run, 8),
             {"--branch", "--run-id", "twig", "--batch-size", "4", "--device-batch-size", "4",
              "--allow-changes", "batch_size,device_batch_size", "--checkpoint-interval", "8"})
          .folder;
  EXPECT_EQ(losses(twig).size(), 8 + 16);
  resume(checkpoint_folder(twig, 16));
  EXPECT_EQ(losses(twig).size(), 8 + 16);
  const json budget = read_json(twig / "summary.json").at("budget");
  EXPECT_EQ(budget.at("flops"), 16 * price);
  EXPECT_EQ(budget.at("tokens"), 16 * 8 * 32);
}

TEST(Resume, ABudgetThatRatesFallTowardsIsNoOutputSetting) {
  Config config = eight_steps();
  config.lr_warmdown_steps = 4;
  const fs::path run = train(config, {"train"}).folder;
  EXPECT_TRUE(has(refusal(run, {"--max-steps", "9"}), "change max_steps from 8 to 9"));
  resume(run, {"--max-steps", "9", "--allow-changes", "max_steps"});
}

TEST(Resume, WhatDoesNotGoTogetherIsRefused) {
  const Config config = eight_steps();
  const fs::path run = train(config, {"train"}).folder;
  const std::string before = bytes(run / "summary.json");
  EXPECT_TRUE(has(refusal(run), "nothing is left to do")) << refusal(run);
  EXPECT_TRUE(has(refusal(run, {"--max-steps", "7"}), "nothing is left to do"));
  EXPECT_TRUE(has(refusal(run, {"--run-id", "b"}), "leave it out, or add --branch"));
  EXPECT_TRUE(has(refusal("nobody", {"--runs-dir", config.runs_dir}), "there is no run 'nobody'"));
  const Arguments packing = {"--max-steps",     "9",      "--packing", "best_fit",
                             "--allow-changes", "packing"};
  EXPECT_TRUE(has(refusal(run, packing), "of packing \"stream\"")) << refusal(run, packing);
  for (const Arguments& alone : {Arguments{"--branch"}, {"--allow-changes", "mask"}}) {
    EXPECT_THROW(parse_train_command(alone), std::invalid_argument) << alone.front();
  }
  EXPECT_EQ(bytes(run / "summary.json"), before);
  EXPECT_EQ(checkpoint_steps(run), (std::vector<int64_t>{6, 8}));
}

TEST(Resume, ARecordThatNoRunWroteIsRefusedByNameAndPassedOver) {
  Config config = eight_steps();
  const fs::path good = train(config, {"train"}).folder;
  std::ofstream(good / "summary.json") << "{\"run_id\": \"ru";  // torn, as by a power cut
  const fs::path strange = fs::path(config.runs_dir) / "strange";
  fs::copy(good, strange, fs::copy_options::recursive);
  std::ofstream(strange / "metrics.jsonl", std::ios::app) << "\n";  // trained last
  const std::string deep(200'000, '['), end(200'000, ']');
  std::ofstream(strange / "summary.json") << "{\"status\": " << deep << end << "}";
  EXPECT_EQ(refusal(strange), "[resume] " + (strange / "summary.json").string() +
                                  ": nested too deeply for a run record");
  EXPECT_EQ(resume("auto", {"--runs-dir", config.runs_dir, "--max-steps", "9"}).folder, good);
}

TEST(Resume, ABranchIsANewRunThatLeavesItsParentAlone) {
  const Config config = eight_steps();
  const fs::path run = train(config, {"train"}).folder;
  const std::string summary = bytes(run / "summary.json"), metrics = bytes(run / "metrics.jsonl");
  const TrainResult twig = resume(checkpoint_folder(run, 6), {"--branch", "--run-id", "twig"});
  EXPECT_EQ(twig.folder, run.parent_path() / "twig");
  EXPECT_EQ(steps(twig.folder), steps(run));
  const json record = read_json(twig.folder / "summary.json");
  EXPECT_EQ(record.at("parent"), json({{"run_id", "run"}, {"step", 6}}));
  EXPECT_EQ(record.at("run_id"), "twig");
  EXPECT_EQ(record.at("resumed"), json::array());
  EXPECT_EQ(bytes(run / "summary.json"), summary);
  EXPECT_EQ(bytes(run / "metrics.jsonl"), metrics);
  EXPECT_EQ(checkpoint_steps(run), (std::vector<int64_t>{6, 8}));
  resume(twig.folder, {"--max-steps", "9"});
  EXPECT_EQ(losses(twig.folder).size(), 9);
}

// Beside its parent, wherever that was moved to; elsewhere when told, though it be where the parent
// was trained.
TEST(Resume, ABranchLandsWhereItIsTold) {
  const Config config = eight_steps();
  const fs::path run = train(config, {"train"}).folder;
  const fs::path moved = fs::path(config.runs_dir) / "elsewhere" / "run";
  fs::create_directories(moved.parent_path());
  fs::rename(run, moved);
  EXPECT_EQ(resume(checkpoint_folder(moved, 6), {"--branch", "--run-id", "twig"}).folder,
            moved.parent_path() / "twig");
  EXPECT_EQ(resume(checkpoint_folder(moved, 6),
                   {"--branch", "--run-id", "back", "--runs-dir", config.runs_dir})
                .folder,
            fs::path(config.runs_dir) / "back");
}

}  // namespace
}  // namespace nanoflex
