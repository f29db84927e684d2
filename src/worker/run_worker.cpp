#include <spdlog/spdlog.h>

#include "worker/worker.hpp"

namespace grange::worker {

int run_worker(WorkerOptions options) {
  net::Loop loop;
  Worker worker(loop, std::move(options));
  if (auto started = worker.start(); !started) {
    spdlog::error("{}", started.error().message);
    return 1;
  }
  int exit_code = 0, signals = 0;
  worker.on_ended([&](const Error* why) {
    if (why != nullptr) exit_code = 1;
    loop.stop();
  });
  loop.on_signals([&](int) {
    if (++signals == 1) {
      spdlog::info("Finishing what runs; once more to stop at once.");
      worker.drain([&] { loop.stop(); });
    } else {
      worker.stop([&] { loop.stop(); });
    }
  });
  loop.run();
  return exit_code;
}

}  // namespace grange::worker
