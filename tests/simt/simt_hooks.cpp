// What the compiler calls in code compiled with -fsanitize=thread before every access, and with
// -fsanitize=alignment,bounds where a pointer or an index is wrong. The functions of the same names
// in libtsan and libubsan are not linked.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/simt/simt_block.h"
#include "tests/simt/simt_image.h"
#include "tests/simt/simt_memory.h"

namespace nanoflex::simt {
namespace {

[[gnu::noinline]] void check(Thread& thread, const void* address, size_t bytes, bool writes,
                             void* return_address) {
  const InEmulator inside(thread);
  const memory::Use use{thread, reinterpret_cast<uintptr_t>(return_address)};
  writes ? memory::check_write(use, address, bytes) : memory::check_read(use, address, bytes);
}

inline void access(const void* address, size_t bytes, bool writes, void* return_address) {
  Thread* thread = running_thread;
  if (!thread) return;  // host code that was compiled with the kernels
  if (thread->fiber.owns(address) || thread->in_emulator || bytes == 0) return;
  check(*thread, address, bytes, writes, return_address);
}

// What the compiler passes, as documented in compiler-rt's ubsan handlers. Its source location may
// be that of an intrinsic's body, so the caller's is looked up instead.
struct SourceLocation {
  const char* file;
  uint32_t line, column;
};
struct Type {
  uint16_t kind, info;
  char name[1];  // quoted, zero-terminated
};
struct OutOfBounds {
  SourceLocation where;
  const Type *array, *index;
};
struct TypeMismatch {
  SourceLocation where;
  const Type* type;
  unsigned char log_alignment, kind;
};

/// For good: the thread is about to fail.
void enter_emulator() {
  if (running_thread) running_thread->in_emulator = true;
}

[[noreturn]] void fail(void* return_address, const std::string& what) {
  const uintptr_t site = reinterpret_cast<uintptr_t>(return_address);
  const std::string message = image::source_line(site) + ": " + what;
  if (Block* block = running_block()) block->fail(message);
  std::fprintf(stderr, "%s\n", message.c_str());
  std::abort();
}

}  // namespace
}  // namespace nanoflex::simt

// NOLINTBEGIN(bugprone-reserved-identifier): the names are the compiler's.
extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

#define NANOFLEX_HOOK(name, bytes, writes)                                       \
  void name(void* address) {                                                     \
    nanoflex::simt::access(address, bytes, writes, __builtin_return_address(0)); \
  }
#define NANOFLEX_HOOKS(bytes)                               \
  NANOFLEX_HOOK(__tsan_read##bytes, bytes, false)           \
  NANOFLEX_HOOK(__tsan_write##bytes, bytes, true)           \
  NANOFLEX_HOOK(__tsan_unaligned_read##bytes, bytes, false) \
  NANOFLEX_HOOK(__tsan_unaligned_write##bytes, bytes, true) \
  NANOFLEX_HOOK(__tsan_volatile_read##bytes, bytes, false)  \
  NANOFLEX_HOOK(__tsan_volatile_write##bytes, bytes, true)
NANOFLEX_HOOKS(1)
NANOFLEX_HOOKS(2)
NANOFLEX_HOOKS(4)
NANOFLEX_HOOKS(8)
NANOFLEX_HOOKS(16)

void __tsan_read_range(void* address, size_t bytes) {
  nanoflex::simt::access(address, bytes, false, __builtin_return_address(0));
}
void __tsan_write_range(void* address, size_t bytes) {
  nanoflex::simt::access(address, bytes, true, __builtin_return_address(0));
}

// For std::shared_ptr and function-local statics of the tests; kernels use no atomics.
int8_t __tsan_atomic8_load(const int8_t* address, int) {
  return __atomic_load_n(address, __ATOMIC_ACQUIRE);
}
int32_t __tsan_atomic32_load(const int32_t* address, int) {
  return __atomic_load_n(address, __ATOMIC_ACQUIRE);
}
int64_t __tsan_atomic64_load(const int64_t* address, int) {
  return __atomic_load_n(address, __ATOMIC_ACQUIRE);
}
int32_t __tsan_atomic32_fetch_add(int32_t* address, int32_t value, int) {
  return __atomic_fetch_add(address, value, __ATOMIC_ACQ_REL);
}

// What clang calls in place of the C library's functions.
void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
  nanoflex::simt::access(from, bytes, false, __builtin_return_address(0));
  nanoflex::simt::access(to, bytes, true, __builtin_return_address(0));
  return std::memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, size_t bytes) {
  nanoflex::simt::access(from, bytes, false, __builtin_return_address(0));
  nanoflex::simt::access(to, bytes, true, __builtin_return_address(0));
  return std::memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int value, size_t bytes) {
  nanoflex::simt::access(to, bytes, true, __builtin_return_address(0));
  return std::memset(to, value, bytes);
}

void __ubsan_handle_out_of_bounds_abort(const nanoflex::simt::OutOfBounds* check, uintptr_t index) {
  nanoflex::simt::enter_emulator();
  nanoflex::simt::fail(__builtin_return_address(0),
                       "index " + std::to_string(static_cast<int64_t>(index)) +
                           " out of bounds of " + check->array->name);
}
void __ubsan_handle_type_mismatch_v1_abort(const nanoflex::simt::TypeMismatch* check,
                                           uintptr_t address) {
  nanoflex::simt::enter_emulator();
  const uintptr_t alignment = uintptr_t{1} << check->log_alignment;
  nanoflex::simt::fail(__builtin_return_address(0),
                       std::string("misaligned: ") + check->type->name + " needs a multiple of " +
                           std::to_string(alignment) + " bytes, the address is " +
                           std::to_string(address % alignment) + " past one");
}
}

#undef NANOFLEX_HOOK
#undef NANOFLEX_HOOKS
// NOLINTEND(bugprone-reserved-identifier)
