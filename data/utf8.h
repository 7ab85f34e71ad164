// UTF-8, as far as reading text needs it.
#pragma once

#include <cstddef>
#include <string_view>

namespace nanoflex::data {

// The offset of the first byte that begins no well-formed character (RFC 3629: no overlong forms,
// no surrogates, nothing above U+10FFFF); text.size() when all is well.
size_t first_invalid_utf8(std::string_view text);

// The largest offset <= `offset` at which a character of valid UTF-8 begins.
size_t character_start(std::string_view text, size_t offset);

}  // namespace nanoflex::data
