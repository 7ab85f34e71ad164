#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "attention/flex/block_mask.h"

namespace nanoflex {

struct MaskBenchOptions {
  std::string mask = {};  ///< as text; "causal", and "causal & document" with documents
  int64_t length = 8192;  ///< of queries and keys
  int64_t block_size = 128;
  int64_t documents = 0;  ///< mean length of packed documents; 0: none
  int64_t repeat = 5;
};

/// The mask with its documents: lengths from half to one and a half times the mean, the same in
/// every run. Throws std::invalid_argument for numbers below 1 and a mask that reads other tensors.
flex::Expression mask_of(const MaskBenchOptions& options);

/// Times make_block_mask(). Returns {machine, gemm_tflops (fp32), rows}: one row with case, backend
/// (flex), pass (build), device, dtype, median_ms, spread, share_of_gemm (null), ratios (none),
/// peak_bytes; and mask, T, S, block_size, full, cut, empty, sparsity, visible_share, boxes_judged.
/// REQUIRES: track_cpu_memory() was called.
nlohmann::ordered_json bench_mask(const MaskBenchOptions& options);

/// The mask as a picture in text, and what it takes to build it.
std::string mask_report(const MaskBenchOptions& options, const nlohmann::ordered_json& record);

/// The blocks of one batch and head as a picture, full, cut and empty, as SVG: at most 64 cells a
/// side, where a cell of blocks that differ counts as cut.
std::string mask_chart(const MaskBenchOptions& options);

/// The bytes of a PNG; see draw_mask(). Throws std::invalid_argument for lengths above 65,536.
std::string mask_png(const MaskBenchOptions& options);

}  // namespace nanoflex
