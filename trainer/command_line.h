#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "trainer/config.h"
#include "trainer/resume.h"

namespace nanoflex {

/// What a command line of ./train asks for.
struct TrainCommand {
  Config config;
  std::optional<ResumePoint> resume;  ///< go on from there
  std::optional<std::string> print;   ///< print this and stop (--help, --print-config)
};

/// defaults < --config FILE (else configs/baseline.yaml) < flags and --set section.key=value.
/// With --resume RUN: its own config < --config FILE < flags, where changes are allowed.
/// Throws std::invalid_argument naming the flag and the nearest valid one.
TrainCommand parse_train_command(const std::vector<std::string>& arguments);

/// What a flag's text says as a number. Throws std::invalid_argument, naming the flag, for text
/// that is none or out of range.
int64_t whole_number(const std::string& part, const std::string& flag, const std::string& text,
                     int64_t least);
double real_number(const std::string& part, const std::string& flag, const std::string& text);

/// Runs a program's body and turns what it throws into one line on stderr and an exit code: 2 for
/// std::invalid_argument, flags that do not parse and files that cannot be looked at, which the
/// user can mend, 1 for anything else.
int run_program(const std::function<int()>& body);

}  // namespace nanoflex
