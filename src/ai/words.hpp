// Small words of the readers of requests.
#pragma once

#include <algorithm>
#include <boost/json/value.hpp>
#include <initializer_list>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace grange::ai {

inline Error wrong(std::string message) {
  return Error{ErrorClass::invalid_argument, std::move(message)};
}

inline bool is_one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

std::string as_text(
    const boost::json::value& value);  // a text as it is, null as "", all else as JSON (llm_request.cpp)

}  // namespace grange::ai
