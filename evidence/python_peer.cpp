#include "evidence/python_peer.h"

#include <ATen/Parallel.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <stdexcept>
#include <thread>

#include "evidence/rows.h"
#include "trainer/markdown.h"
#include "trainer/resolve.h"
#include "trainer/text.h"

namespace nanoflex {
namespace {

using nlohmann::ordered_json;

std::string how_it_ended(int status) {
  if (WIFSIGNALED(status)) return "signal " + std::to_string(WTERMSIG(status));
  return "exit code " + std::to_string(WEXITSTATUS(status));
}

[[noreturn]] void fail_to(const std::string& what) {
  throw std::runtime_error("[bench] cannot " + what + ": " + std::strerror(errno));
}

// Its errors go to ours. `input`: -1 for our own.
pid_t start(const std::vector<std::string>& command, int input, int output) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const pid_t child = fork();
  if (child < 0) fail_to("start '" + command[0] + "'");
  if (child > 0) return child;
  if (input >= 0) dup2(input, STDIN_FILENO);
  dup2(output, STDOUT_FILENO);
  execvp(arguments[0], arguments.data());
  _exit(127);
}

}  // namespace

const char* const kPythonHint = "--python must name a Python that has torch";

PythonPeer::PythonPeer(const std::string& python, const std::string& peer, const std::string& dtype)
    : name_(peer + ".py") {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) fail_to("make a socket");
  socket_ = ends[0];
  process_ = start(python_command(python, peer, {dtype}), ends[1], ends[1]);
  close(ends[1]);
  const std::string greeting = answer();
  record_ = ordered_json::parse(greeting, nullptr, /*allow_exceptions=*/false);
  if (record_.is_object()) return;
  end(SIGTERM);
  throw std::runtime_error("[bench] '" + name_ + "' answered '" + printable(greeting) +
                           "', which is no JSON; " + kPythonHint);
}

PythonPeer::~PythonPeer() { end(0); }

int PythonPeer::end(int signal) {
  int status = 0;
  if (process_ < 0) return status;
  close(socket_);  // which ends it, too
  if (signal != 0) kill(process_, signal);
  waitpid(process_, &status, 0);
  process_ = -1;
  return status;
}

std::string PythonPeer::answer() {
  size_t length = 0;
  while ((length = unread_.find('\n')) == std::string::npos) {
    char buffer[4096];
    const ssize_t size = read(socket_, buffer, sizeof(buffer));
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) {
      throw std::runtime_error("[bench] '" + name_ + "' failed (" + how_it_ended(end(0)) + "); " +
                               kPythonHint);
    }
    unread_.append(buffer, size);
  }
  const std::string line = unread_.substr(0, length);
  unread_.erase(0, length + 1);
  return line;
}

bool PythonPeer::can_run(const std::string& name) const {
  return record_.contains(name) && record_.at(name).is_null();
}

Contender PythonPeer::contender(const std::string& name) {
  // Threads of OpenMP spin a while after their work: each side's before the other's time begins.
  const auto pause = [] { std::this_thread::sleep_for(std::chrono::milliseconds(30)); };
  return {.name = name, .run = {}, .timed = [this, name, pause] {
            pause();
            const std::string line = name + "\n";
            send(socket_, line.data(), line.size(), MSG_NOSIGNAL);  // if it is gone, answer() tells
            const double ms = std::stod(answer());
            pause();
            return ms;
          }};
}

void PythonPeer::add(const std::string& name, const Measured& measured, const Measured& own) {
  const Ratio ratio = times_faster(own, measured);
  record_[name] = {{"ms", measured.repeats_ms},
                   {"faster", {{"value", ratio.value}, {"range", {ratio.low, ratio.high}}}}};
}

std::string python_markdown(const ordered_json& record, const std::string& backend,
                            const std::vector<PythonRow>& rows) {
  Table table = {{c10::str("PyTorch ", record.at("torch").get<std::string>(), ", ",
                           record.at("dtype").get<std::string>()),
                  "ms", backend + " is faster"}};
  for (const auto& [name, what] : rows) {
    const ordered_json& call = record.at(name);
    if (call.contains("error")) {
      table.push_back({what, call.at("error"), "-"});
      continue;
    }
    const double ms = summarise(call.at("ms").get<std::vector<double>>()).median_ms;
    const ordered_json& faster = call.at("faster");
    table.push_back({what, fixed(ms, ms < 100 ? 1 : 0),
                     ratio_text(Ratio{faster.at("value"), faster.at("range").at(0),
                                      faster.at("range").at(1)})});
  }
  return "\nPyTorch, a process of its own, in turn with what stands above:\n\n" +
         markdown_table(table, 1);
}

TimedRun time_command(const std::vector<std::string>& command, const std::string& hint) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point begin = Clock::now();
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) fail_to("make a pipe");
  const pid_t child = start(command, -1, ends[1]);
  close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t size; (size = read(ends[0], buffer, sizeof(buffer))) > 0;) text.append(buffer, size);
  close(ends[0]);
  int status = 0;
  if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    throw std::runtime_error("[bench] '" + command[0] + " " + command.at(1) + "' failed (" +
                             how_it_ended(status) + "); " + hint);
  }
  return {std::chrono::duration<double>(Clock::now() - begin).count(), text};
}

std::vector<std::string> python_command(const std::string& python, const std::string& peer,
                                        const std::vector<std::string>& arguments) {
  std::vector<std::string> command = {
      python, (source_dir() / "scripts" / "peers" / (peer + ".py")).string()};
  command.insert(command.end(), arguments.begin(), arguments.end());
  command.push_back(std::to_string(at::get_num_threads()));
  return command;
}

}  // namespace nanoflex
