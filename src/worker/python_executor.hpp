// One warm `python -m grange.runner` process: its socket, its output, its end.
#pragma once

#include <memory>
#include <string>

#include "worker/executor_protocol.hpp"
#include "worker/process.hpp"

namespace grange::worker {

struct PythonEvents {
  std::function<void(executor::Message)> on_message;
  std::function<bool(Output, std::string_view)> on_output;
  std::function<void(const ExitStatus&)> on_gone;  // once, last
};

class PythonExecutor {
 public:
  static Result<std::unique_ptr<PythonExecutor>> start(net::Loop& loop, const Guardian* guardian, ProcessSpec spec,
                                                       PythonEvents events);
  ~PythonExecutor();
  void send(std::string bytes);
  void hold();    // no more messages until resume()
  void resume();  // messages and output
  Process& process();

 private:
  struct Impl;
  explicit PythonExecutor(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

}  // namespace grange::worker
