// Whole training runs of about a second, on the Python reference's fixture.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "trainer/train.h"

namespace nanoflex {

std::filesystem::path fixture(const std::string& name);
nlohmann::json read_json(const std::filesystem::path& file);

/// A name below the temporary folder that nothing has yet; removed when the process ends.
std::filesystem::path fresh_folder();

/// The model, data and rates of the Python reference's fixture, in a fresh runs_dir.
Config reference_config();

/// The lines of a run's metrics.jsonl that are whole; none when there is no such file.
std::vector<nlohmann::json> metrics_of(const std::filesystem::path& run);

/// The losses that a run's metrics hold.
std::vector<double> losses(const std::filesystem::path& run);

/// What a run with this config is refused with, or "accepted".
std::string rejection(const Config& config);

/// Sends the signal to this process once the run that the config names has taken three steps.
std::jthread interrupt_after_three_steps(const Config& config, int signal);

/// 8 steps with a checkpoint at 6, and one at the end; its id is "run".
Config eight_steps();

using Arguments = std::vector<std::string>;

/// As `./train --resume RUN ARGUMENTS` does.
TrainResult resume(const std::filesystem::path& run, Arguments arguments = {});

/// What that is refused with, or "accepted".
std::string refusal(const std::filesystem::path& run, const Arguments& arguments = {});

bool has(const std::string& text, const std::string& part);
std::string bytes(const std::filesystem::path& file);

/// Everything that a run's metrics hold of each step but how long it took and its memory.
std::vector<nlohmann::json> steps(const std::filesystem::path& run);

}  // namespace nanoflex
