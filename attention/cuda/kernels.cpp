#include "attention/cuda/kernels.h"

namespace nanoflex::cuda {
namespace {

std::string text_of(bool value) { return value ? "true" : "false"; }
std::string text_of(const Shape& s) {
  return "Shape{" + std::to_string(s.columns) + ", " + std::to_string(s.warps) + ", " +
         std::to_string(s.row_tiles) + ", " + std::to_string(s.stages) + "}";
}

std::string name_of(const std::string& kind, const KernelOptions& options) {
  const std::string type = options.tf32 ? "tf32" : name_of(options.type);
  return kind + "_" + type + "_" + std::to_string(options.D) +
         (options.program.empty() ? "" : "_flex") + (options.dropout ? "_dropout" : "") + ".cu";
}

// A program takes registers, as dropout does: then steps are smaller.
bool takes_registers(const KernelOptions& options) {
  return options.dropout || !options.program.empty();
}

// The kernel around a call such as flash_delta<float>(params). A call that runs a program ends in
// its name, kProgram.
constexpr char kProgram[] = "(params, program)";

Kernel wrap(const std::string& kind, const KernelOptions& options, const std::string& file,
            const std::string& params, const std::string& call, Kernel kernel) {
  kernel.name = name_of(kind, options);
  // "At least one block" lets a thread have all 255 registers; without it the compiler looks for a
  // compromise. Which of the two does without spills differs; the compile test watches over it.
  // Plain fp32 kernels need fewer, so that two blocks share a processor.
  const bool two_blocks = options.type == Type::float32 && !options.tf32 &&
                          !takes_registers(options) && options.gpu != Gpu::small &&
                          padded_head_size(options.D) <= 192;
  const bool all_registers =
      !two_blocks && (kernel.threads > 128 || options.gpu == Gpu::small ||
                      padded_head_size(options.D) <= 64 || !options.program.empty());
  const std::string bounds = std::to_string(kernel.threads) + (all_registers ? ", 1" : "");
  std::string arguments = "const __grid_constant__ " + params + " params", before, body;
  if (call.ends_with(kProgram) && options.program.empty()) {
    body = "  const NoProgram program;\n";
  } else if (call.ends_with(kProgram)) {
    before = options.program;
    arguments += ",\n    const __grid_constant__ FlexProgram::Arguments arguments";
    body = "  const FlexProgram program = {arguments};\n";
  }
  kernel.text = "#include \"attention/cuda/" + file +
                "\"\n#include \"attention/cuda/program.cuh\"\nnamespace nanoflex::cuda {\n" +
                before + "extern \"C\" __global__ void __launch_bounds__(" + bounds + ") " +
                kKernelName + "(" + arguments + ") {\n" + body + "  " + call + ";\n}\n}\n";
  return kernel;
}

std::string config(const std::string& kind, const KernelOptions& o, const Shape& shape,
                   const std::string& more = "") {
  return kind + "<" + source_name_of(o.type) + ", " + std::to_string(o.D) + ", " + text_of(shape) +
         more + ">";
}
std::string config32(const KernelOptions& o) {
  return "Config32<" + std::to_string(o.D) + ", " + text_of(o.tf32) + ">";
}

constexpr int kBytes = 2;        // of a 16-bit element
constexpr int kThreads32 = 256;  // of an fp32 kernel

Kernel of_shape(const Shape& shape, int shared_bytes) {
  return {{}, {}, 32 * shape.warps, shared_bytes, own_rows(shape)};
}

Kernel backward_keys_kernel(const KernelOptions& o, bool dk, bool dv) {
  const Shape shape = backward_keys_shape(o.D, o.gpu, takes_registers(o));
  const std::string which = ", " + text_of(dk) + ", " + text_of(dv);
  const std::string kind = dk && dv ? "backward_dk_dv" : dk ? "backward_dk" : "backward_dv";
  return wrap(kind, o, "flash_backward_keys.cuh", "BackwardParams",
              "flash_backward_keys<" + config("BackwardKeysConfig", o, shape, which) + ", " +
                  text_of(o.dropout) + ">" + kProgram,
              of_shape(shape, backward_keys_shared_bytes(o.D, shape, kBytes)));
}

Kernel backward_kernel32(const KernelOptions& o, bool keys) {
  const Shape32 shape = backward_shape32(o.D);
  return wrap(keys ? "backward_dk_dv" : "backward_dq", o, "flash_fp32_backward.cuh",
              "BackwardParams",
              "flash_backward_fp32<" + config32(o) + ", " + text_of(keys) + ", " +
                  text_of(o.dropout) + ">" + kProgram,
              {{}, {}, kThreads32, backward_shared_bytes32(o.D, shape), shape.own});
}

}  // namespace

std::string name_of(Type type) {
  return type == Type::bfloat16 ? "bf16" : type == Type::float16 ? "fp16" : "fp32";
}

std::string source_name_of(Type type) {
  return type == Type::bfloat16 ? "__nv_bfloat16" : type == Type::float16 ? "__half" : "float";
}

Kernel forward_kernel(const KernelOptions& o) {
  if (o.type == Type::float32) {
    const Shape32 shape = forward_shape32(o.D);
    return wrap("forward", o, "flash_fp32_forward.cuh", "ForwardParams",
                "flash_forward_fp32<" + config32(o) + ", " + text_of(o.dropout) + ">" + kProgram,
                {{}, {}, kThreads32, forward_shared_bytes32(o.D, shape), shape.own});
  }
  const Shape shape = forward_shape(o.D, o.gpu, takes_registers(o));
  return wrap("forward", o, "flash_forward.cuh", "ForwardParams",
              "flash_forward<" + config("ForwardConfig", o, shape) + ", ForwardFeatures<" +
                  text_of(o.dropout) + ">>" + kProgram,
              of_shape(shape, forward_shared_bytes(o.D, shape, kBytes)));
}

Kernel split_kernel(const KernelOptions& o, bool few_rows) {
  const Shape shape = few_rows ? decode_shape(o.D, o.gpu) : split_shape(o.D, o.gpu);
  return wrap(few_rows ? "decode" : "split", o, "flash_forward.cuh", "ForwardParams",
              "flash_forward<" + config("ForwardConfig", o, shape) +
                  ", ForwardFeatures<false, true, true>>" + kProgram,
              of_shape(shape, forward_shared_bytes(o.D, shape, kBytes)));
}

Kernel combine_kernel(const KernelOptions& o) {
  return wrap("combine", {.type = o.type, .D = o.D, .gpu = o.gpu}, "flash_decode.cuh",
              "ForwardParams",
              "flash_combine<" + source_name_of(o.type) + ", " + std::to_string(o.D) + ">(params)",
              {{}, {}, 128, 0, 4});
}

BackwardKernels backward_kernels(const KernelOptions& o) {
  const int lanes_per_row = 8, threads = 128;
  Kernel delta = wrap("delta", {.type = o.type, .D = o.D, .gpu = o.gpu}, "flash_backward.cuh",
                      "BackwardParams", "flash_delta<" + source_name_of(o.type) + ">(params)",
                      {{}, {}, threads, 0, threads / lanes_per_row});
  if (o.type == Type::float32) {
    return {delta, backward_kernel32(o, false), {backward_kernel32(o, true)}};
  }
  const Shape shape = backward_queries_shape(o.D, o.gpu, takes_registers(o));
  Kernel queries = wrap("backward_dq", o, "flash_backward_queries.cuh", "BackwardParams",
                        "flash_backward_queries<" + config("BackwardQueriesConfig", o, shape) +
                            ", " + text_of(o.dropout) + ">" + kProgram,
                        of_shape(shape, backward_queries_shared_bytes(o.D, shape, kBytes)));
  if (backward_keys_at_once(o.D)) return {delta, queries, {backward_keys_kernel(o, true, true)}};
  return {
      delta, queries, {backward_keys_kernel(o, true, false), backward_keys_kernel(o, false, true)}};
}

std::vector<Kernel> all_kernels(Gpu gpu) {
  std::vector<Kernel> kernels;
  const auto add_all = [&](const KernelOptions& o) {
    kernels.push_back(forward_kernel(o));
    const BackwardKernels backward = backward_kernels(o);
    kernels.push_back(backward.queries);
    for (const Kernel& keys : backward.keys) kernels.push_back(keys);
    if (o.type == Type::float32 || o.dropout) return;
    kernels.push_back(split_kernel(o, true));
    kernels.push_back(split_kernel(o, false));
    kernels.push_back(combine_kernel(o));
  };
  for (const int D : {32, 64, 96, 128, 192, 256}) {
    for (const bool dropout : {false, true}) {
      add_all({.type = Type::bfloat16, .D = D, .gpu = gpu, .dropout = dropout});
    }
  }
  // The same code in another type: the sizes where registers are scarcest stand for all.
  for (const int D : {64, 128}) add_all({.type = Type::float16, .D = D, .gpu = gpu});
  for (const bool tf32 : {false, true}) {
    for (const int D : {64, 256}) {
      add_all({.type = Type::float32, .D = D, .gpu = gpu, .dropout = true, .tf32 = tf32});
    }
    for (const int D : {64, 128, 192}) {
      add_all({.type = Type::float32, .D = D, .gpu = gpu, .tf32 = tf32});
    }
  }
  for (const Type type : {Type::bfloat16, Type::float16, Type::float32}) {
    kernels.push_back(backward_kernels({.type = type, .D = 64, .gpu = gpu}).delta);
  }
  return kernels;
}

}  // namespace nanoflex::cuda
