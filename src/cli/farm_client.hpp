// A client of the Protobuf dialect: submits jobs, follows their outcomes, and goes on over lost connections and
// restarted servers.
//
// Threading: made, used and destroyed on any one thread that is not the Loop's; the callbacks come on the Loop's thread
// and may call submit() and cancel().
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "net/loop.hpp"
#include "wire/frames.hpp"

namespace grange::cli {

namespace pb = ::grange::v1;

struct FarmClientOptions {
  std::string url;  // ws://host:port/ws
  std::string token;
  int attempts = 0;  // dials in a row before on_lost; 0: for ever
};

class FarmClient {
 public:
  struct Events {
    // Each outcome of a followed job once, whatever happened to the connection. `ended` is set with the last ones.
    std::function<void(const pb::Outcomes&)> on_outcomes;
    std::function<void(const Error&)> on_lost = {};  // no more tries follow
  };
  FarmClient(net::Loop& loop, FarmClientOptions options, Events events);
  ~FarmClient();

  // Blocks until the server has welcomed us, or `limit` is over.
  Result<> connect(Millis limit);
  // Any thread. A spec without a key gets a random one, so that the submit can be repeated safely.
  void submit(pb::JobSpec spec, std::vector<pb::Payload> payloads, bool follow,
              std::function<void(const pb::Response&)> done);
  void cancel(std::string job_id, std::function<void(const pb::Response&)> done);
  // Follows a job that is there already.
  void follow(std::string job_id, std::function<void(const pb::Response&)> done);

  // Outcomes that came again and were not handed out: none on an unbroken connection. Any thread.
  std::uint64_t repeats() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace grange::cli
