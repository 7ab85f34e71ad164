#include "trainer/profile.h"

#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <set>
#include <stdexcept>
#include <unordered_map>

#include "trainer/memory.h"

namespace nanoflex {
namespace {

namespace profiler = torch::autograd::profiler;
namespace kineto = torch::profiler::impl;
using nlohmann::json;
using nlohmann::ordered_json;

constexpr size_t kLargest = 10;  // tensors that are named

// An operation or a change of memory, as the trace tells it; microseconds.
struct Event {
  int64_t thread = 0;
  double begin = 0, end = 0;
  std::string name;
  const json* arguments = nullptr;  // of the trace
  bool is_memory() const { return name == "[memory]"; }
};

struct Totals {
  int64_t calls = 0;
  double microseconds = 0, bytes = 0;
};

struct Allocation {
  double time;
  int64_t bytes;  // negative: freed
  uint64_t address;
  std::string made_in;
};

// Bytes of the tensors that an operation was given, from its "Input Dims" and "Input type".
double input_bytes(const json& arguments) {
  static const std::map<std::string, double> sizes = {
      {"float", 4}, {"double", 8}, {"long int", 8},      {"int", 4},          {"bool", 1},
      {"half", 2},  {"char", 1},   {"c10::BFloat16", 2}, {"unsigned char", 1}};
  const json dims = arguments.value("Input Dims", json::array());
  const json types = arguments.value("Input type", json::array());
  double bytes = 0;
  for (size_t i = 0; i < std::min(dims.size(), types.size()); ++i) {
    const auto size = types[i].is_string() ? sizes.find(types[i]) : sizes.end();
    const bool is_tensor = size != sizes.end() && !dims[i].empty() && dims[i][0].is_number();
    if (!is_tensor) continue;
    double numbers = 1;
    for (const json& dim : dims[i]) numbers *= dim.get<double>();
    bytes += numbers * size->second;
  }
  return bytes;
}

// "torch::autograd::CppNode<nanoflex::(anonymous namespace)::FusedNorm>" -> "FusedNorm, backward"
std::string short_name(const std::string& name) {
  if (!name.starts_with("torch::autograd::CppNode<")) return name;
  const size_t begin = name.rfind("::") + 2;
  return name.substr(begin, name.size() - begin - 1) + ", backward";
}

// What ran on the CPU's threads, in order; the outer operation before those that it calls.
std::vector<Event> cpu_events(const json& trace) {
  static const std::set<std::string> wanted = {"cpu_op", "user_annotation", "cpu_instant_event"};
  std::vector<Event> events;
  for (const json& one : trace.at("traceEvents")) {
    if (wanted.count(one.value("cat", "")) == 0) continue;
    const double begin = one.at("ts"), length = one.value("dur", 0.0);
    events.push_back({one.value("tid", int64_t{0}), begin, begin + length,
                      short_name(one.at("name")),
                      one.contains("args") ? &one.at("args") : nullptr});
  }
  std::stable_sort(events.begin(), events.end(), [](const Event& a, const Event& b) {
    if (a.thread != b.thread) return a.thread < b.thread;
    return a.begin != b.begin ? a.begin < b.begin : a.end > b.end;
  });
  return events;
}

int64_t launch_of(const json* arguments) {
  return arguments == nullptr ? 0 : arguments->value("External id", int64_t{0});
}

// What a GPU took for what was launched by each operation, by "External id"; microseconds.
std::map<int64_t, double> gpu_times(const json& trace) {
  static const std::set<std::string> wanted = {"kernel", "gpu_memcpy", "gpu_memset"};
  std::map<int64_t, double> times;
  for (const json& one : trace.at("traceEvents")) {
    if (wanted.count(one.value("cat", "")) == 0 || !one.contains("args")) continue;
    times[launch_of(&one.at("args"))] += one.value("dur", 0.0);
  }
  return times;
}

// Goes through them: who called whom. An operation's own time is what its device took for it.
class Digest {
 public:
  Digest(const json& trace, at::Device device) : device_(device) {
    const std::vector<Event> events = cpu_events(trace);
    if (!device.is_cpu()) gpu_times_ = gpu_times(trace);
    for (const Event& event : events) {
      while (!open_.empty() && !(open_.back().event->thread == event.thread &&
                                 event.begin < open_.back().event->end)) {
        close();
      }
      if (event.is_memory()) {
        add_memory(event);
      } else {
        if (!open_.empty()) {
          open_.back().own -= event.end - event.begin;
          open_.back().calls_others = true;
        }
        open_.push_back({&event, event.end - event.begin});
      }
    }
    while (!open_.empty()) close();
    if (const auto rest = gpu_times_.find(0); rest != gpu_times_.end()) {
      totals_["launched by no operation"].microseconds += rest->second;
    }
  }

  ordered_json operations(const std::map<std::string, double>& flops) const {
    std::vector<std::pair<std::string, Totals>> sorted(totals_.begin(), totals_.end());
    std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
      return a.second.microseconds > b.second.microseconds;
    });
    ordered_json list = ordered_json::array();
    for (const auto& [name, totals] : sorted) {
      const auto known = flops.find(name);
      list.push_back({{"name", name},
                      {"calls", totals.calls},
                      {"seconds", 1e-6 * totals.microseconds},
                      {"flops", known == flops.end() ? 0 : known->second},
                      {"bytes", totals.bytes}});
    }
    return list;
  }

  ordered_json memory(int64_t before) {
    std::stable_sort(allocations_.begin(), allocations_.end(),
                     [](const auto& a, const auto& b) { return a.time < b.time; });
    int64_t live = before, peak = before;
    size_t end_of_peak = 0;
    for (size_t i = 0; i < allocations_.size(); ++i) {
      live += allocations_[i].bytes;
      if (live > peak) peak = live, end_of_peak = i + 1;
    }
    return {{"before_bytes", before}, {"peak_bytes", peak}, {"largest", largest(end_of_peak)}};
  }

 private:
  struct Open {
    const Event* event;
    double own;  // microseconds
    double written = 0;
    bool calls_others = false;
  };

  void close() {
    const Open last = open_.back();
    open_.pop_back();
    Totals& totals = totals_[last.event->name];
    ++totals.calls;
    totals.microseconds += device_.is_cpu() ? last.own : gpu_time(*last.event);
    // Views, and tensors that are only made, move nothing. What others do that it calls counts
    // there.
    const std::string& name = last.event->name;
    const bool moves =
        (last.written > 0 && !name.starts_with("aten::empty")) || name.ends_with('_');
    if (last.calls_others || !moves) return;
    totals.bytes += last.written;
    if (last.event->arguments != nullptr) totals.bytes += input_bytes(*last.event->arguments);
  }

  double gpu_time(const Event& event) const {
    const int64_t launch = launch_of(event.arguments);
    const auto found = gpu_times_.find(launch);
    return launch == 0 || found == gpu_times_.end() ? 0 : found->second;
  }

  void add_memory(const Event& event) {
    const json& arguments = *event.arguments;
    const auto type = static_cast<int>(device_.type());
    if (arguments.value("Device Type", type) != type) return;
    const int64_t bytes = arguments.at("Bytes");
    std::string path;
    for (const Open& one : open_) path += (path.empty() ? "" : " > ") + one.event->name;
    if (!open_.empty() && bytes > 0) open_.back().written += static_cast<double>(bytes);
    allocations_.push_back({event.begin, bytes, arguments.at("Addr"), path});
  }

  // The tensors that were live after the first `count` changes.
  ordered_json largest(size_t count) const {
    std::unordered_map<uint64_t, const Allocation*> live;
    for (size_t i = 0; i < count; ++i) {
      const Allocation& one = allocations_[i];
      if (one.bytes < 0) {
        live.erase(one.address);
      } else {
        live[one.address] = &one;
      }
    }
    std::vector<const Allocation*> sorted;
    for (const auto& [address, one] : live) sorted.push_back(one);
    std::sort(sorted.begin(), sorted.end(), [](const Allocation* a, const Allocation* b) {
      return a->bytes != b->bytes ? a->bytes > b->bytes : a->time < b->time;
    });
    sorted.resize(std::min(sorted.size(), kLargest));
    ordered_json list = ordered_json::array();
    for (const Allocation* one : sorted) {
      list.push_back({{"bytes", one->bytes}, {"made_in", one->made_in}});
    }
    return list;
  }

  const at::Device device_;
  std::map<int64_t, double> gpu_times_;
  std::vector<Open> open_;
  std::map<std::string, Totals> totals_;
  std::vector<Allocation> allocations_;
};

int64_t kernels(const json& trace) {
  const json& events = trace.at("traceEvents");
  return std::count_if(events.begin(), events.end(),
                       [](const json& event) { return event.value("cat", "") == "kernel"; });
}

}  // namespace

ordered_json digest_trace(const json& trace, at::Device device,
                          const std::map<std::string, double>& flops, int64_t bytes_before) {
  Digest digest(trace, device);
  return {{"operations", digest.operations(flops)}, {"memory", digest.memory(bytes_before)}};
}

Profile::Profile(at::Device device) : device_(device), bytes_before_(live_tensor_bytes(device)) {
  setenv("KINETO_LOG_LEVEL", "99", /*overwrite=*/0);  // it greets on stderr
  std::set<kineto::ActivityType> activities = {kineto::ActivityType::CPU};
  if (device.is_cuda()) activities.insert(kineto::ActivityType::CUDA);
  const kineto::ProfilerConfig config(kineto::ProfilerState::KINETO, /*report_input_shapes=*/true,
                                      /*profile_memory=*/true, /*with_stack=*/false,
                                      /*with_flops=*/true);
  profiler::prepareProfiler(config, activities);
  profiler::enableProfiler(config, activities);
}

Profile::~Profile() {
  if (running_) profiler::disableProfiler();
}

ordered_json Profile::stop(const std::filesystem::path& file) {
  synchronize(device_);
  running_ = false;
  const auto result = profiler::disableProfiler();
  result->save(file.string());
  std::map<std::string, double> flops;
  int64_t dispatched = 0;
  for (const profiler::KinetoEvent& event : result->events()) {
    flops[short_name(event.name())] += static_cast<double>(event.flops());
    const bool is_memory = event.name() == "[memory]";
    dispatched += !is_memory && event.scope() == static_cast<uint8_t>(at::RecordScope::FUNCTION);
  }
  std::ifstream in(file);
  const json trace = json::parse(in, nullptr, /*allow_exceptions=*/false);
  if (!trace.is_object()) {
    throw std::invalid_argument("[profile] cannot write " + file.string() + ": is the disk full?");
  }
  ordered_json profile = {{"launches", device_.is_cuda() ? kernels(trace) : dispatched},
                          {"launches_are", device_.is_cuda() ? "kernels" : "operations"}};
  profile.update(digest_trace(trace, device_, flops, bytes_before_));
  return profile;
}

}  // namespace nanoflex
