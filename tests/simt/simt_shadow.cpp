#include "tests/simt/simt_shadow.h"

namespace nanoflex::simt::shadow {

namespace {

bool is_ordered(const Record& record, const Epochs& epochs, Scope scope, const Thread& thread) {
  if (record.epoch < epochs.first_of_launch) return true;
  if (record.epoch < epochs.first_of_block) return scope == Scope::shared;
  if (record.epoch < epochs.now) return true;
  const uint32_t self = thread.number;
  if (record.thread == self) return true;
  return record.thread / kWarpLanes == self / kWarpLanes &&
         record.clock <= thread.clock[record.thread % kWarpLanes];
}

std::optional<Conflict> follows_write(const Cell& cell, const Epochs& epochs, Scope scope,
                                      const Thread& thread) {
  if (cell.in_flight && cell.write.epoch >= epochs.first_of_block) {
    return Conflict{Conflict::Kind::in_flight, cell.write};
  }
  if (is_ordered(cell.write, epochs, scope, thread)) return std::nullopt;
  return Conflict{Conflict::Kind::write, cell.write};
}

uint32_t warp_of(const Record& record) { return record.thread / kWarpLanes; }

}  // namespace

bool is_written(const Cell& cell, const Epochs& epochs, Scope scope) {
  return cell.write.epoch >= (scope == Scope::shared ? epochs.first_of_block : 1);
}

std::optional<Conflict> read(Cell& cell, const Epochs& epochs, Scope scope, const Thread& thread,
                             const Record& record) {
  if (auto conflict = follows_write(cell, epochs, scope, thread)) return conflict;
  for (Record& read : cell.reads) {
    if (!is_ordered(read, epochs, scope, thread)) continue;
    read = record;
    return std::nullopt;
  }
  const bool same_warp = warp_of(cell.reads[0]) == warp_of(cell.reads[1]);
  if (same_warp && warp_of(cell.reads[0]) != warp_of(record)) cell.reads[1] = record;
  return std::nullopt;
}

std::optional<Conflict> write(Cell& cell, const Epochs& epochs, Scope scope, const Thread& thread,
                              const Record& record) {
  if (auto conflict = follows_write(cell, epochs, scope, thread)) return conflict;
  for (const Record& read : cell.reads) {
    if (!is_ordered(read, epochs, scope, thread)) return Conflict{Conflict::Kind::read, read};
  }
  cell = {record, {}, false};
  return std::nullopt;
}

}  // namespace nanoflex::simt::shadow
