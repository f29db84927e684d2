// What can be done with the models of a machine: one object for each running task of the engine "models".
#pragma once

#include <boost/json/object.hpp>
#include <functional>
#include <memory>

#include "worker/engines/engines.hpp"
#include "worker/engines/failure.hpp"

namespace grange::worker {

struct ModelsTask {
  const EngineContext& context;
  net::Loop& disk;  // a thread for what blocks
  pb::ModelsSpec spec;
  std::function<void(std::string type, const boost::json::object& data)> event;
  std::function<void(double done, double total, std::string text)> progress;
  // One of these, once, in a later turn of the loop; it destroys the op.
  std::function<void(boost::json::object result)> done;
  std::function<void(EngineFailure)> failed;
};

class ModelsOp {  // destroyed: stopped, and what it was doing is left as a later try can go on from
 public:
  virtual ~ModelsOp() = default;
  virtual void pause(bool) {}
};

std::unique_ptr<ModelsOp> start_pull(ModelsTask task);
std::unique_ptr<ModelsOp> start_fetch(ModelsTask task);
std::unique_ptr<ModelsOp> start_remove(ModelsTask task);
std::unique_ptr<ModelsOp> start_reset(ModelsTask task);
std::unique_ptr<ModelsOp> start_care(ModelsTask task);  // start, stop, restart

// Tells of what is done at most four times a second, and each time that the status changes.
class SyncProgress {
 public:
  SyncProgress(const Clock& clock, const ModelsTask& task) : clock_(clock), task_(task) {}
  void show(Bytes done, Bytes total, const std::string& status);

 private:
  const Clock& clock_;
  const ModelsTask& task_;
  std::string status_;
  Instant told_{INT64_MIN / 2};
};

// Requests of an op to one service, one after the other.
class Asking {
 public:
  Asking(net::HttpClient& http, ServiceInfo service) : http_(http), service_(std::move(service)) {}
  const ServiceInfo& service() const { return service_; }
  void ask(const std::string& method, const std::string& path, std::string body,
           std::function<void(const Result<net::ClientResponse>&)> then, Millis idle = Millis{30'000});
  net::ClientRequest request(const std::string& method, const std::string& path, std::string body) const;

 private:
  net::HttpClient& http_;
  ServiceInfo service_;
  std::unique_ptr<net::HttpClient::Call> call_;
};
EngineFailure refused_by(const ServiceInfo& service, const Result<net::ClientResponse>& answer);

}  // namespace grange::worker
