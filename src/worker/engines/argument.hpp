// The one argument of an image or remote task: given, or the results of its parents. Pure.
#pragma once

#include <boost/json/value.hpp>

#include "base/result.hpp"
#include "worker/engines/task_input.hpp"

namespace grange::worker {

inline Error wrong_argument(std::string message) {
  return Error{ErrorClass::invalid_argument, std::move(message)};
}

// null: there is none. Of a parent's result that has a "text" it is that; of several parents a list.
Result<boost::json::value> argument_of(const TaskInput& input);

}  // namespace grange::worker
