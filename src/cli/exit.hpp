// How a command ends. Inside this module a failure is thrown, and app.cpp alone turns it into a sentence on stderr and
// a code.
#pragma once

#include <string>
#include <utility>

#include "base/result.hpp"

namespace grange::cli {

enum ExitCode : int { kOk = 0, kFailed = 1, kUsage = 2, kUnreachable = 3, kNotFound = 4, kInterrupted = 130 };

struct Exit {
  int code = kFailed;
  std::string message;  // one sentence that says what to do; empty: already said
};

// What an error from the server or from another module means to a script.
int exit_code(ErrorClass c);
// The same for an error answer's HTTP status.
int exit_code_of_status(int status);
[[noreturn]] void fail(const Error& error);

template <class T>
T take(Result<T> result) {
  if (!result.ok()) fail(result.error());
  return std::move(result).value();
}

}  // namespace grange::cli
