// Small conversions between bytes and text that several parts of the server need. All are total.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/units.hpp"
#include "base/utf8.hpp"
#include "core/types.hpp"

namespace grange::server {

std::string iso_time(WallMs t);  // "2025-01-31T08:00:00.125Z"
std::string to_base64(std::string_view bytes);
std::string to_hex(std::string_view bytes);
std::optional<std::string> from_hex(std::string_view text);  // nullopt: odd length or a character that is not hex
std::string cut_utf8(std::string text, std::size_t bytes);   // at most so many, never inside a character
// What a peer said, fit for our own log: one line, cut, and nothing in it that moves a terminal's cursor.
std::string for_log(std::string_view text, std::size_t bytes = 200);
// A failure's message, or where it has none (no attempt of it ran to say one), what its class means.
std::string said(core::FailureClass failure, std::string message);
std::string html_escape(std::string_view text);
std::optional<std::uint64_t> to_number(std::string_view digits);  // decimal digits only, no sign, no overflow

}  // namespace grange::server
