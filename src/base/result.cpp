#include "base/result.hpp"

namespace grange {

std::string_view code(ErrorClass c) {
  switch (c) {
    case ErrorClass::invalid_argument:
      return "invalid_argument";
    case ErrorClass::invalid_state_transition:
      return "invalid_state_transition";
    case ErrorClass::unauthenticated:
      return "unauthenticated";
    case ErrorClass::forbidden:
      return "forbidden";
    case ErrorClass::not_found:
      return "not_found";
    case ErrorClass::conflict:
      return "conflict";
    case ErrorClass::too_large:
      return "too_large";
    case ErrorClass::stale:
      return "stale";
    case ErrorClass::rate_limited:
      return "rate_limited";
    case ErrorClass::unavailable:
      return "unavailable";
    case ErrorClass::storage_full:
      return "storage_full";
    case ErrorClass::storage_damaged:
      return "storage_damaged";
    case ErrorClass::version_mismatch:
      return "version_mismatch";
    case ErrorClass::timeout:
      return "timeout";
    case ErrorClass::io:
      return "io";
    case ErrorClass::cancelled:
      return "cancelled";
    case ErrorClass::internal:
      return "internal";
  }
  return "internal";
}

int http_status(ErrorClass c) {
  switch (c) {
    case ErrorClass::invalid_argument:
      return 400;
    case ErrorClass::unauthenticated:
      return 401;
    case ErrorClass::forbidden:
      return 403;
    case ErrorClass::not_found:
      return 404;
    case ErrorClass::invalid_state_transition:
    case ErrorClass::conflict:
    case ErrorClass::stale:
      return 409;
    case ErrorClass::too_large:
      return 413;
    case ErrorClass::version_mismatch:
      return 426;
    case ErrorClass::rate_limited:
      return 429;
    case ErrorClass::cancelled:
      return 499;
    case ErrorClass::unavailable:
      return 503;
    case ErrorClass::timeout:
      return 504;
    case ErrorClass::storage_full:
      return 507;
    case ErrorClass::storage_damaged:
    case ErrorClass::io:
    case ErrorClass::internal:
      return 500;
  }
  return 500;
}

}  // namespace grange
