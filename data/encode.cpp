#include "data/encode.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <string_view>
#include <thread>

namespace nanoflex::data {

namespace {

constexpr size_t kPartBytes = 2000;

struct Part {
  size_t document;
  std::string_view text;
  std::vector<int32_t> ids;
};

// What the encoding threads and the one that reports share.
struct Progress {
  std::atomic<size_t> next_part = 0, bytes = 0;
  std::mutex mutex;
  std::condition_variable finished;
  size_t working = 0;
  std::exception_ptr error;
};

void encode_parts(const Tokenizer& tokenizer, std::vector<Part>& parts, Progress& progress) {
  std::exception_ptr error;
  try {
    for (size_t i = progress.next_part++; i < parts.size(); i = progress.next_part++) {
      parts[i].ids = tokenizer.encode(parts[i].text);
      progress.bytes += parts[i].text.size();
    }
  } catch (...) {
    error = std::current_exception();
    progress.next_part = parts.size();
  }
  const std::lock_guard lock(progress.mutex);
  if (error) progress.error = error;
  --progress.working;
  progress.finished.notify_one();
}

void report_until_done(Progress& progress, size_t total,
                       const std::function<void(const std::string&)>& log) {
  auto pause = std::chrono::seconds(1);
  std::unique_lock lock(progress.mutex);
  while (!progress.finished.wait_for(lock, pause, [&] { return progress.working == 0; })) {
    const size_t percent = 100 * progress.bytes / std::max<size_t>(total, 1);
    if (log) {
      log("[data] encoded " + std::to_string(percent) + " % of " + std::to_string(total >> 20) +
          " MiB of text");
    }
    pause = std::chrono::seconds(3);
  }
}

}  // namespace

std::vector<std::vector<int32_t>> encode_documents(
    const Tokenizer& tokenizer, int64_t bos_id, const std::vector<std::string>& documents,
    const std::function<void(const std::string&)>& log) {
  std::vector<Part> parts;
  size_t total = 0;
  for (size_t i = 0; i < documents.size(); ++i) {
    total += documents[i].size();
    for (const auto text : tokenizer.parts(documents[i], kPartBytes))
      parts.push_back({i, text, {}});
  }
  Progress progress;
  const size_t cores = std::max(1u, std::thread::hardware_concurrency());
  progress.working = std::min(cores, parts.size());
  {
    std::vector<std::jthread> threads;
    for (size_t i = 0, count = progress.working; i < count; ++i) {
      threads.emplace_back([&] { encode_parts(tokenizer, parts, progress); });
    }
    report_until_done(progress, total, log);
  }
  if (progress.error) std::rethrow_exception(progress.error);

  std::vector<std::vector<int32_t>> encoded(documents.size(), {static_cast<int32_t>(bos_id)});
  for (Part& part : parts) {
    auto& ids = encoded[part.document];
    ids.insert(ids.end(), part.ids.begin(), part.ids.end());
    part.ids = {};
  }
  return encoded;
}

}  // namespace nanoflex::data
