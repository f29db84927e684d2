// Keeps the services of a machine running that its owner wrote down: their processes, their output, and looks at how
// they are. What is to be done, and when, is Care's to say. All on the loop's thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "net/http_client.hpp"
#include "wire/frames.hpp"
#include "worker/guardian.hpp"
#include "worker/services/care_spec.hpp"
#include "worker/services/service_log.hpp"

namespace grange::worker {

namespace pb = wire::pb;

struct KeeperOptions {
  std::vector<CareSpec> services;  // checked
  std::string folder;              // DATA/services
  std::string path;                // where programs are looked for
};

enum class CareWish : std::uint8_t { start, stop, restart };

class Keeper {
 public:
  struct Shown : Care::Seen {
    pid_t pid = 0;  // 0: it has no process
    WallMs since{};
  };

  virtual ~Keeper() = default;  // kills what still runs
  // Starts all.
  virtual Result<> start() = 0;
  virtual const std::vector<CareSpec>& specs() const = 0;
  virtual std::optional<Shown> shown(std::string_view name) const = 0;  // nothing: it is not kept
  virtual Result<> wish(std::string_view name, CareWish wish) = 0;
  virtual void on_change(std::function<void(const std::string& name)> changed) = 0;
  // False: it is not kept. `done` later; destroyed: never.
  virtual bool log(const std::string& name, std::size_t lines, std::uint64_t after,
                   std::function<void(ServiceLog::Tail)> done) = 0;
  virtual void fill(pb::Heartbeat& beat, Instant now) = 0;  // what they use
  // All politely, and none is started again; `done` when the last is gone.
  virtual void end(std::function<void()> done) = 0;
  virtual void end_now() = 0;
};

// What an earlier worker of this folder left running carries its mark: its guardian ends that, unless it was killed as
// well. May block for a moment.
void end_left_services(const std::string& folder);

// `guardian` may be null; it outlives the keeper.
std::unique_ptr<Keeper> make_keeper(net::Loop& loop, net::HttpClient& http, const Guardian* guardian,
                                    const Clock& clock, KeeperOptions options);

}  // namespace grange::worker
