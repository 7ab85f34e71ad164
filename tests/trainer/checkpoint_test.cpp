// What a run is left with when disks fill up, files rot and processes collide.
#include "trainer/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <fstream>
#include <thread>

#include "tests/trainer/small_run.h"
#include "trainer/command_line.h"
#include "trainer/run_folder.h"

namespace nanoflex {
namespace {

namespace fs = std::filesystem;

void flip_a_bit(const fs::path& file) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  const auto middle = static_cast<std::streamoff>(fs::file_size(file) / 2);
  stream.seekg(middle);
  const int byte = stream.get();
  stream.seekp(middle);
  stream.put(static_cast<char>(byte ^ 1));
}

TEST(Checkpoint, ADamagedCheckpointIsRefusedAndTheOneBeforeItOffered) {
  const fs::path run = train(eight_steps(), {"train"}).folder;
  const fs::path newest = checkpoint_folder(run, 8), before = checkpoint_folder(run, 6);
  const fs::path spare = run / "spare";
  fs::copy(newest, spare);
  const auto expect_refusal = [&](const std::string& why) {
    const std::string message = refusal(run, {"--max-steps", "9"});
    EXPECT_TRUE(has(message, "checkpoint " + newest.string() + " cannot be used: ")) << message;
    EXPECT_TRUE(has(message, why)) << message;
    EXPECT_TRUE(has(message, "--resume " + before.string())) << message;
    EXPECT_FALSE(has(message, "\n")) << message;
    fs::remove_all(newest);
    fs::copy(spare, newest);
  };
  for (const char* name : {"model.safetensors", "training.safetensors", "config.yaml"}) {
    flip_a_bit(newest / name);
    expect_refusal(std::string(name) + " has changed since it was saved");
    fs::resize_file(newest / name, 100);
    expect_refusal(std::string(name) + " has 100 bytes, was saved with ");
    fs::remove(newest / name);
    expect_refusal(std::string(name) + " is missing");
  }
  fs::resize_file(newest / "state.json", 100);
  expect_refusal("state.json is not a checkpoint's");
  std::ofstream(newest / "state.json") << R"({"crc32c": 0})";
  expect_refusal("state.json has changed since it was saved");
  std::ofstream(newest / "state.json") << std::string(200'000, '[') << std::string(200'000, ']');
  expect_refusal("state.json is not a checkpoint's: nested too deeply");
  fs::remove(newest / "state.json");
  expect_refusal("state.json is missing");
  fs::remove_all(newest);
  fs::copy(before, newest);
  expect_refusal("it is of step 6");
  fs::remove(newest / "config.yaml");
  EXPECT_TRUE(
      has(refusal(checkpoint_folder(run, 7)), "step_00000007 cannot be used: state.json is "))
      << refusal(checkpoint_folder(run, 7));
  resume(before, {"--max-steps", "9"});  // as offered
  EXPECT_EQ(losses(run).size(), 9);
  EXPECT_NO_THROW(verify_checkpoint(checkpoint_folder(run, 9)));
  EXPECT_EQ(checkpoint_steps(run), (std::vector<int64_t>{6, 9}));
}

TEST(Checkpoint, AnotherRunsCheckpointIsRefused) {
  Config config = eight_steps();
  const fs::path run = train(config, {"train"}).folder;
  config.run_id = "other";
  const fs::path other = train(config, {"train"}).folder;
  for (const int64_t step : {6, 8}) {
    fs::remove_all(checkpoint_folder(run, step));
    fs::copy(checkpoint_folder(other, step), checkpoint_folder(run, step));
  }
  const std::string message = refusal(run, {"--max-steps", "9"});
  EXPECT_TRUE(has(message, "it is of run 'other', this is 'run'; there is no good one before it"))
      << message;
}

TEST(Checkpoint, OneProcessAtATime) {
  const fs::path run = train(eight_steps(), {"train"}).folder;
  const Arguments arguments = {"--resume", run.string(), "--max-steps", "9"};
  {
    const TrainCommand first = parse_train_command(arguments);
    const std::string message = refusal(run, {"--max-steps", "9"});
    EXPECT_TRUE(has(message, "is being written by process " + std::to_string(getpid()))) << message;
  }
  EXPECT_NO_THROW(parse_train_command(arguments));
}

TEST(RunFolder, OfRunsThatAskForOneIdAtOnceOneGetsIt) {
  const fs::path runs = fresh_folder();
  std::atomic<int> claimed = 0, told = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&] {
        try {
          claim_folder(runs, "same");
          ++claimed;
        } catch (const std::invalid_argument& problem) {
          if (has(problem.what(), "run_id 'same' is in use")) ++told;
        }
      });
    }
  }
  EXPECT_EQ(claimed, 1);
  EXPECT_EQ(told, 7);
}

// Files of more than so many bytes cannot be written while it lives.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit = {bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FullDisk() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, SIG_DFL);
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

 private:
  rlimit before_{};
};

TEST(Checkpoint, AFullDiskLeavesTheCheckpointBefore) {
  const fs::path run = train(eight_steps(), {"train"}).folder;
  for (const rlim_t room :
       {300'000, 500'000}) {  // for the report, not the weights; for them, but no more
    SCOPED_TRACE(room);
    std::string message;
    {
      const FullDisk full(room);
      message = refusal(run, {"--max-steps", "10"});
    }
    EXPECT_TRUE(has(message, "[checkpoint] cannot save step 10: ")) << message;
    EXPECT_TRUE(has(message, "safetensors: File too large; the checkpoint of step 8 stands"))
        << message;
    EXPECT_FALSE(has(message, "\n")) << message;
    EXPECT_EQ(checkpoint_steps(run), (std::vector<int64_t>{6, 8}));
    EXPECT_NO_THROW(verify_checkpoint(checkpoint_folder(run, 8)));
    EXPECT_EQ(read_json(run / "summary.json").at("status"), "failed");
    for (const auto& entry : fs::recursive_directory_iterator(run)) {
      const std::string name = entry.path().filename().string();
      EXPECT_FALSE(has(name, ".tmp") || has(name, ".saving")) << name;
    }
  }
  resume(run, {"--max-steps", "10"});
  Config config = eight_steps();
  config.max_steps = 10;
  EXPECT_EQ(losses(run), losses(train(config, {"train"}).folder));
}

}  // namespace
}  // namespace nanoflex
