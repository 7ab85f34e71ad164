// The one table of block shapes, per head size and kind of GPU. Host, kernels and tests read it.
#pragma once

namespace nanoflex::cuda {

/// GPUs by the shared memory that a block may use, in KB: 99 (sm_86, sm_89, sm_12x), 163 (sm_80,
/// sm_87), 227 (sm_90, sm_10x).
enum class Gpu { small, medium, large };

/// capability: 10 * major + minor, at least 80.
constexpr Gpu gpu_of(int capability) {
  if (capability == 80 || capability == 87) return Gpu::medium;
  return capability >= 90 && capability < 120 ? Gpu::large : Gpu::small;
}
constexpr int shared_limit(Gpu gpu) {
  return 1024 * (gpu == Gpu::small ? 99 : gpu == Gpu::medium ? 163 : 227);
}

/// The head size that tiles have: the next of 32, 64, 96, 128, 192, 256.
constexpr int padded_head_size(int D) {
  for (const int size : {32, 64, 96, 128, 192}) {
    if (D <= size) return size;
  }
  return 256;
}

/// Rows a block owns: 16 * row_tiles * warps; columns it visits per step; steps in flight.
struct Shape {
  int columns, warps, row_tiles, stages;
};

/// Queries own, keys are visited. Two blocks share a multiprocessor, as far as shared memory goes.
/// Dropout takes registers, so its steps are smaller.
constexpr Shape forward_shape(int D, Gpu gpu, bool dropout = false) {
  const int columns = dropout ? 32 : 64;
  switch (padded_head_size(D)) {
    case 32:
    case 64:
      return {columns, 4, 2, 2};
    case 96:
      return {columns, 4, 2, gpu == Gpu::small ? 1 : 2};
    case 128:
      if (dropout) return {32, 8, 1, gpu == Gpu::small ? 1 : 2};
      return {32, 4, 2, gpu == Gpu::small ? 1 : 2};
    case 192:
      return {columns, gpu == Gpu::small ? 8 : 4, 1, 1};
    default:
      if (gpu == Gpu::small) return {32, 8, 1, 1};
      return {gpu == Gpu::medium ? 32 : columns, 4, 1, 1};
  }
}

/// A few query rows over many keys: one warp, many blocks.
constexpr Shape decode_shape(int D, Gpu gpu) {
  const int size = padded_head_size(D);
  const int stages = size > 128 && gpu != Gpu::large ? 1 : 2;
  return {size > 192 ? 32 : 64, 1, 1, stages};
}

/// More rows over many keys, when blocks would be too few otherwise.
constexpr Shape split_shape(int D, Gpu gpu) {
  const int size = padded_head_size(D);
  const int most_of_two = gpu == Gpu::large ? 256 : gpu == Gpu::medium ? 96 : 64;
  return {size > 128 ? 32 : 64, 4, 1, size <= most_of_two ? 2 : 1};
}

/// Queries own, keys are visited.
constexpr Shape backward_queries_shape(int D, Gpu gpu, bool dropout = false) {
  const int tiles = dropout ? 1 : 2;
  switch (padded_head_size(D)) {
    case 32:
    case 64:
      return {32, 4, tiles, 2};
    case 96:
      return {32, 4, gpu == Gpu::small ? 1 : tiles, gpu == Gpu::small ? 1 : 2};
    case 128:
      return {32, gpu == Gpu::small ? 8 : 4, 1, gpu == Gpu::small ? 1 : 2};
    case 192:
      return {32, 4, 1, gpu == Gpu::large ? 2 : 1};
    default:
      return {32, 4, 1, 1};
  }
}

/// Keys own, queries are visited; row_tiles is 1. Above head size 128, dk and dv take a pass each.
constexpr Shape backward_keys_shape(int D, Gpu gpu, bool dropout = false) {
  switch (padded_head_size(D)) {
    case 32:
      return {32, 4, 1, 2};
    case 64:
      return {dropout ? 32 : 64, 4, 1, 2};
    case 96:
      return {32, 4, 1, gpu == Gpu::small ? 1 : 2};
    case 128:
      return {32, gpu == Gpu::small ? 8 : 4, 1, gpu == Gpu::small ? 1 : 2};
    case 192:
      return {32, 4, 1, gpu == Gpu::large ? 2 : 1};
    default:
      return {dropout ? 16 : 32, 4, 1, 1};
  }
}
constexpr bool backward_keys_at_once(int D) { return padded_head_size(D) <= 128; }

/// fp32: rows a block owns and columns it visits per step, with 256 threads.
struct Shape32 {
  int own, visit;
};
constexpr Shape32 forward_shape32(int D) {
  const int size = padded_head_size(D);
  return {size <= 64 ? 64 : 32, size <= 64 ? 64 : size <= 192 ? 32 : 16};
}
constexpr Shape32 backward_shape32(int D) {
  const int size = padded_head_size(D);
  return {size <= 64 ? 64 : size <= 192 ? 32 : 16, size <= 128 ? 32 : 16};
}

// Bytes of shared memory. bytes: of an element.

constexpr int own_rows(Shape shape) { return 16 * shape.row_tiles * shape.warps; }
constexpr int forward_shared_bytes(int D, Shape shape, int bytes) {
  return (own_rows(shape) + 2 * shape.stages * shape.columns) * padded_head_size(D) * bytes;
}
constexpr int backward_queries_shared_bytes(int D, Shape shape, int bytes) {
  return 2 * (own_rows(shape) + shape.stages * shape.columns) * padded_head_size(D) * bytes;
}
/// With two numbers per query and stage beside the tiles.
constexpr int backward_keys_shared_bytes(int D, Shape shape, int bytes) {
  return backward_queries_shared_bytes(D, shape, bytes) + 8 * shape.stages * shape.columns;
}
constexpr int forward_shared_bytes32(int D, Shape32 shape) {
  const int row = padded_head_size(D) + 4;
  return 4 * ((shape.own + 2 * shape.visit) * row + shape.own * (shape.visit + 4) + shape.own);
}
constexpr int backward_shared_bytes32(int D, Shape32 shape) {
  const int row = padded_head_size(D) + 4;
  return 4 * (2 * (shape.own + shape.visit) * row + 2 * shape.own * (shape.visit + 4));
}

}  // namespace nanoflex::cuda
