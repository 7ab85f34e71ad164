// A safetensors file from a stranger ends in tensors or a message, and takes no more memory than
// its own size asks for; what is accepted is written and read back as the same.
#include "model/safetensors.h"

#include "tests/fuzz/input_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nanoflex;
  static const InputFile file("model.safetensors");
  file.write(data, size);
  std::map<std::string, at::Tensor> tensors;
  try {
    tensors = read_safetensors(file.path());
  } catch (const std::invalid_argument&) {
    return 0;
  }
  size_t bytes = 0;
  for (const auto& [name, tensor] : tensors) bytes += tensor.nbytes();
  require(bytes <= size, "more tensor bytes than the file has");
  write_safetensors(file.path(), tensors);
  const auto back = read_safetensors(file.path());
  require(back.size() == tensors.size(), "tensors lost on the way back");
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor& other = back.at(name);
    require(other.scalar_type() == tensor.scalar_type() && other.sizes() == tensor.sizes() &&
                (tensor.nbytes() == 0 ||
                 std::memcmp(other.data_ptr(), tensor.data_ptr(), tensor.nbytes()) == 0),
            "another tensor on the way back: " + name);
  }
  return 0;
}
