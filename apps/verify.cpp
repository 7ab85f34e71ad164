// ./verify attention: one attention call on tensors from a file, to hold against another library.
#include <cxxopts.hpp>
#include <iostream>
#include <stdexcept>

#include "evidence/verify_attention.h"
#include "trainer/command_line.h"

namespace {

using namespace nanoflex;

cxxopts::Options make_options() {
  cxxopts::Options options("verify",
                           "Reads q, k, v (perhaps do, and captured tensors) and writes o, "
                           "logsumexp, dq, dk, dv.\n");
  options.positional_help("attention");
  options.add_options()("what", "attention: one call on tensors from a file",
                        cxxopts::value<std::string>())(
      "tensors", ".safetensors with q [B, H, T, D], k, v [B, H_kv, S, D]",
      cxxopts::value<std::string>(),
      "FILE")("out", ".safetensors to write", cxxopts::value<std::string>(), "FILE")(
      "mask", "who attends to whom", cxxopts::value<std::string>()->default_value("full"))(
      "score", "how a scaled score changes, such as softcap(20) or score + slope[h] * (kv - q)",
      cxxopts::value<std::string>()->default_value(""))("scale", "of q k^T; else 1 / sqrt(D)",
                                                        cxxopts::value<double>())(
      "backend", "auto or one of ./train's --attention",
      cxxopts::value<std::string>()->default_value("auto"))(
      "device", "cpu, cuda or cuda:N", cxxopts::value<std::string>()->default_value("cpu"))(
      "help", "show this and stop");
  options.parse_positional({"what"});
  return options;
}

std::string required(const cxxopts::ParseResult& flags, const std::string& name) {
  if (flags.count(name)) return flags[name].as<std::string>();
  throw std::invalid_argument("[verify] --" + name + " is missing; see --help");
}

int verify(const cxxopts::ParseResult& flags) {
  const std::string what = flags.count("what") ? flags["what"].as<std::string>() : "";
  if (what != "attention" || !flags.unmatched().empty()) {
    throw std::invalid_argument(
        "[verify] say what to verify: ./verify attention --tensors FILE --out FILE; is '" +
        (flags.unmatched().empty() ? what : flags.unmatched().front()) + "'");
  }
  VerifyAttentionOptions options{.tensors = required(flags, "tensors"),
                                 .out = required(flags, "out"),
                                 .mask = flags["mask"].as<std::string>(),
                                 .score = flags["score"].as<std::string>(),
                                 .backend = flags["backend"].as<std::string>(),
                                 .device = flags["device"].as<std::string>()};
  if (flags.count("scale")) options.scale = flags["scale"].as<double>();
  std::cout << verify_attention(options) << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    cxxopts::Options options = make_options();
    const auto flags = options.parse(argc, argv);
    if (flags.count("help")) {
      std::cout << options.help();
      return 0;
    }
    return verify(flags);
  });
}
