#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace nanoflex {

using Colour = std::array<uint8_t, 3>;  ///< red, green, blue

struct Picture {
  int64_t width = 0, height = 0;
  std::vector<Colour> palette = {};  ///< at most 256
  std::vector<uint8_t> pixels = {};  ///< [height, width], indices into the palette
};

/// The bytes of a PNG file (RFC 2083), stored without compression: a byte a pixel. Throws
/// std::logic_error where pixels are not width x height, or colours not 1 to 256.
std::string png(const Picture& picture);

}  // namespace nanoflex
