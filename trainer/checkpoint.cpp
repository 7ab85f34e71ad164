#include "trainer/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <set>
#include <sstream>
#include <stdexcept>

#include "data/atomic_file.h"
#include "model/durable.h"
#include "model/safetensors.h"
#include "model/weights.h"
#include "trainer/record_file.h"

namespace nanoflex {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr char kFormat[] = "nanoflex checkpoint 2";
constexpr char kPrefix[] = "step_";
constexpr size_t kKept = 2;

fs::path below(const fs::path& run) { return run / "checkpoint"; }

// Of JSON, so that where its white space stands does not matter.
uint32_t sum_of(const json& state) {
  const std::string text = state.dump();
  return crc32c(0, text.data(), text.size());
}

FileSum write_text(const fs::path& file, const std::string& text) {
  data::write_atomically(file, text);
  return {text.size(), crc32c(0, text.data(), text.size())};
}

void write_files(const fs::path& folder, const CheckpointState& state,
                 const CheckpointContents& contents) {
  json files;
  const auto note = [&](const char* name, const FileSum& sum) {
    files[name] = {{"bytes", sum.bytes}, {"crc32c", sum.crc32c}};
  };
  note("model.safetensors", save_weights(contents.model, folder / "model.safetensors"));
  note("training.safetensors",
       write_safetensors(folder / "training.safetensors", contents.training));
  note("config.yaml", write_text(folder / "config.yaml", to_yaml(contents.config)));
  json text = {{"format", kFormat},        {"run_id", state.run_id},
               {"step", state.step},       {"elapsed_seconds", state.elapsed_seconds},
               {"loader", state.loader},   {"measurement", state.measurement},
               {"files", std::move(files)}};
  text["crc32c"] = sum_of(text);
  write_text(folder / "state.json", text.dump(1) + "\n");
  flush_to_disk(folder);
}

void keep_tokenizer(const fs::path& run, const fs::path& tokenizer) {
  const fs::path target = below(run) / "tokenizer.model", temporary = target.string() + ".tmp";
  if (fs::exists(target) && fs::file_size(target) > 0) return;
  fs::copy_file(tokenizer, temporary, fs::copy_options::overwrite_existing);
  flush_to_disk(temporary);
  fs::rename(temporary, target);
}

// A second name for the weights where the file system has such, else a copy.
void publish_weights(const fs::path& run, int64_t step) {
  const fs::path source = checkpoint_folder(run, step) / "model.safetensors";
  const fs::path target = below(run) / "model.safetensors", temporary = target.string() + ".tmp";
  std::error_code error;
  if (fs::equivalent(source, target, error)) return;
  fs::remove(temporary, error);
  fs::create_hard_link(source, temporary, error);
  if (error) fs::copy_file(source, temporary);
  fs::rename(temporary, target);
  flush_to_disk(below(run));
}

// Under a name that is no checkpoint's from its first file on.
void remove_checkpoint(const fs::path& run, int64_t step) {
  const fs::path folder = checkpoint_folder(run, step), gone = below(run) / ".removed";
  fs::remove_all(gone);
  fs::rename(folder, gone);
  fs::remove_all(gone);
}

void remove_older(const fs::path& run) {
  const std::vector<int64_t> steps = checkpoint_steps(run);
  for (size_t i = 0; i + kKept < steps.size(); ++i) remove_checkpoint(run, steps[i]);
}

json read_state(const fs::path& file) try {
  return parse_record(file);
} catch (const json::exception&) {
  return {};
} catch (const std::invalid_argument& problem) {
  throw std::invalid_argument(std::string("state.json is not a checkpoint's: ") + problem.what());
}

json parse_state(const fs::path& folder) {
  const fs::path file = folder / "state.json";
  std::error_code error;
  if (!fs::is_regular_file(file, error)) throw std::invalid_argument("state.json is missing");
  json state = read_state(file);
  if (!state.is_object() || !state.contains("crc32c")) {
    throw std::invalid_argument("state.json is not a checkpoint's");
  }
  const json sum = state["crc32c"];
  state.erase("crc32c");
  if (sum != sum_of(state))
    throw std::invalid_argument("state.json has changed since it was saved");
  if (state.value("format", "") != kFormat) {
    throw std::invalid_argument("state.json is not of format '" + std::string(kFormat) + "'");
  }
  return state;
}

void verify_file(const fs::path& file, const json& saved) {
  const std::string name = file.filename().string();
  if (!fs::is_regular_file(file)) throw std::invalid_argument(name + " is missing");
  const FileSum sum = sum_file(file), expected{saved.at("bytes"), saved.at("crc32c")};
  if (sum.bytes != expected.bytes) {
    throw std::invalid_argument(name + " has " + std::to_string(sum.bytes) +
                                " bytes, was saved with " + std::to_string(expected.bytes));
  }
  if (sum != expected) throw std::invalid_argument(name + " has changed since it was saved");
}

}  // namespace

fs::path checkpoint_folder(const fs::path& run, int64_t step) {
  char name[64];
  std::snprintf(name, sizeof name, "%s%08lld", kPrefix, static_cast<long long>(step));
  return below(run) / name;
}

std::vector<int64_t> checkpoint_steps(const fs::path& run) {
  std::set<int64_t> steps;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(below(run), error)) {
    const std::string name = entry.path().filename().string();
    int64_t step = 0;
    if (!name.starts_with(kPrefix)) continue;
    std::from_chars(name.data() + sizeof kPrefix - 1, name.data() + name.size(), step);
    if (step > 0 && checkpoint_folder(run, step).filename() == name) steps.insert(step);
  }
  return {steps.begin(), steps.end()};
}

void write_checkpoint(const fs::path& run, const CheckpointState& state,
                      const CheckpointContents& contents) {
  const fs::path temporary = below(run) / ".saving";
  try {
    fs::remove_all(temporary);
    fs::create_directory(temporary);
    write_files(temporary, state, contents);
    if (!contents.tokenizer.empty()) keep_tokenizer(run, contents.tokenizer);
    fs::rename(temporary, checkpoint_folder(run, state.step));
    publish_weights(run, state.step);
  } catch (const std::exception& problem) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    for (const char* name : {"model.safetensors.tmp", "tokenizer.model.tmp"}) {
      fs::remove(below(run) / name, ignored);
    }
    const std::vector<int64_t> steps = checkpoint_steps(run);
    std::ostringstream text;
    text << "[checkpoint] cannot save step " << state.step << ": " << problem.what();
    if (!steps.empty()) {
      text << "; the checkpoint of step " << steps.back() << " stands: make room, then --resume "
           << run.string();
    }
    throw std::invalid_argument(text.str());
  }
  remove_older(run);
}

CheckpointState verify_checkpoint(const fs::path& folder) try {
  const json state = parse_state(folder);
  for (const char* name : {"model.safetensors", "training.safetensors", "config.yaml"}) {
    verify_file(folder / name, state.at("files").at(name));
  }
  CheckpointState result{.run_id = state.at("run_id"),
                         .step = state.at("step"),
                         .elapsed_seconds = state.at("elapsed_seconds"),
                         .loader = state.at("loader"),
                         .measurement = state.at("measurement")};
  if (checkpoint_folder("", result.step).filename() != folder.filename()) {
    throw std::invalid_argument("it is of step " + std::to_string(result.step));
  }
  return result;
} catch (const json::exception&) {
  throw std::invalid_argument("state.json lacks a field");
}

void rewind_checkpoints(const fs::path& run, int64_t step) {
  publish_weights(run, step);
  const std::vector<int64_t> steps = checkpoint_steps(run);
  for (auto later = steps.rbegin(); later != steps.rend() && *later > step; ++later) {
    remove_checkpoint(run, *later);
  }
  remove_older(run);
  fs::remove_all(below(run) / ".saving");
  fs::remove_all(below(run) / ".removed");
}

}  // namespace nanoflex
