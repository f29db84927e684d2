// Runs commands: a folder and a process group each, output live, files in and out as blobs.
#pragma once

#include <memory>

#include "worker/blobs.hpp"
#include "worker/engine.hpp"
#include "worker/guardian.hpp"

namespace grange::worker {

struct CommandOptions {
  std::string folder;      // DATA/tasks
  std::string path;        // PATH of the tasks
  std::string server_url;  // their GRANGE_URL: a task may use its own farm
};

std::unique_ptr<Engine> make_command_engine(net::Loop& loop, EngineHost& host, Blobs& blobs, const Guardian* guardian,
                                            CommandOptions options);

}  // namespace grange::worker
