// What the parts of the server share. All of it is used on the Loop's thread; queue, stores and pools have threads of
// their own behind.
#pragma once

#include <memory>

#include "base/clock.hpp"
#include "net/loop.hpp"
#include "queue/local.hpp"
#include "server/authorize.hpp"
#include "server/events.hpp"
#include "server/job_book.hpp"
#include "server/reader_pool.hpp"
#include "server/server.hpp"
#include "store/blobs.hpp"
#include "store/logs.hpp"

namespace grange::server {

class RunBook;
class WorkerHub;
class Overview;
class AlertDesk;
class TokenDesk;
namespace gateway {
class Gateway;
}

struct Services {
  net::Loop& loop;
  ServerOptions options;
  const Clock& clock;
  Authenticator authenticator;
  queue::LocalQueue* queue = nullptr;
  store::BlobStore* blobs = nullptr;
  store::LogStore* logs = nullptr;
  ReaderPool* readers = nullptr;  // short questions to the store
  ReaderPool* files = nullptr;    // hashing, logs: work that may take seconds
  Events* events = nullptr;
  JobBook* jobs = nullptr;
  WorkerHub* workers = nullptr;
  RunBook* runs = nullptr;
  Overview* overview = nullptr;
  AlertDesk* alerts = nullptr;
  TokenDesk* tokens = nullptr;
  gateway::Gateway* gateway = nullptr;
  Post post;
  Instant started{};
  WallMs started_at{};
  bool stopping = false;
};

inline constexpr std::string_view kVersion = "0.1.0";

}  // namespace grange::server
