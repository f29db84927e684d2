// Runs Python functions on warm executors, one a slot.
#pragma once

#include <memory>

#include "worker/blobs.hpp"
#include "worker/engine.hpp"
#include "worker/guardian.hpp"

namespace grange::worker {

struct PythonOptions {
  std::string interpreter, python_path;
  std::string server_url;  // GRANGE_URL of the executors: a task may use its own farm
  std::string folder;      // DATA/executors
  std::string path, home;
  std::uint32_t slots = 1;
  std::uint32_t recycle_tasks = 0;  // after so many tasks an executor is replaced; 0: never
  Bytes recycle_rss = 0;            // or when it keeps more memory than this after a task; 0: never
  Millis ready_limit{30'000};
  Millis restart_first{500}, restart_last{10'000};
  std::function<Bytes()> inline_limit;
};

class PythonEngine : public Engine {
 public:
  struct Status {
    std::uint32_t ready = 0, busy = 0, starting = 0;
    std::uint64_t started = 0, recycled = 0, died = 0;
    std::string off;
  };
  virtual Status status() const = 0;
  virtual void prestart() = 0;
};

std::unique_ptr<PythonEngine> make_python_engine(net::Loop& loop, EngineHost& host, Blobs& blobs,
                                                 const Guardian* guardian, PythonOptions options);

}  // namespace grange::worker
