#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "tests/simt/ptx.h"
#include "tests/simt/simt_block.h"
#include "tests/simt/simt_memory.h"

namespace nanoflex::cuda {

using simt::Block;
using simt::current_block;
using simt::kAllLanes;
using simt::kWarpLanes;
using simt::to_text;

namespace {

struct Load {
  const unsigned char* row;
  uint32_t* r;
  uintptr_t site;
};

uint32_t join(uint16_t low, uint16_t high) { return low | uint32_t{high} << 16; }

uint16_t read_element(int lane, const Load& load, const unsigned char* row, int column) {
  uint16_t element;
  const unsigned char* address = row + column * sizeof(element);
  Block& block = current_block("ldmatrix");
  simt::memory::check_read({block.lane_of_warp(lane), load.site}, address, sizeof(element));
  std::memcpy(&element, address, sizeof(element));
  return element;
}

/// The manual does not say which lane reads what. Here the lane that gives a row's address reads
/// the row, and the lanes that receive its elements read these, so that either's neglect is found.
template <bool transposed>
void perform_ldmatrix(void* const (&lanes)[kWarpLanes]) {
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const Load& load = *static_cast<Load*>(lanes[lane]);
    const simt::Thread& thread = current_block("ldmatrix").lane_of_warp(lane);
    simt::memory::check_read({thread, load.site}, load.row, 16);
  }
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const Load& load = *static_cast<Load*>(lanes[lane]);
    for (int matrix = 0; matrix < 4; ++matrix) {
      uint16_t pair[2];
      for (int i = 0; i < 2; ++i) {
        const int along = lane % 4 * 2 + i, across = lane / 4;
        const int row = transposed ? along : across, column = transposed ? across : along;
        const Load& source = *static_cast<Load*>(lanes[matrix * 8 + row]);
        pair[i] = read_element(lane, load, source.row, column);
      }
      load.r[matrix] = join(pair[0], pair[1]);
    }
  }
}

template <bool transposed>
void ldmatrix(uint32_t* r, const void* row, uintptr_t site, const Location& where) {
  Block& block = current_block("ldmatrix");
  const simt::InEmulator inside(block.thread());
  const uintptr_t address = reinterpret_cast<uintptr_t>(row);
  if (address % 16 != 0) {
    block.fail(to_text(where) + ": ldmatrix: a row's address must be a multiple of 16 bytes, is " +
               std::to_string(address % 16) + " past one");
  }
  if (!simt::memory::is_shared(row)) {
    block.fail(to_text(where) + ": ldmatrix: a row's address is not in shared memory");
  }
  Load load{static_cast<const unsigned char*>(row), r, site};
  block.collective({"ldmatrix", kAllLanes, &load, &perform_ldmatrix<transposed>, where});
}

uintptr_t as_site(void* return_address) { return reinterpret_cast<uintptr_t>(return_address); }

struct Product {
  float c[4];
  const uint32_t* a;
  const uint32_t* b;
};

float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
float to_float(__half value) { return __half2float(value); }

template <typename T>
float half_of(uint32_t pair, int i) {
  return to_float(T{static_cast<uint16_t>(pair >> 16 * i)});
}

float tf32(uint32_t bits) { return std::bit_cast<float>(bits & 0xFFFFE000u); }

template <int depth>
struct Matrices {
  float a[16][depth], b[depth][8];
};

template <int depth>
void multiply(const Matrices<depth>& m, void* const (&lanes)[kWarpLanes]) {
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    Product& product = *static_cast<Product*>(lanes[lane]);
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      float sum = product.c[i];
      for (int k = 0; k < depth; ++k) sum += m.a[row][k] * m.b[k][column];
      product.c[i] = sum;
    }
  }
}

template <typename T>
void perform_mma_16x8x16(void* const (&lanes)[kWarpLanes]) {
  Matrices<16> m;
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const uint32_t* a = static_cast<Product*>(lanes[lane])->a;
    const uint32_t* b = static_cast<Product*>(lanes[lane])->b;
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 2; ++i) {
      m.a[g][2 * t + i] = half_of<T>(a[0], i);
      m.a[g + 8][2 * t + i] = half_of<T>(a[1], i);
      m.a[g][2 * t + 8 + i] = half_of<T>(a[2], i);
      m.a[g + 8][2 * t + 8 + i] = half_of<T>(a[3], i);
      m.b[2 * t + i][g] = half_of<T>(b[0], i);
      m.b[2 * t + 8 + i][g] = half_of<T>(b[1], i);
    }
  }
  multiply(m, lanes);
}

void perform_mma_16x8x8_tf32(void* const (&lanes)[kWarpLanes]) {
  Matrices<8> m;
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const uint32_t* a = static_cast<Product*>(lanes[lane])->a;
    const uint32_t* b = static_cast<Product*>(lanes[lane])->b;
    const int g = lane / 4, t = lane % 4;
    m.a[g][t] = tf32(a[0]);
    m.a[g + 8][t] = tf32(a[1]);
    m.a[g][t + 4] = tf32(a[2]);
    m.a[g + 8][t + 4] = tf32(a[3]);
    m.b[t][g] = tf32(b[0]);
    m.b[t + 4][g] = tf32(b[1]);
  }
  multiply(m, lanes);
}

void mma(void (*perform)(void* const (&)[kWarpLanes]), float* c, const uint32_t* a,
         const uint32_t* b, const Location& where) {
  Product product{{c[0], c[1], c[2], c[3]}, a, b};
  current_block("mma").collective({"mma", kAllLanes, &product, perform, where});
  std::copy(product.c, product.c + 4, c);
}

}  // namespace

void ldmatrix_x4(uint32_t (&r)[4], const void* row, const Location& where) {
  ldmatrix<false>(r, row, as_site(__builtin_return_address(0)), where);
}
void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, const Location& where) {
  ldmatrix<true>(r, row, as_site(__builtin_return_address(0)), where);
}

template <>
void mma_16x8x16<__nv_bfloat16>(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                const Location& where) {
  mma(&perform_mma_16x8x16<__nv_bfloat16>, c, a, b, where);
}
template <>
void mma_16x8x16<__half>(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                         const Location& where) {
  mma(&perform_mma_16x8x16<__half>, c, a, b, where);
}
void mma_16x8x8_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                     const Location& where) {
  mma(&perform_mma_16x8x8_tf32, c, a, b, where);
}

void cp_async_16(void* shared, const void* global, int bytes, const Location& where) {
  Block& block = current_block("cp.async");
  const simt::InEmulator inside(block.thread());
  const auto fail = [&](const std::string& what) {
    block.fail(to_text(where) + ": cp.async: " + what);
  };
  const simt::memory::Use use{block.thread(), as_site(__builtin_return_address(0))};
  if (bytes < 0 || bytes > 16) fail("copies 0 to 16 bytes, not " + std::to_string(bytes));
  if (reinterpret_cast<uintptr_t>(shared) % 16 != 0) {
    fail("the shared address must be a multiple of 16 bytes");
  }
  if (reinterpret_cast<uintptr_t>(global) % 16 != 0) {
    fail("the global address must be a multiple of 16 bytes");
  }
  if (!simt::memory::is_shared(shared)) fail("the destination is not in shared memory");
  if (simt::memory::is_shared(global)) fail("the source is in shared memory");
  simt::AsyncCopy copy{static_cast<unsigned char*>(shared), {}, use.site};
  if (bytes > 0) {
    simt::memory::check_read(use, global, bytes);
    std::memcpy(copy.data.data(), global, bytes);
  }
  simt::memory::begin_async_write(use, copy.shared, copy.data.size());
  block.thread().open_group.push_back(copy);
}

void cp_async_commit() {
  simt::Thread& thread = current_block("cp.async.commit_group").thread();
  const simt::InEmulator inside(thread);
  thread.groups.push_back(std::move(thread.open_group));
  thread.open_group.clear();
}

void cp_async_wait_for_all_but(int newest_groups) {
  simt::Thread& thread = current_block("cp.async.wait_group").thread();
  const simt::InEmulator inside(thread);
  while (thread.groups.size() > static_cast<size_t>(newest_groups)) {
    for (const simt::AsyncCopy& copy : thread.groups.front()) {
      std::memcpy(copy.shared, copy.data.data(), copy.data.size());
      simt::memory::finish_async_write({thread, copy.site}, copy.shared, copy.data.size());
    }
    thread.groups.pop_front();
  }
}

float exp2_approx(float x) {
  const auto flush = [](float value) {
    return std::fabs(value) < std::numeric_limits<float>::min() ? std::copysign(0.0f, value)
                                                                : value;
  };
  return flush(static_cast<float>(std::exp2(static_cast<double>(flush(x)))));
}

}  // namespace nanoflex::cuda
