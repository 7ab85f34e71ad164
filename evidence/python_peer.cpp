#include "evidence/python_peer.h"

#include <ATen/Parallel.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "evidence/passes.h"
#include "trainer/train.h"

namespace nanoflex {
namespace {

using nlohmann::ordered_json;

double median_of(std::vector<double> times) {
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

}  // namespace

const char* const kPythonHint = "--python must name a Python that has torch";

TimedRun time_command(const std::vector<std::string>& command, const std::string& hint) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point begin = Clock::now();
  int ends[2];
  if (pipe(ends) != 0) throw std::runtime_error("[bench] cannot make a pipe");
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
    throw std::runtime_error("[bench] '" + command[0] + " " + command.at(1) + "' failed" + "; " +
                             hint);
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
  std::ostringstream page;
  page << "\n| PyTorch " << python.at("torch").get<std::string>() << ", "
       << python.at("dtype").get<std::string>() << " | ms | " << backend << " is faster |\n"
       << "|---|---:|---:|\n";
  for (const PythonRow& row : rows) {
    const ordered_json& timed = python.at(row.key);
    page << "| " << row.what << " | ";
    if (timed.contains("error")) {
      page << timed.at("error").get<std::string>() << " | |\n";
    } else {
      const double ms = median_of(timed.at("ms").get<std::vector<double>>());
      page << fixed(ms, ms < 100 ? 1 : 0) << " | " << fixed(ms / row.our_ms, 2) << "x |\n";
    }
  }
  page << "\nPyTorch ran after what stands above, not in turn with it.\n";
  return page.str();
}

}  // namespace nanoflex
