#include "evidence/python_peer.h"

#include <ATen/Parallel.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "evidence/measure.h"
#include "trainer/markdown.h"
#include "trainer/resolve.h"
#include "trainer/text.h"

namespace nanoflex {
using nlohmann::ordered_json;

namespace {

std::string how_it_ended(int status) {
  if (WIFSIGNALED(status)) return "signal " + std::to_string(WTERMSIG(status));
  return "exit code " + std::to_string(WEXITSTATUS(status));
}

}  // namespace

const char* const kPythonHint = "--python must name a Python that has torch";

TimedRun time_command(const std::vector<std::string>& command, const std::string& hint) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point begin = Clock::now();
  int ends[2];
  if (pipe(ends) != 0) {
    throw std::runtime_error(std::string("[bench] cannot make a pipe: ") + std::strerror(errno));
  }
  const pid_t child = fork();
  if (child == 0) {  // its errors go to ours
    dup2(ends[1], STDOUT_FILENO);
    close(ends[0]), close(ends[1]);
    std::vector<char*> arguments;
    for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
  close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t size; (size = read(ends[0], buffer, sizeof(buffer))) > 0;) text.append(buffer, size);
  close(ends[0]);
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status) ||
      WEXITSTATUS(status) != 0) {
    throw std::runtime_error("[bench] '" + command[0] + " " + command.at(1) + "' failed (" +
                             how_it_ended(status) + "); " + hint);
  }
  return {std::chrono::duration<double>(Clock::now() - begin).count(), text};
}

std::vector<std::string> python_command(const std::string& python, const std::string& peer,
                                        const std::string& dtype, int64_t count) {
  const auto script = source_dir() / "scripts" / "peers" / (peer + ".py");
  return {python, script.string(), dtype, std::to_string(count),
          std::to_string(at::get_num_threads())};
}

ordered_json time_python(const std::string& python, const std::string& peer,
                         const std::string& dtype, int64_t repeat) {
  return ordered_json::parse(
      time_command(python_command(python, peer, dtype, repeat), kPythonHint).output);
}

std::string python_markdown(const ordered_json& python, const std::string& backend,
                            const std::vector<PythonRow>& rows) {
  Table table = {{c10::str("PyTorch ", python.at("torch").get<std::string>(), ", ",
                           python.at("dtype").get<std::string>()),
                  "ms", backend + " is faster"}};
  for (const PythonRow& row : rows) {
    const ordered_json& timed = python.at(row.key);
    if (timed.contains("error")) {
      table.push_back({row.what, timed.at("error"), ""});
    } else {
      const double ms = summarise(timed.at("ms").get<std::vector<double>>()).median_ms;
      table.push_back({row.what, fixed(ms, ms < 100 ? 1 : 0), fixed(ms / row.our_ms, 2) + "x"});
    }
  }
  return "\n" + markdown_table(table, 1) +
         "\nPyTorch ran after what stands above, not in turn with it.\n";
}

}  // namespace nanoflex
