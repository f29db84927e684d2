// Why a task waits, as a person reads it.
#pragma once

#include <boost/json/value.hpp>
#include <cstdint>
#include <string>

namespace grange::cli {

namespace json = boost::json;

// Of an answer of `explain` or `plan`: the sentence first, then what holds it back, then each worker.
std::string explain_text(const json::value& explanation, std::int64_t now_ms, int width, bool colour);

}  // namespace grange::cli
