#include "tests/simt/simt_memory.h"

#include <cstdlib>
#include <cstring>
#include <list>
#include <memory>
#include <sstream>

#include "tests/simt/simt_image.h"
#include "tests/simt/simt_shadow.h"

// Placed by the linker among the other thread-local arrays, where the checks look for it.
namespace nanoflex::cuda {
__shared__ unsigned char dynamic_shared[simt::kMaxSharedBytes];
}

namespace nanoflex::simt {

namespace memory {
namespace {

using shadow::Cell;
using shadow::Conflict;
using shadow::Record;
using shadow::Scope;

struct Free {
  void operator()(Cell* cells) const { std::free(cells); }
};
/// Zeroed, and costs memory only where it is touched.
using Cells = std::unique_ptr<Cell[], Free>;

Cells make_cells(size_t count) {
  return Cells(static_cast<Cell*>(std::calloc(count, sizeof(Cell))));
}

struct Region {
  std::string name;
  image::Range range;
  Scope scope;
  bool writable, unwritten;
  size_t granule = 1;  // bytes a cell
  Cells cells;         // none: only read, always allowed
};

struct State {
  std::vector<image::Range> program = image::segments();
  uintptr_t base = image::base();
  std::vector<Region> arrays;  // in shared memory, by address
  std::list<Region> buffers;
  Region* recent = nullptr;
  Region* dynamic = nullptr;
  shadow::Epochs epochs;
};

State& state() {
  static State* const instance = new State;  // outlives every static Buffer
  return *instance;
}

void find_shared_arrays(State& s) {
  for (image::Variable& variable : image::thread_local_variables()) {
    const size_t bytes = variable.range.end - variable.range.begin;
    s.arrays.push_back(
        {variable.name, variable.range, Scope::shared, true, true, 1, make_cells(bytes)});
  }
}

Region* find_shared(State& s, const void* address) {
  const auto* at = static_cast<const unsigned char*>(address);
  auto after = std::upper_bound(
      s.arrays.begin(), s.arrays.end(), at,
      [](const unsigned char* a, const Region& region) { return a < region.range.begin; });
  if (after == s.arrays.begin()) return nullptr;
  Region& region = *--after;
  // The launch gave dynamic_shared fewer bytes than it has; those past the end are its own as well.
  const auto* end = &region == s.dynamic ? region.range.begin + kMaxSharedBytes : region.range.end;
  return at < end ? &region : nullptr;
}

/// The region that the first byte lies in; null for none.
Region* find(State& s, const void* address) {
  if (s.recent && s.recent->range.holds(address, 1)) return s.recent;
  Region* found = find_shared(s, address);
  for (Region& buffer : s.buffers) {
    if (!found && buffer.range.holds(address, 1)) found = &buffer;
  }
  if (found) s.recent = found;
  return found;
}

std::string line_of(const State& s, const Record& record) {
  return image::source_line(s.base + record.site);
}

std::string element(const Region& region, const unsigned char* at) {
  std::ostringstream text;
  text << "byte " << at - region.range.begin << " of " << region.name;
  return text.str();
}

[[noreturn]] void fault(const Use& use, const std::string& what) {
  current_block("memory").fail(use.thread, image::source_line(use.site) + ": " + what);
}

[[noreturn]] void fault(const State& s, const Use& use, const char* verb, const Conflict& conflict,
                        const Region& region, const unsigned char* at) {
  std::ostringstream text;
  if (conflict.kind == Conflict::Kind::in_flight) {
    text << verb << element(region, at) << ", which has a cp.async in flight, started at "
         << line_of(s, conflict.other) << ": cp_async_wait must cover its group first";
    fault(use, text.str());
  }
  const bool same_block = conflict.other.epoch >= s.epochs.first_of_block;
  text << "race: " << verb << element(region, at) << ", which thread "
       << to_text(current_block("memory").index_of(conflict.other.thread))
       << (same_block ? "" : " of another block")
       << (conflict.kind == Conflict::Kind::write ? " wrote at " : " read at ")
       << line_of(s, conflict.other) << " with no barrier between";
  fault(use, text.str());
}

Record record_of(const State& s, const Use& use) {
  return {s.epochs.now, use.thread.clock[use.thread.number % kWarpLanes],
          static_cast<uint32_t>(use.site - s.base), static_cast<uint32_t>(use.thread.number)};
}

bool is_program(const State& s, const void* address, size_t bytes) {
  for (const image::Range& segment : s.program) {
    if (segment.holds(address, bytes)) return true;
  }
  return false;
}

/// The region of an access that is within bounds; null where any access is fine.
Region* locate(State& s, const Use& use, const void* address, size_t bytes, bool writes) {
  Region* region = find(s, address);
  if (!region && !writes && is_program(s, address, bytes)) return nullptr;
  const std::string verb = writes ? "writes " : "reads ";
  if (!region) {
    fault(use, verb + std::to_string(bytes) + " bytes out of bounds: at an address in no buffer " +
                   "and no shared array");
  }
  if (!region->range.holds(address, bytes)) {
    const auto* at = static_cast<const unsigned char*>(address);
    fault(use, verb + std::to_string(bytes) + " bytes out of bounds: from " + element(*region, at) +
                   ", which has " + std::to_string(region->range.end - region->range.begin));
  }
  if (writes && !region->writable) {
    fault(use, "writes " + region->name + ", which is registered as read-only");
  }
  return region->cells ? region : nullptr;
}

template <typename Visit>
void for_each_cell(Region& region, const void* address, size_t bytes, const Visit& visit) {
  const auto* at = static_cast<const unsigned char*>(address);
  const size_t begin = at - region.range.begin, last = begin + bytes - 1;
  for (size_t i = begin / region.granule; i <= last / region.granule; ++i) {
    visit(region.cells[i], region.range.begin + i * region.granule);
  }
}

}  // namespace

void begin_launch() {
  State& s = state();
  if (s.arrays.empty()) find_shared_arrays(s);
  s.dynamic = find_shared(s, cuda::dynamic_shared);
  s.epochs.first_of_launch = ++s.epochs.now;
}

void begin_block(size_t shared_bytes) {
  State& s = state();
  s.epochs.first_of_block = ++s.epochs.now;
  s.recent = nullptr;
  s.dynamic->range.end = s.dynamic->range.begin + shared_bytes;
  std::memset(cuda::dynamic_shared, 0xFF, shared_bytes);
}

void pass_barrier() { ++state().epochs.now; }

void check_read(const Use& use, const void* address, size_t bytes) {
  State& s = state();
  Region* region = locate(s, use, address, bytes, false);
  if (!region) return;
  const Record record = record_of(s, use);
  for_each_cell(*region, address, bytes, [&](Cell& cell, const unsigned char* at) {
    const auto conflict = shadow::read(cell, s.epochs, region->scope, use.thread, record);
    if (conflict) fault(s, use, "reads ", *conflict, *region, at);
    if (region->unwritten && !shadow::is_written(cell, s.epochs, region->scope)) {
      fault(use, "reads " + element(*region, at) +
                     ", which no thread has written by then (is a barrier missing?)");
    }
  });
}

void check_write(const Use& use, const void* address, size_t bytes) {
  State& s = state();
  Region* region = locate(s, use, address, bytes, true);
  if (!region) return;
  const Record record = record_of(s, use);
  for_each_cell(*region, address, bytes, [&](Cell& cell, const unsigned char* at) {
    const auto conflict = shadow::write(cell, s.epochs, region->scope, use.thread, record);
    if (conflict) fault(s, use, "writes ", *conflict, *region, at);
  });
}

bool is_shared(const void* address) { return find_shared(state(), address) != nullptr; }

void begin_async_write(const Use& use, unsigned char* address, size_t bytes) {
  check_write(use, address, bytes);
  std::memset(address, 0xFF, bytes);
  for_each_cell(*find(state(), address), address, bytes,
                [](Cell& cell, const unsigned char*) { cell.in_flight = true; });
}

void finish_async_write(const Use& use, unsigned char* address, size_t bytes) {
  const Record arrival = record_of(state(), use);
  for_each_cell(*find(state(), address), address, bytes, [&](Cell& cell, const unsigned char*) {
    cell = {arrival, {}, false};
  });
}

}  // namespace memory

Registration::Registration(void* memory, size_t bytes, size_t granule, Access access,
                           bool unwritten)
    : memory_(memory) {
  memory::State& s = memory::state();
  const auto* begin = static_cast<const unsigned char*>(memory);
  const bool writable = access == Access::read_write;
  s.buffers.push_back({"a buffer of " + std::to_string(bytes) + " bytes",
                       {begin, begin + bytes},
                       shadow::Scope::global,
                       writable,
                       unwritten,
                       granule,
                       writable ? memory::make_cells(bytes / granule + 1) : nullptr});
}

Registration::~Registration() {
  memory::State& s = memory::state();
  s.recent = nullptr;
  s.buffers.remove_if([this](const memory::Region& r) { return r.range.begin == memory_; });
}

}  // namespace nanoflex::simt
