// What ./train --profile leaves behind.
#include "trainer/profile.h"

#include <gtest/gtest.h>

#include <fstream>

#include "trainer/operation_watch.h"
#include "trainer/profiled_steps.h"
#include "trainer/train.h"

namespace nanoflex {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

Config profiled_config(const std::string& backend) {
  static int count = 0;
  Config config;
  config.n_layer = 2, config.n_head = config.n_kv_head = 2, config.n_embd = 32;
  config.sequence_len = 64, config.vocab_size = 200, config.batch_size = 2;
  config.data = (source_dir() / "tests" / "fixtures" / "section_a" / "tokens.bin").string();
  config.target_flops = std::nullopt;
  config.max_steps = 6;
  config.warmup_steps = 1;
  config.val_tokens = 0;
  config.profile = 2;
  config.attention = backend;
  config.mask = "causal";
  config.dtype = "float32", config.device = "cpu";
  config.runs_dir =
      (fs::path(testing::TempDir()) / ("nanoflex_profile_" + std::to_string(getpid()))).string();
  config.run_id = backend + std::to_string(count++);
  return config;
}

json read(const fs::path& file) {
  std::ifstream in(file);
  return json::parse(in);
}

std::string file_text(const fs::path& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(Profile, AnswersWhetherAQueriesByKeysTensorWasHeld) {
  const fs::path fused = train(profiled_config("flex"), {"train"}).folder;
  const fs::path plain = train(profiled_config("vanilla"), {"train"}).folder;
  const json f = read(fused / "summary.json").at("profile");
  const json p = read(plain / "summary.json").at("profile");
  EXPECT_TRUE(f.at("queries_by_keys_tensor").is_null());
  EXPECT_FALSE(p.at("queries_by_keys_tensor").is_null());
  EXPECT_GT(f.at("fewer_operations").get<int64_t>(), 0);
  EXPECT_EQ(p.at("fewer_operations").get<int64_t>(), 0);
  EXPECT_NE(file_text(fused / "profile.md").find("ever held? No."), std::string::npos);
}

TEST(Profile, TimesAddUpAndTheTraceHoldsTheOperations) {
  const fs::path run = train(profiled_config("flash"), {"train"}).folder;
  const json profile = read(run / "profile.json");
  double parts = 0, operations = 0, products = 0;
  for (const json& part : profile.at("parts")) parts += part.at("seconds").get<double>();
  for (const json& operation : profile.at("operations")) {
    operations += operation.at("seconds").get<double>();
    if (operation.at("name") == "aten::mm") products = operation.at("flops");
  }
  const double step = profile.at("seconds_per_step");
  EXPECT_TRUE(parts > 0 && parts <= 1.5 * step) << parts << " of " << step;
  EXPECT_TRUE(operations > 0 && operations <= 1.01 * step) << operations << " of " << step;
  EXPECT_GT(products, 0);
  EXPECT_GE(profile.at("memory").at("peak_bytes"), profile.at("memory").at("before_bytes"));
  EXPECT_GT(profile.at("memory").at("largest").at(0).at("bytes").get<int64_t>(), 0);
  const json trace = read(run / "trace.json");
  bool found = false;
  for (const json& event : trace.at("traceEvents")) found |= event.value("name", "") == "aten::mm";
  EXPECT_TRUE(found);
}

// Launching takes the host a moment; what the GPU then does is the operation's time, and its memory
// the GPU's.
TEST(Profile, OfAGpuTimesWhatTheGpuDoes) {
  const auto event = [](const char* category, const char* name, double begin, double length,
                        const json& arguments) {
    return json{{"cat", category}, {"name", name},  {"tid", 1},
                {"ts", begin},     {"dur", length}, {"args", arguments}};
  };
  const auto memory = [&](double at, int64_t bytes, int type) {
    return event("cpu_instant_event", "[memory]", at, 0,
                 {{"Bytes", bytes}, {"Addr", 64 * bytes}, {"Device Type", type}});
  };
  const json trace = {{"traceEvents",
                       {event("cpu_op", "outer", 0, 100, {{"External id", 1}}),
                        event("cpu_op", "inner", 10, 20, {{"External id", 2}}), memory(12, 1000, 1),
                        memory(13, 7, 0), event("kernel", "a", 15, 300, {{"External id", 2}}),
                        event("kernel", "b", 320, 200, {{"External id", 2}}),
                        event("gpu_memset", "c", 530, 50, {{"External id", 1}}),
                        event("kernel", "d", 590, 5, json::object())}}};
  const json gpu = digest_trace(trace, {at::kCUDA, 0}, {}, 10);
  EXPECT_EQ(gpu["operations"][0]["name"], "inner");
  EXPECT_DOUBLE_EQ(gpu["operations"][0]["seconds"], 500e-6);
  EXPECT_DOUBLE_EQ(gpu["operations"][1]["seconds"], 50e-6);
  EXPECT_EQ(gpu["operations"][2]["name"], "launched by no operation");
  EXPECT_EQ(gpu["memory"]["peak_bytes"], 1010);
  const json cpu = digest_trace(trace, at::kCPU, {}, 10);
  EXPECT_EQ(cpu["operations"][0]["name"], "outer");
  EXPECT_DOUBLE_EQ(cpu["operations"][0]["seconds"], 80e-6);
  EXPECT_EQ(cpu["memory"]["peak_bytes"], 17);
}

TEST(Profile, ChangesNoLossAndIsLeftOutOfTheTiming) {
  Config config = profiled_config("flash");
  const json with = read(train(config, {"train"}).folder / "summary.json");
  config.profile = 0;
  config.run_id += "_without";
  const json without = read(train(config, {"train"}).folder / "summary.json");
  EXPECT_EQ(with.at("results").at("final_loss"), without.at("results").at("final_loss"));
  EXPECT_EQ(with.at("budget").at("measured_steps"), 3);
  EXPECT_EQ(without.at("budget").at("measured_steps"), 5);
}

TEST(Profile, PlainAttentionIsCountedUnderTheSameMask) {
  Config config = profiled_config("flex");
  config.mask = "auto";  // with flex: causal & document
  const json fused = read(train(config, {"train"}).folder / "profile.json").at("row");
  config = profiled_config("vanilla");
  config.mask = "causal & document";
  const json plain = read(train(config, {"train"}).folder / "profile.json").at("row");
  EXPECT_EQ(fused.at("vanilla").at("operations"), plain.at("own").at("operations"));
}

TEST(Profile, NeedsStepsToRecord) {
  Config config = profiled_config("flash");
  config.profile = 9;
  try {
    train(config, {"train"});
    FAIL() << "nothing was refused";
  } catch (const std::invalid_argument& error) {
    EXPECT_NE(std::string(error.what()).find("need a run of 10, this one has 6"), std::string::npos)
        << error.what();
  }
  EXPECT_FALSE(fs::exists(fs::path(config.runs_dir) / config.run_id));
}

}  // namespace
}  // namespace nanoflex
