#include "core/types.hpp"

namespace grange::core {

std::string_view name(TaskEnd e) {
  switch (e) {
    case TaskEnd::completed:
      return "completed";
    case TaskEnd::failed:
      return "failed";
    case TaskEnd::cancelled:
      return "cancelled";
  }
  return "failed";
}

std::string_view name(FailureClass c) {
  switch (c) {
    case FailureClass::none:
      return "none";
    case FailureClass::worker_lost:
      return "worker_lost";
    case FailureClass::out_of_memory:
      return "out_of_memory";
    case FailureClass::time_limit:
      return "time_limit";
    case FailureClass::exit_code:
      return "exit_code";
    case FailureClass::exception:
      return "exception";
    case FailureClass::engine:
      return "engine_error";
    case FailureClass::refused:
      return "refused";
    case FailureClass::cancelled:
      return "cancelled";
    case FailureClass::deadline:
      return "deadline";
    case FailureClass::dependency:
      return "dependency";
  }
  return "none";
}

std::string_view name(Stage s) {
  switch (s) {
    case Stage::none:
      return "none";
    case Stage::reserve:
      return "reserve";
    case Stage::startup:
      return "startup";
    case Stage::download:
      return "download";
    case Stage::execute:
      return "execute";
    case Stage::upload:
      return "upload";
  }
  return "none";
}

std::string_view name(Fault f) {
  switch (f) {
    case Fault::none:
      return "none";
    case Fault::job:
      return "job";
    case Fault::system:
      return "system";
  }
  return "none";
}

Fault fault_of(FailureClass c, Stage stage) {
  using enum FailureClass;
  switch (c) {
    case none:
      return Fault::none;
    case exception:
    case exit_code:
    case out_of_memory:
    case refused:
    case cancelled:
    case deadline:
    case dependency:
      return Fault::job;
    case time_limit:
      return stage == Stage::execute || stage == Stage::none ? Fault::job : Fault::system;
    case worker_lost:
    case engine:
      return Fault::system;
  }
  return Fault::system;
}

std::string_view name(JobState s) {
  switch (s) {
    case JobState::pending:
      return "pending";
    case JobState::running:
      return "running";
    case JobState::completed:
      return "completed";
    case JobState::failed:
      return "failed";
    case JobState::cancelled:
      return "cancelled";
  }
  return "pending";
}

std::string_view name(AttemptState s) {
  switch (s) {
    case AttemptState::pending:
      return "pending";
    case AttemptState::assigned:
      return "assigned";
    case AttemptState::running:
      return "running";
    case AttemptState::paused:
      return "paused";
    case AttemptState::completed:
      return "completed";
    case AttemptState::failed:
      return "failed";
  }
  return "pending";
}

bool allowed(AttemptState from, AttemptState to) {
  using enum AttemptState;
  switch (from) {
    case pending:
      return to == assigned;
    case assigned:
      return to == running || to == failed;
    case running:
      return to == paused || to == completed || to == failed;
    case paused:
      return to == running || to == failed;
    case completed:
    case failed:
      return false;
  }
  return false;
}

Result<> transition(AttemptState& state, AttemptState to) {
  if (!allowed(state, to)) {
    return Error{ErrorClass::invalid_state_transition,
                 "Cannot transition from " + std::string(name(state)) + " to " + std::string(name(to)),
                 {}};
  }
  state = to;
  return {};
}

}  // namespace grange::core
