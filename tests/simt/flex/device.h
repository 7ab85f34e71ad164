// A program's arguments in the emulator's device memory.
#pragma once

#include "tests/simt/ptx.h"
//
#include <deque>
#include <stdexcept>

#include "attention/cuda/params.h"
#include "tests/simt/flex/truth.h"

namespace nanoflex::simt {

template <typename Program>
struct DeviceProgram {
  std::deque<Buffer<int32_t>> tensors;
  std::deque<Buffer<unsigned char>> kinds;  // one, or none
  typename Program::Arguments arguments = {};

  explicit DeviceProgram(const FlexData& data) {
    for (size_t i = 0; i < data.tensors.size(); ++i) {
      arguments.tensors[i] = tensors.emplace_back(data.tensors[i], Access::read).data();
    }
    for (size_t i = 0; i < data.words.size(); ++i) arguments.words[i] = data.words[i];
  }

  explicit DeviceProgram(const FlexAttention& all) : DeviceProgram(all.data) {
    if (all.kinds.empty()) return;
    const int per_head = all.query_blocks * all.key_blocks;
    arguments.blocks = {.kinds = kinds.emplace_back(all.kinds, Access::read).data(),
                        .batch = all.batches == 1 ? 0 : all.heads * per_head,
                        .head = all.heads == 1 ? 0 : per_head,
                        .row = all.key_blocks,
                        .size = all.block_size};
  }
};

}  // namespace nanoflex::simt
