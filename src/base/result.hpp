// Errors across modules are values: a class that a program can act on, and a message that says to a person what to do.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "base/assert.hpp"

namespace grange {

// Every class of error that leaves a module. `code()` is its name on the wire and in REST answers.
enum class ErrorClass {
  invalid_argument,          // 400  the request makes no sense as it stands
  invalid_state_transition,  // 409
  unauthenticated,           // 401
  forbidden,                 // 403  Host, Origin or right
  not_found,                 // 404
  conflict,                  // 409  same key, other content; a worker id already connected
  too_large,                 // 413
  stale,                     // 409  a fence that is not the current one
  rate_limited,              // 429  a full queue
  unavailable,               // 503  server not there, closing, or recovering
  storage_full,              // 507
  storage_damaged,           // 500
  version_mismatch,          // 426
  timeout,                   // 504
  io,                        // 500
  cancelled,                 // 499
  internal,                  // 500
};

std::string_view code(ErrorClass c);
int http_status(ErrorClass c);

struct Error {
  ErrorClass cls = ErrorClass::internal;
  std::string message;       // a sentence for a person, with what to do where that is known
  std::string details = {};  // JSON object or empty: context for programs

  Error with_context(std::string_view before) && {
    message = std::string(before) + ": " + message;
    return std::move(*this);
  }
};

struct Unit {};

template <class T = Unit>
class [[nodiscard]] Result {
 public:
  Result(T value) : v_(std::in_place_index<0>, std::move(value)) {}      // NOLINT: implicit by design
  Result(Error error) : v_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: implicit by design
  Result() requires std::is_same_v<T, Unit> : v_(std::in_place_index<0>) {}

  bool ok() const { return v_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() & {
    GRANGE_ASSERT(ok());
    return *std::get_if<0>(&v_);
  }
  const T& value() const& {
    GRANGE_ASSERT(ok());
    return *std::get_if<0>(&v_);
  }
  T&& value() && {
    GRANGE_ASSERT(ok());
    return std::move(*std::get_if<0>(&v_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  Error& error() & {
    GRANGE_ASSERT(!ok());
    return *std::get_if<1>(&v_);
  }
  const Error& error() const& {
    GRANGE_ASSERT(!ok());
    return *std::get_if<1>(&v_);
  }
  Error&& error() && {
    GRANGE_ASSERT(!ok());
    return std::move(*std::get_if<1>(&v_));
  }

 private:
  std::variant<T, Error> v_;
};

}  // namespace grange
