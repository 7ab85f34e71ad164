#include "tests/simt/simt_block.h"

namespace nanoflex::simt {

namespace {

struct Exchange {
  uint32_t word;
  int source_lane, width;
  uint32_t mask, result;
  Location where;
};

void perform_shuffle(void* const (&lanes)[kWarpLanes]) {
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    if (!lanes[lane]) continue;
    Exchange& self = *static_cast<Exchange*>(lanes[lane]);
    const int last = lane | (self.width - 1);
    const int source = self.source_lane > last ? lane : self.source_lane;
    if (!lanes[source]) {
      current_block("shuffle").fail(to_text(self.where) + ": lane " + std::to_string(lane) +
                                    " shuffles from lane " + std::to_string(source) +
                                    ", which the mask leaves out");
    }
    self.result = static_cast<Exchange*>(lanes[source])->word;
  }
}

void perform_ballot(void* const (&lanes)[kWarpLanes]) {
  uint32_t votes = 0;
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    if (lanes[lane] && static_cast<Exchange*>(lanes[lane])->word) votes |= 1u << lane;
  }
  for (void* lane : lanes) {
    if (lane) static_cast<Exchange*>(lane)->result = votes;
  }
}

/// All that any lane of the mask did comes before all that any of them will do.
void perform_syncwarp(void* const (&lanes)[kWarpLanes]) {
  Block& block = current_block("__syncwarp");
  std::array<uint32_t, kWarpLanes> joined{};
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    if (!lanes[lane]) continue;
    const auto& clock = block.lane_of_warp(lane).clock;
    for (int i = 0; i < kWarpLanes; ++i) joined[i] = std::max(joined[i], clock[i]);
  }
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    if (!lanes[lane]) continue;
    block.lane_of_warp(lane).clock = joined;
    ++block.lane_of_warp(lane).clock[lane];
  }
}

}  // namespace

int lane() { return current_block("a warp operation").thread().number % kWarpLanes; }

uint32_t shuffle(const char* name, uint32_t mask, uint32_t word, int source_lane, int width,
                 const Location& where) {
  Exchange exchange{word, source_lane, width, mask, 0, where};
  current_block(name).collective({name, mask, &exchange, &perform_shuffle, where});
  return exchange.result;
}

uint32_t ballot(const char* name, uint32_t mask, bool vote, const Location& where) {
  Exchange exchange{vote, 0, kWarpLanes, mask, 0, where};
  current_block(name).collective({name, mask, &exchange, &perform_ballot, where});
  return exchange.result;
}

}  // namespace nanoflex::simt

void __syncthreads(const nanoflex::simt::Location& where) {
  nanoflex::simt::current_block("__syncthreads").barrier("__syncthreads", false, where);
}

int __syncthreads_or(int predicate, const nanoflex::simt::Location& where) {
  nanoflex::simt::Block& block = nanoflex::simt::current_block("__syncthreads_or");
  return block.barrier("__syncthreads_or", predicate != 0, where) ? 1 : 0;
}

void __syncwarp(uint32_t mask, const nanoflex::simt::Location& where) {
  nanoflex::simt::current_block("__syncwarp")
      .collective({"__syncwarp", mask, &mask, &nanoflex::simt::perform_syncwarp, where});
}
