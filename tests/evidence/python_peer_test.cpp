#include "evidence/python_peer.h"

#include <gtest/gtest.h>

namespace nanoflex {
namespace {

TEST(PythonPeer, SaysWhatToNameWhenItFails) {
  try {
    time_python("/bin/false", "section_a_step", "float32", 1);
    FAIL() << "nothing was refused";
  } catch (const std::runtime_error& error) {
    EXPECT_NE(std::string(error.what()).find("--python must name a Python that has torch"),
              std::string::npos);
  }
}

TEST(PythonPeer, StandsBesideOurTimesAndSaysWhatDidNotRun) {
  const auto python = nlohmann::ordered_json::parse(
      R"({"torch": "2.11", "dtype": "float32", "a": {"ms": [30, 10, 20]}, "b": {"error": "no g++"}})");
  EXPECT_EQ(python_markdown(python, "flex", {{"a", "forward", 8}, {"b", "mask", 1}}),
            "\n| PyTorch 2.11, float32 | ms | flex is faster |\n|---|---:|---:|\n"
            "| forward | 20.0 | 2.50x |\n| mask | no g++ |  |\n"
            "\nPyTorch ran after what stands above, not in turn with it.\n");
}

}  // namespace
}  // namespace nanoflex
