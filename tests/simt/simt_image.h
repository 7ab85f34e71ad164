// What the running program's own file says about addresses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace nanoflex::simt::image {

struct Range {
  const unsigned char *begin, *end;
  bool holds(const void* address, size_t bytes) const {
    const auto* at = static_cast<const unsigned char*>(address);
    return at >= begin && at < end && bytes <= static_cast<size_t>(end - at);
  }
};

struct Variable {
  std::string name;  // as in the source, with its function
  Range range;
};

/// Where the program lies in memory: one range a segment.
std::vector<Range> segments();
/// Where it was loaded; addresses minus this are those in its file.
uintptr_t base();
/// The thread-local variables of the program in this host thread, by address. One nameless range
/// where the file's symbols were stripped.
std::vector<Variable> thread_local_variables();

/// "file:line" of the code that a return address follows, the innermost that is not the emulator's
/// own. Asks binutils' addr2line; without it, says so beside the address.
std::string source_line(uintptr_t return_address);

}  // namespace nanoflex::simt::image
