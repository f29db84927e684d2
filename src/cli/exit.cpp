#include "cli/exit.hpp"

namespace grange::cli {

int exit_code(ErrorClass c) {
  switch (c) {
    case ErrorClass::not_found:
      return kNotFound;
    case ErrorClass::invalid_argument:
      return kUsage;
    case ErrorClass::unavailable:
    case ErrorClass::timeout:
      return kUnreachable;
    case ErrorClass::cancelled:
      return kInterrupted;
    default:
      return kFailed;
  }
}

int exit_code_of_status(int status) {
  if (status == 404) return kNotFound;
  if (status == 400 || status == 422) return kUsage;
  return kFailed;  // 503 too: the server is there, and said no
}

void fail(const Error& error) {
  throw Exit{exit_code(error.cls), error.message};
}

}  // namespace grange::cli
