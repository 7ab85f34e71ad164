// A YAML config from a stranger ends in a config or a message; what is accepted prints as YAML that
// reads back as the same.
#include "trainer/config.h"

#include "tests/fuzz/input_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nanoflex;
  static const InputFile file("config.yaml");
  file.write(data, size);
  Config config;
  try {
    apply_yaml(config, file.path());
    check(config);
  } catch (const std::invalid_argument&) {
    return 0;
  }
  const std::string yaml = to_yaml(config);
  file.write(reinterpret_cast<const uint8_t*>(yaml.data()), yaml.size());
  Config back;
  apply_yaml(back, file.path());
  require(to_json(back) == to_json(config), "reads back as another config:\n" + yaml);
  return 0;
}
