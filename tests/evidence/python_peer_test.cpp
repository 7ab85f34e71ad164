#include "evidence/python_peer.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace nanoflex {
namespace {

namespace fs = std::filesystem;

/// A program that answers as scripts/peers/serving.py does, whatever it is told to run.
std::string program(const std::string& name, const std::string& answers) {
  const fs::path file = fs::temp_directory_path() / ("nanoflex_peer_" + name);
  std::ofstream(file) << "#!/bin/sh\n" << answers;
  fs::permissions(file, fs::perms::owner_all);
  return file.string();
}

std::string refusal(const std::function<void()>& body) {
  try {
    body();
    return "accepted";
  } catch (const std::runtime_error& error) {
    return error.what();
  }
}

TEST(PythonPeer, RunsWhatItIsToldInTurnAndStandsBesideOurTimes) {
  const std::string python =
      program("turns",
              "echo '{\"torch\": \"2.11\", \"dtype\": \"'$2'\", \"a\": null,"
              " \"b\": {\"error\": \"no g++\"}}'\n"
              "for ms in 1000 1000 20 30 10; do read name; [ \"$name\" = a ] && echo $ms; done\n");
  PythonPeer peer(python, "section_a_step", "float32");
  EXPECT_TRUE(peer.can_run("a"));
  EXPECT_FALSE(peer.can_run("b") || peer.can_run("c"));
  int runs = 0;
  const auto measured =
      measure({{"own", [&] { ++runs; }}, peer.contender("a")}, {.repeat = 3, .shortest_ms = 0});
  EXPECT_EQ(runs, 5);
  EXPECT_EQ(measured[1].repeats_ms, (std::vector<double>{20, 30, 10}));
  peer.add("a", measured[1], summarise({5, 10, 10}));
  EXPECT_EQ(python_markdown(peer.record(), "flex", {{"a", "forward"}, {"b", "mask"}}),
            "\nPyTorch, a process of its own, in turn with what stands above:\n\n"
            "| PyTorch 2.11, float32 | ms | flex is faster |\n|---|---:|---:|\n"
            "| forward | 20.0 | 2.00x |\n| mask | no g++ | - |\n");
}

TEST(PythonPeer, SaysWhatToNameWhenItFails) {
  EXPECT_EQ(refusal([] { PythonPeer("/bin/false", "section_a_step", "float32"); }),
            "[bench] 'section_a_step.py' failed (exit code 1); --python must name a Python that "
            "has torch");
  EXPECT_EQ(refusal([] { PythonPeer(program("junk", "echo hello; sleep 60"), "x", "float32"); }),
            "[bench] 'x.py' answered 'hello', which is no JSON; --python must name a Python that "
            "has torch");
  PythonPeer peer(program("ends", "echo '{\"a\": null}'; read name; exit 7"), "section_a_step",
                  "float32");
  EXPECT_EQ(refusal([&] { peer.contender("a").timed(); }),
            "[bench] 'section_a_step.py' failed (exit code 7); --python must name a Python that "
            "has torch");
}

}  // namespace
}  // namespace nanoflex
