// Run records on disk, as ./compare reads them.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "trainer/comparison.h"

namespace nanoflex {

/// Of a finished run.
inline nlohmann::json record(const std::string& id) {
  return {
      {"schema", 1},
      {"run_id", id},
      {"status", "finished"},
      {"config",
       {{"model", {{"n_layer", 4}, {"init_from", nullptr}}},
        {"attention", {{"mask", "causal"}}},
        {"budget", {{"target_flops", 2e12}}},
        {"output", {{"run_id", id}}}}},
      {"budget", {{"flops_per_step", 92006252544}, {"steps", 22}}},
      {"attention", {{"backend", "sdpa"}}},
      {"results",
       {{"tokens_per_second", 1250.0},
        {"tflops_per_second", 0.056},
        {"peak_memory_bytes", 1540000000},
        {"final_loss", 10.4},
        {"validation_loss", 10.5}}},
  };
}

class RunRecordsTest : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(runs_); }
  void TearDown() override { std::filesystem::remove_all(root_); }

  std::filesystem::path write_text(const std::string& id, const std::string& text) const {
    std::filesystem::create_directories(runs_ / id);
    std::ofstream(runs_ / id / "summary.json") << text;
    return runs_ / id;
  }
  std::filesystem::path write(const std::string& id, const nlohmann::json& content) const {
    return write_text(id, content.dump());
  }
  std::filesystem::path write(const std::string& id) const { return write(id, record(id)); }

  // Why a record is refused; empty if it is read.
  static std::string refusal(const std::filesystem::path& folder) {
    try {
      read_run(folder);
      return "";
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
  }

  std::string unresolved(const std::string& argument) const {
    try {
      resolve_runs({argument}, runs_);
      return "";
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
  }

  // Runs "a" and "b", where b's record is changed.
  template <typename Change>
  Comparison compare_with_changed(Change change) const {
    nlohmann::json changed = record("b");
    change(changed);
    return compare({read_run(write("a")), read_run(write("b", changed))});
  }

  const std::filesystem::path root_ =
      std::filesystem::path(testing::TempDir()) /
      ("nanoflex_comparison_" + std::to_string(::getpid()) +
       testing::UnitTest::GetInstance()->current_test_info()->name());
  const std::filesystem::path runs_ = root_ / "runs";
};

}  // namespace nanoflex
