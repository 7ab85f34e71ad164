// What the rows of every bench must hold.
#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>

namespace nanoflex {

inline void expect_complete(const nlohmann::ordered_json& bench) {
  EXPECT_TRUE(bench.contains("machine"));
  EXPECT_GT(bench.at("gemm_tflops").get<double>(), 0);
  ASSERT_FALSE(bench.at("rows").empty());
  for (const auto& row : bench.at("rows")) {
    for (const char* key : {"case", "backend", "pass", "device", "dtype"}) {
      EXPECT_FALSE(row.at(key).get<std::string>().empty()) << row;
    }
    if (row.contains("skipped")) {
      EXPECT_FALSE(row.at("skipped").get<std::string>().empty());
      continue;
    }
    EXPECT_TRUE(row.at("median_ms").get<double>() > 0) << row;
    EXPECT_TRUE(row.at("spread").get<double>() >= 0) << row;
    EXPECT_TRUE(row.at("peak_bytes").get<int64_t>() > 0) << row;
    EXPECT_FALSE(row.at("ratios").empty()) << row;
    for (const auto& [peer, ratio] : row.at("ratios").items()) {
      EXPECT_TRUE(ratio.get<double>() > 0) << row;
      const auto& range = row.at("ratio_ranges").at(peer);
      EXPECT_TRUE(range.at(0).get<double>() <= range.at(1).get<double>()) << row;
    }
  }
}

/// The values of a key, each once; of the rows that were not skipped unless it is their reason.
inline std::set<std::string> values_of(const nlohmann::ordered_json& bench,
                                       const std::string& key) {
  std::set<std::string> values;
  for (const auto& row : bench.at("rows")) {
    if (row.contains(key)) values.insert(row.at(key).get<std::string>());
  }
  return values;
}

inline size_t count_of(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

/// Whether figures of others come behind a line that says whose they are, in a table of their own.
inline bool marks_published(const std::string& page, const std::string& figure) {
  const size_t mark = page.find("Published by others, not measured here:");
  const size_t found = page.find("| " + figure + " |");
  return mark != std::string::npos && found != std::string::npos && mark < found;
}

}  // namespace nanoflex
