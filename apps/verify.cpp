// ./verify attention: one attention call on tensors from a file, to hold against another library.
// ./verify --suite: a whole model under every backend against plain tensors.
#include <cxxopts.hpp>
#include <iostream>
#include <stdexcept>

#include "evidence/verify_attention.h"
#include "evidence/verify_model.h"
#include "trainer/command_line.h"
#include "trainer/machine.h"
#include "trainer/run_folder.h"

namespace {

using namespace nanoflex;

cxxopts::Options make_options() {
  cxxopts::Options options("verify",
                           "attention: reads q, k, v (perhaps do, and captured tensors) and writes "
                           "o, logsumexp, dq, dk, dv.\n--suite: a model under every backend "
                           "against plain tensors, a line a check.\n");
  options.positional_help("[attention]");
  options.add_options()("what", "attention: one call on tensors from a file",
                        cxxopts::value<std::string>())(
      "tensors", ".safetensors with q [B, H, T, D], k, v [B, H_kv, S, D]",
      cxxopts::value<std::string>(),
      "FILE")("out", ".safetensors to write", cxxopts::value<std::string>(), "FILE")(
      "mask", "who attends to whom", cxxopts::value<std::string>()->default_value("full"))(
      "score", "how a scaled score changes, such as softcap(20) or score + slope[h] * (kv - q)",
      cxxopts::value<std::string>()->default_value(""))("scale", "of q k^T; else 1 / sqrt(D)",
                                                        cxxopts::value<std::string>())(
      "backend", "auto or one of ./train's --attention",
      cxxopts::value<std::string>()->default_value("auto"))(
      "device", "cpu, cuda or cuda:N", cxxopts::value<std::string>()->default_value("cpu"))(
      "help", "show this and stop");
  options.add_options("suite")("suite", "forward, decoding, gradients and training")(
      "model", "standard or deep", cxxopts::value<std::string>()->default_value("standard"))(
      "dtype", "float32 or bfloat16", cxxopts::value<std::string>()->default_value("float32"))(
      "run-id", "name of the record; else YYYYMMDD_HHMMSS",
      cxxopts::value<std::string>()->default_value(""))(
      "runs-dir", "folder that holds the records",
      cxxopts::value<std::string>()->default_value("runs"))("json", "print the checks as JSON");
  options.parse_positional({"what"});
  return options;
}

std::string required(const cxxopts::ParseResult& flags, const std::string& name) {
  if (flags.count(name)) return flags[name].as<std::string>();
  throw std::invalid_argument("[verify] --" + name + " is missing; see --help");
}

// A folder is claimed before the work, so that a bad name does not come after it.
std::vector<ModelCheck> suite_into(const ClaimedFolder& folder,
                                   const VerifyModelOptions& options) try {
  return verify_suite(options);
} catch (...) {
  std::error_code ignored;
  std::filesystem::remove(folder.path, ignored);  // which takes it only if it is empty
  throw;
}

int run_suite(const cxxopts::ParseResult& flags) {
  const std::string dtype = flags["dtype"].as<std::string>();
  if (dtype != "float32" && dtype != "bfloat16") {
    throw std::invalid_argument("[verify] --dtype must be float32 or bfloat16, is '" + dtype + "'");
  }
  const at::Device device = choose_device(flags["device"].as<std::string>());
  const VerifyModelOptions options = {.model = flags["model"].as<std::string>(),
                                      .device = device,
                                      .dtype = choose_dtype(dtype, device)};
  const ClaimedFolder folder =
      claim_folder(flags["runs-dir"].as<std::string>(), flags["run-id"].as<std::string>());
  const auto checks = suite_into(folder, options);
  const auto record = to_json(checks, options);
  write_file(folder.path / "verify.json", record.dump(2) + "\n");
  write_file(folder.path / "verify.md", to_markdown(checks));
  std::cout << (flags.count("json") > 0 ? record.dump(2) + "\n" : to_markdown(checks));
  std::cerr << "record: " << folder.path.string() << "\n";
  return record.at("passed").get<bool>() ? 0 : 1;
}

// A flag that would do nothing is a mistake.
void refuse(const cxxopts::ParseResult& flags, const std::vector<std::string>& names,
            const std::string& owner) {
  for (const std::string& name : names) {
    if (flags.count(name) == 0) continue;
    throw std::invalid_argument("[verify] --" + name + " is a flag of ./verify " + owner);
  }
}

int verify(const cxxopts::ParseResult& flags) {
  const std::string what = flags.count("what") ? flags["what"].as<std::string>() : "";
  if (flags.count("suite") > 0 && what.empty() && flags.unmatched().empty()) {
    refuse(flags, {"tensors", "out", "mask", "score", "scale", "backend"}, "attention");
    return run_suite(flags);
  }
  if (what != "attention" || !flags.unmatched().empty()) {
    throw std::invalid_argument(
        "[verify] say what to verify: ./verify --suite, or ./verify attention --tensors FILE --out "
        "FILE; is '" +
        (flags.unmatched().empty() ? what : flags.unmatched().front()) + "'");
  }
  refuse(flags, {"suite", "model", "dtype", "run-id", "runs-dir", "json"}, "--suite");
  VerifyAttentionOptions options{.tensors = required(flags, "tensors"),
                                 .out = required(flags, "out"),
                                 .mask = flags["mask"].as<std::string>(),
                                 .score = flags["score"].as<std::string>(),
                                 .backend = flags["backend"].as<std::string>(),
                                 .device = flags["device"].as<std::string>()};
  if (flags.count("scale"))
    options.scale = real_number("verify", "scale", flags["scale"].as<std::string>());
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
