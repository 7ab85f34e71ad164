// What can be known of the GPU kernels without a GPU: that NVRTC compiles them for the
// architectures we meet, that their registers suffice, and that compiled kernels are kept on disk.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "attention/cuda/cubin_cache.h"
#include "attention/cuda/kernels.h"
#include "attention/flex/cuda_source.h"
#include "model/cuda/head_kernel.h"
#include "tests/required.h"

namespace nanoflex::cuda {
namespace {

namespace fs = std::filesystem;

/// Why there is no compiler here; "" when there is.
std::string why_no_compiler() {
  try {
    Nvrtc::get();
    return "";
  } catch (const std::exception& error) {
    return error.what();
  }
}

class CudaCompile : public testing::Test {
 protected:
  void SetUp() override {
    const std::string reason = why_no_compiler();
    if (reason.empty()) return;
    // CI sets NVRTC up: there a test that is left out is one that fails.
    if (is_required("nvrtc")) FAIL() << reason;
    GTEST_SKIP() << reason;
  }
};

/// Each must fit its registers and its architecture's shared memory.
void expect_to_fit(const std::vector<Kernel>& kernels, Gpu gpu, const std::string& architecture) {
  for (const Kernel& kernel : kernels) {
    SCOPED_TRACE(kernel.name + " for " + architecture);
    const Cubin cubin =
        Nvrtc::get().compile(kernel.name, kernel.text, *kernel.sources, architecture);
    std::printf("%-8s %-32s %3d registers %6d bytes shared %4d threads\n", architecture.c_str(),
                kernel.name.c_str(), cubin.registers, kernel.shared_bytes, kernel.threads);
    EXPECT_EQ(cubin.spill_bytes, 0);
    EXPECT_EQ(cubin.stack_bytes, 0);
    EXPECT_EQ(cubin.shared_bytes, 0);  // all of it is dynamic
    EXPECT_LE(kernel.shared_bytes, shared_limit(gpu));
    EXPECT_LE(cubin.registers * kernel.threads, 65536);
  }
}

/// Documents, with a bias for each distance and a soft cap: what people write at most.
std::string program_text() {
  const flex::Captured document("document", at::zeros({2, 8}, at::kLong)),
      bias("bias", at::zeros({2, 15}));
  const auto mask = flex::trace_mask(
      [&](auto b, auto, auto q, auto kv) { return document[b][q] == document[b][kv]; });
  const auto score = flex::trace_score([&](auto s, auto, auto h, auto q, auto kv) {
    return 30.0 * tanh((s + bias[h][q - kv + 7]) / 30.0);
  });
  return flex::cuda_source(mask, score).text;
}

/// Kernels with a program: those for training, and those for decoding.
std::vector<Kernel> program_kernels(Gpu gpu) {
  std::vector<Kernel> kernels;
  const auto add = [&](const KernelOptions& options) {
    kernels.push_back(forward_kernel(options));
    const BackwardKernels backward = backward_kernels(options);
    kernels.push_back(backward.queries);
    kernels.insert(kernels.end(), backward.keys.begin(), backward.keys.end());
  };
  for (const int D : {64, 128}) {
    add({.type = Type::bfloat16, .D = D, .gpu = gpu, .program = program_text()});
  }
  add({.type = Type::float32, .D = 64, .gpu = gpu, .program = program_text()});
  for (const int D : {64, 128}) {
    for (const bool few_rows : {true, false}) {
      kernels.push_back(split_kernel(
          {.type = Type::bfloat16, .D = D, .gpu = gpu, .program = program_text()}, few_rows));
    }
  }
  return kernels;
}

void expect_kernels_fit(int capability, const std::string& architecture) {
  const Gpu gpu = gpu_of(capability);
  expect_to_fit(all_kernels(gpu), gpu, architecture);
  expect_to_fit(program_kernels(gpu), gpu, architecture);
}

TEST_F(CudaCompile, KernelsFitAmpere) { expect_kernels_fit(80, "sm_80"); }
TEST_F(CudaCompile, KernelsFitHopper) { expect_kernels_fit(90, "sm_90a"); }
TEST_F(CudaCompile, KernelsFitBlackwell) { expect_kernels_fit(100, "sm_100a"); }
TEST_F(CudaCompile, KernelsFitBlackwellDesktops) { expect_kernels_fit(120, "sm_120a"); }

TEST_F(CudaCompile, TheHeadsKernelsFitEverywhere) {
  for (const auto& [capability, architecture] :
       {std::pair{80, "sm_80"}, {90, "sm_90a"}, {100, "sm_100a"}, {120, "sm_120a"}}) {
    for (const Type type : {Type::bfloat16, Type::float16, Type::float32}) {
      expect_to_fit({head_kernel(type)}, gpu_of(capability), architecture);
    }
  }
}

TEST_F(CudaCompile, RaggedHeadSizesCompile) {
  for (const int D : {1, 20, 72, 200}) {
    const Kernel kernel = forward_kernel({.type = Type::float16, .D = D, .gpu = Gpu::medium});
    EXPECT_NO_THROW(Nvrtc::get().compile(kernel.name, kernel.text, embedded_sources(), "sm_80"));
  }
}

TEST_F(CudaCompile, ABrokenSourceIsAnErrorOfOneLine) {
  try {
    Nvrtc::get().compile("broken.cu", "__global__ void f() {\n  undefined_name = 1;\n}\n", {},
                         "sm_80");
    FAIL() << "it compiled";
  } catch (const std::runtime_error& error) {
    const std::string message = error.what();
    EXPECT_EQ(message.find('\n'), std::string::npos);
    EXPECT_NE(message.find("broken.cu(2): error: identifier \"undefined_name\""), std::string::npos)
        << message;
  }
}

TEST_F(CudaCompile, TheCacheCompilesOnceAndMendsItself) {
  const fs::path folder =
      fs::temp_directory_path() / ("nanoflex_cache_" + std::to_string(getpid()));
  const CubinCache cache(folder);
  const std::string text = "extern \"C\" __global__ void f(float* x) { *x = 1; }";
  const CubinCache::Found first = cache.get("f.cu", text, {}, "sm_80");
  const CubinCache::Found second = cache.get("f.cu", text, {}, "sm_80");
  EXPECT_FALSE(first.from_disk);
  EXPECT_TRUE(second.from_disk);
  EXPECT_EQ(first.image, second.image);
  const fs::path file = cache.file_of(text, {}, "sm_80");
  EXPECT_NE(file, cache.file_of(text, {}, "sm_90a"));
  EXPECT_NE(file, cache.file_of(text, {{"included.h", ""}}, "sm_80"));
  fs::resize_file(file, fs::file_size(file) / 2);
  EXPECT_EQ(cache.get("f.cu", text, {}, "sm_80").image, first.image);
  EXPECT_TRUE(cache.get("f.cu", text, {}, "sm_80").from_disk);
  fs::remove_all(folder);
}

TEST_F(CudaCompile, ACacheThatCannotBeWrittenStillCompiles) {
  const CubinCache cache("/dev/null/nowhere");
  const std::string text = "extern \"C\" __global__ void f(float* x) { *x = 1; }";
  EXPECT_FALSE(cache.get("f.cu", text, {}, "sm_80").image.empty());
}

}  // namespace
}  // namespace nanoflex::cuda
