#include "trainer/png.h"

#include <algorithm>
#include <stdexcept>

namespace nanoflex {
namespace {

void append_big_endian(std::string& bytes, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift & 0xff);
}

void append_little_endian(std::string& bytes, uint16_t value) {
  bytes += static_cast<char>(value & 0xff);
  bytes += static_cast<char>(value >> 8);
}

// CRC-32 as in RFC 2083, a bit at a time.
uint32_t checksum(const std::string& bytes) {
  uint32_t sum = 0xffffffff;
  for (const char byte : bytes) {
    sum ^= static_cast<uint8_t>(byte);
    for (int bit = 0; bit < 8; ++bit) sum = sum >> 1 ^ ((sum & 1) != 0 ? 0xedb88320 : 0);
  }
  return ~sum;
}

std::string chunk(const std::string& type, const std::string& data) {
  std::string bytes;
  append_big_endian(bytes, static_cast<uint32_t>(data.size()));
  bytes += type + data;
  append_big_endian(bytes, checksum(type + data));
  return bytes;
}

// A zlib stream (RFC 1950) of stored blocks (RFC 1951).
std::string stored(const std::string& data) {
  constexpr size_t kLargestBlock = 65535;
  std::string bytes = "\x78\x01";
  for (size_t begin = 0; begin < data.size(); begin += kLargestBlock) {
    const size_t size = std::min(kLargestBlock, data.size() - begin);
    bytes += static_cast<char>(begin + size == data.size() ? 1 : 0);
    append_little_endian(bytes, static_cast<uint16_t>(size));
    append_little_endian(bytes, static_cast<uint16_t>(~size));
    bytes.append(data, begin, size);
  }
  uint32_t low = 1, high = 0;  // Adler-32
  for (const char byte : data) {
    low = (low + static_cast<uint8_t>(byte)) % 65521;
    high = (high + low) % 65521;
  }
  append_big_endian(bytes, high << 16 | low);
  return bytes;
}

}  // namespace

std::string png(const Picture& picture) {
  const size_t colours = picture.palette.size();
  if (picture.width < 1 || picture.height < 1 || colours < 1 || colours > 256 ||
      static_cast<int64_t>(picture.pixels.size()) != picture.width * picture.height) {
    throw std::logic_error("png: width x height pixels and 1 to 256 colours are needed");
  }
  std::string header, palette, rows;
  append_big_endian(header, static_cast<uint32_t>(picture.width));
  append_big_endian(header, static_cast<uint32_t>(picture.height));
  header += std::string("\x08\x03\x00\x00\x00", 5);  // 8 bits, a palette, no filter, not interlaced
  for (const Colour& colour : picture.palette) palette.append(colour.begin(), colour.end());
  for (int64_t row = 0; row < picture.height; ++row) {
    rows += '\0';  // unfiltered
    const auto first = picture.pixels.begin() + row * picture.width;
    rows.append(first, first + picture.width);
  }
  return "\x89PNG\r\n\x1a\n" + chunk("IHDR", header) + chunk("PLTE", palette) +
         chunk("IDAT", stored(rows)) + chunk("IEND", "");
}

}  // namespace nanoflex
