// A run record from a stranger ends in a comparison in every form, or a message.
#include "tests/fuzz/input_file.h"
#include "trainer/comparison.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nanoflex;
  static const InputFile file("summary.json");
  file.write(data, size);
  try {
    const RunSummary run = read_run(file.folder());
    RunSummary other = run;
    if (auto& machine = other.config["machine"]; machine.is_object()) machine["seed"] = 43;
    const Comparison comparison = compare({run, other});
    to_text(comparison);
    to_markdown(comparison);
    to_json(comparison);
  } catch (const std::invalid_argument&) {
  }
  return 0;
}
