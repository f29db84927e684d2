// How an engine's task fails: the class of ai/classify, or "unreachable" and "timeout" of the connection, with a
// sentence that says what to do.
#pragma once

#include "ai/classify.hpp"
#include "base/result.hpp"
#include "worker/engine.hpp"

namespace grange::worker {

struct EngineFailure {
  std::string name = {};
  std::string message = {};
  bool permanent = false;  // no machine can do it
  bool elsewhere = true;   // another service may
};

inline EngineFailure failure_of(const ai::Classified& said) {
  // A prompt that is too long is not tried again: who needs more room says so with num_ctx, and is sent where it is.
  const bool whoever = !said.retry_elsewhere || said.name == "context_overflow";
  return {said.name, said.sentence(), said.permanent && whoever, said.retry_elsewhere};
}

// begun: some of the answer had come.
inline EngineFailure unreachable(const std::string& service, const Error& error, bool begun) {
  EngineFailure out;
  out.name = error.cls == ErrorClass::timeout       ? "timeout"
             : error.cls == ErrorClass::unavailable ? "unreachable"
                                                    : "unknown";
  out.message = "The service \"" + service + "\" " +
                (begun ? "broke off in the middle of its answer. " : "gave no answer. ") + error.message;
  return out;
}

inline pb::TaskResult to_result(const EngineFailure& why) {
  pb::TaskResult out =
      failure(why.name == "oom" ? pb::FAILURE_OUT_OF_MEMORY : pb::FAILURE_ENGINE, why.message, why.permanent);
  out.set_exception(why.name);
  return out;
}

}  // namespace grange::worker
