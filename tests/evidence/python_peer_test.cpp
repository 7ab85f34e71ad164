#include "evidence/python_peer.h"

#include <gtest/gtest.h>

namespace nanoflex {
namespace {

TEST(PythonPeer, SaysWhatToNameWhenItFails) {
  try {
    time_python("/bin/false", "float32", 1);
    FAIL() << "nothing was refused";
  } catch (const std::runtime_error& error) {
    EXPECT_NE(std::string(error.what()).find("--python must name a Python that has torch"),
              std::string::npos);
  }
}

}  // namespace
}  // namespace nanoflex
