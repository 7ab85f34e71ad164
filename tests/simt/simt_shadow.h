// Who touched a byte last, and what orders it before the next access: the rules of races.
//
// Time within a block is counted in epochs, one from barrier to barrier; within a warp each lane
// has a clock that __syncwarp advances, and knows how much of the other lanes' time came before its
// own.
#pragma once

#include <cstdint>
#include <optional>

#include "tests/simt/simt_block.h"

namespace nanoflex::simt::shadow {

struct Epochs {
  uint32_t now = 1, first_of_launch = 1, first_of_block = 1;
};

/// One access.
struct Record {
  uint32_t epoch;  // 0: there was none
  uint32_t clock;  // of its lane
  uint32_t site;   // of its code, from the program's base
  uint32_t thread;
};

/// Memory that threads of different blocks see, or only those of one.
enum class Scope { global, shared };

/// The accesses to some bytes that a later one may conflict with. Two readers are enough: of
/// different warps, where there are such, since within a warp only the latest can be unordered.
struct Cell {
  Record write, reads[2];
  bool in_flight;  // the write is an asynchronous copy that has not arrived
};

struct Conflict {
  enum class Kind { in_flight, write, read } kind;
  Record other;
};

/// What an access by `thread` may not follow; none: it is remembered as `record`.
std::optional<Conflict> read(Cell& cell, const Epochs& epochs, Scope scope, const Thread& thread,
                             const Record& record);
std::optional<Conflict> write(Cell& cell, const Epochs& epochs, Scope scope, const Thread& thread,
                              const Record& record);

/// Whether any thread has written since the block began, or ever for global memory.
bool is_written(const Cell& cell, const Epochs& epochs, Scope scope);

}  // namespace nanoflex::simt::shadow
