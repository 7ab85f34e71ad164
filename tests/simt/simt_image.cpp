#include "tests/simt/simt_image.h"

#include <cxxabi.h>
#include <elf.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>

namespace nanoflex::simt::image {

namespace {

/// The program itself is the first of the loaded objects.
dl_phdr_info program() {
  dl_phdr_info first{};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* result) {
        *static_cast<dl_phdr_info*>(result) = *info;
        return 1;
      },
      &first);
  return first;
}

std::string demangle(const char* symbol) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(
      abi::__cxa_demangle(symbol, nullptr, nullptr, &status), std::free);
  return status == 0 ? text.get() : symbol;
}

std::vector<char> read_program() {
  std::ifstream file("/proc/self/exe", std::ios::binary | std::ios::ate);
  std::vector<char> bytes(file.tellg());
  file.seekg(0);
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

std::string program_path() {
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof(path));
  return length > 0 ? std::string(path, length) : std::string();
}

/// addr2line's answer: "file:line" of each inlined function, innermost first.
std::vector<std::string> frames(uintptr_t address) {
  std::ostringstream command;
  command << "addr2line -ie '" << program_path() << "' 0x" << std::hex << address << " 2>/dev/null";
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.str().c_str(), "r"), pclose);
  std::vector<std::string> lines;
  char line[4096];
  while (pipe && std::fgets(line, sizeof(line), pipe.get())) {
    std::string text(line);
    text = text.substr(0, text.find_first_of("\n "));  // drops " (discriminator 2)"
    if (text.find(":?") == std::string::npos && text.find(":0") != text.size() - 2) {
      lines.push_back(text);
    }
  }
  return lines;
}

bool is_emulator(const std::string& frame) {
  return frame.find("/tests/simt/simt") != std::string::npos ||
         frame.find("/tests/simt/ptx.h") != std::string::npos || frame.starts_with("/usr/");
}

}  // namespace

std::vector<Range> segments() {
  const dl_phdr_info info = program();
  std::vector<Range> ranges;
  for (int i = 0; i < info.dlpi_phnum; ++i) {
    const ElfW(Phdr)& header = info.dlpi_phdr[i];
    if (header.p_type != PT_LOAD) continue;
    const uintptr_t address = info.dlpi_addr + header.p_vaddr;
    // NOLINTNEXTLINE(performance-no-int-to-ptr): that is how the program's headers say it
    const auto* begin = reinterpret_cast<const unsigned char*>(address);
    ranges.push_back({begin, begin + header.p_memsz});
  }
  return ranges;
}

uintptr_t base() { return program().dlpi_addr; }

std::vector<Variable> thread_local_variables() {
  const dl_phdr_info info = program();
  const auto* memory = static_cast<const unsigned char*>(info.dlpi_tls_data);
  size_t bytes = 0;
  for (int i = 0; i < info.dlpi_phnum; ++i) {
    if (info.dlpi_phdr[i].p_type == PT_TLS) bytes = info.dlpi_phdr[i].p_memsz;
  }

  std::vector<Variable> variables;
  const std::vector<char> file = read_program();
  const auto* header = reinterpret_cast<const ElfW(Ehdr)*>(file.data());
  const auto* sections = reinterpret_cast<const ElfW(Shdr)*>(file.data() + header->e_shoff);
  for (int i = 0; i < header->e_shnum; ++i) {
    if (sections[i].sh_type != SHT_SYMTAB) continue;
    const auto* symbols = reinterpret_cast<const ElfW(Sym)*>(file.data() + sections[i].sh_offset);
    const char* names = file.data() + sections[sections[i].sh_link].sh_offset;
    for (size_t s = 0; s < sections[i].sh_size / sizeof(ElfW(Sym)); ++s) {
      const ElfW(Sym)& symbol = symbols[s];
      if (ELF64_ST_TYPE(symbol.st_info) != STT_TLS || symbol.st_shndx == SHN_UNDEF) continue;
      const unsigned char* begin = memory + symbol.st_value;
      if (symbol.st_size == 0) continue;
      variables.push_back({demangle(names + symbol.st_name), {begin, begin + symbol.st_size}});
    }
  }
  if (variables.empty()) variables.push_back({"shared memory", {memory, memory + bytes}});
  std::sort(variables.begin(), variables.end(),
            [](const Variable& a, const Variable& b) { return a.range.begin < b.range.begin; });
  return variables;
}

std::string source_line(uintptr_t return_address) {
  static std::map<uintptr_t, std::string> known;
  std::string& line = known[return_address];
  if (!line.empty()) return line;
  for (const std::string& frame : frames(return_address - base() - 1)) {
    if (line.empty() || is_emulator(line)) line = frame;
  }
  if (line.empty()) {
    std::ostringstream text;
    text << "0x" << std::hex << return_address - base() - 1
         << " (no line: needs addr2line and a program compiled with -g)";
    line = text.str();
  }
  return line;
}

}  // namespace nanoflex::simt::image
