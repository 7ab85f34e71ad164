// A run that is killed at any moment, again and again, ends with the bits of one that was left in
// peace. NANOFLEX_KILLS=200 asks for more kills than a usual test makes.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <random>
#include <sstream>
#include <thread>

#include "tests/trainer/small_run.h"
#include "trainer/checkpoint.h"
#include "trainer/command_line.h"
#include "trainer/run_folder.h"

namespace nanoflex {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr char kArguments[] = "NANOFLEX_TEST_ARGUMENTS";  // of the child, one a line

// Not a test: ./train in a process of its own, which Killed starts.
TEST(Killed, DISABLED_Child) {
  const char* text = std::getenv(kArguments);
  if (text == nullptr) GTEST_SKIP() << "for Killed alone";
  std::istringstream in(text);
  Arguments arguments;
  for (std::string line; std::getline(in, line);) arguments.push_back(line);
  std::exit(run_program([&] {
    const TrainCommand command = parse_train_command(arguments);
    train(command.config, {"train"}, command.resume);
    return 0;
  }));
}

pid_t start(const Arguments& arguments) {
  std::string text;
  for (const std::string& argument : arguments) text += argument + "\n";
  setenv(kArguments, text.c_str(), /*overwrite=*/1);
  const pid_t child = fork();
  if (child != 0) return child;
  for (const char* share : {"GTEST_TOTAL_SHARDS", "GTEST_SHARD_INDEX"}) {
    unsetenv(share);  // of the tests, which is this process's and not the child's
  }
  execl("/proc/self/exe", "test_trainer", "--gtest_filter=Killed.DISABLED_Child",
        "--gtest_also_run_disabled_tests", "--gtest_brief=1", nullptr);
  _exit(127);
}

// Whether the child ended by itself, and well, before it was killed.
bool ended_before(pid_t child, Seconds limit) {
  const Clock::time_point begin = Clock::now();
  int status = 0;
  while (waitpid(child, &status, WNOHANG) == 0) {
    if (Clock::now() - begin < limit) {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      continue;
    }
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    break;
  }
  EXPECT_TRUE(WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) == 0)) << status;
  return WIFEXITED(status);
}

bool finished(const fs::path& run) {
  return fs::exists(run / "summary.json") &&
         read_json(run / "summary.json").at("status") == "finished";
}

class Campaign {
 public:
  explicit Campaign(int kills) : kills_(kills) {
    Config config = reference_config();
    config.max_steps = 12;
    config.checkpoint_interval = 2;
    config.threads = 1;
    config.lr_warmdown_steps = 5;
    fs::create_directories(config.runs_dir);
    config_file_ = fs::path(config.runs_dir) / "config.yaml";
    write_file(config_file_, to_yaml(config));
    runs_ = config.runs_dir;
    const Clock::time_point begin = Clock::now();
    EXPECT_TRUE(ended_before(start(fresh("whole")), Seconds(300)));
    duration_ = Clock::now() - begin;
  }

  // Starts runs and kills them until they are through, until there were enough kills.
  void execute() {
    for (int run = 0; kills_ > 0 && !testing::Test::HasFailure(); ++run) {
      const std::string id = "killed_" + std::to_string(run);
      Arguments arguments = fresh(id);
      while (!ended_before(start(arguments), next_moment())) {
        --kills_;
        if (testing::Test::HasFailure()) return;
        if (finished(runs_ / id)) break;  // and was about to exit
        // Before the first checkpoint there is nothing to go on from.
        if (checkpoint_steps(runs_ / id).empty()) {
          fs::remove_all(runs_ / id);
          continue;
        }
        ++resumed_;
        arguments = {"--resume", (runs_ / id).string()};
      }
      EXPECT_EQ(steps(runs_ / id), steps(runs_ / "whole")) << id;
      const fs::path weights = fs::path("checkpoint") / "model.safetensors";
      EXPECT_TRUE(bytes(runs_ / id / weights) == bytes(runs_ / "whole" / weights)) << id;
      EXPECT_EQ(read_json(runs_ / id / "summary.json").at("status"), "finished");
      EXPECT_EQ(checkpoint_steps(runs_ / id), checkpoint_steps(runs_ / "whole")) << id;
      fs::remove_all(runs_ / id);
    }
  }

  int resumed() const { return resumed_; }

 private:
  Arguments fresh(const std::string& id) const {
    return {"--config", config_file_.string(), "--run-id", id};
  }

  // Once the kills are used up, a run is let through.
  Seconds next_moment() {
    if (kills_ <= 0) return Seconds(300);
    return duration_ * std::uniform_real_distribution(0.0, 1.0)(random_);
  }

  int kills_, resumed_ = 0;
  fs::path config_file_, runs_;
  Seconds duration_{};
  std::mt19937 random_{std::random_device{}()};  // the moments depend on the machine's load anyway
};

TEST(Killed, ARunThatIsTakenUpAgainEndsWithTheSameBits) {
  const char* asked = std::getenv("NANOFLEX_KILLS");
  Campaign campaign(asked != nullptr ? std::atoi(asked) : 6);
  campaign.execute();
  RecordProperty("resumed", campaign.resumed());
}

}  // namespace
}  // namespace nanoflex
