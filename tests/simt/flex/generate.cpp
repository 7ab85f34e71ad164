// Prints a header with the programs of all cases: generate >flex_programs.h
#include <iostream>

#include "attention/flex/cuda_source.h"
#include "tests/simt/flex/cases.h"

int main() {
  using namespace nanoflex;  // NOLINT
  const std::vector<simt::FlexCase> cases = simt::flex_cases(simt::kFlexSizes, 0);
  std::string programs, names, texts;
  for (const simt::FlexCase& one : cases) {
    const std::string text = flex::cuda_source(one.mask, one.score).text;
    programs += "namespace " + one.name + " {\n" + text +
                "inline const char* const kText = R\"__(" + text + ")__\";\n}\n\n";
    texts += one.name + "::kText, ";
    names += (names.empty() ? "" : ", ") + one.name + "::FlexProgram";
  }
  std::cout << "#pragma once\n#include <tuple>\n#include \"attention/cuda/mask.cuh\"\n"
            << "#include \"attention/cuda/program.cuh\"\n\nnamespace nanoflex::cuda {\n\n"
            << programs << "using FlexPrograms = std::tuple<" << names << ">;\n"
            << "inline const char* const kFlexTexts[] = {" << texts << "};\n\n"
            << "}  // namespace nanoflex::cuda\n";
}
