// The workers that are here now, whatever they speak, and the names of all that ever were. Deliveries of the queue
// reach them through it.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "grange/v1/wire.pb.h"
#include "server/services.hpp"

namespace grange::server {

namespace pb = ::grange::v1;

// How busy a machine is; what is not set was not measured there.
struct GpuLook {
  std::optional<double> percent, temperature_c;
  std::optional<Bytes> memory_used;
};
struct WorkerLoad {
  std::optional<std::uint64_t> network_in, network_out, disk_read, disk_write;  // bytes a second
  std::optional<double> temperature_c;
  std::vector<GpuLook> gpus;
};

// What a service uses that the worker keeps running.
struct ServiceLook {
  std::string name;
  std::optional<double> cpu_percent;
  std::optional<Bytes> memory;
};

// What a worker last said of itself.
struct WorkerFigures {
  bool connected = false;
  bool draining = false;
  WallMs seen{};
  std::uint32_t running = 0, backlog = 0, window = 0;
  double cpu_percent = 0;
  Bytes memory_used = 0, disk_free = 0;
  bool measured = false;  // cpu_percent, memory_used and load were said
  std::uint32_t cpus_milli = 0;
  WorkerLoad load;
  std::vector<ServiceLook> services;
  std::string dialect, peer;
};

// One worker's end of the line. Calls between two flushes become one message where the dialect can.
class WorkerChannel {
 public:
  virtual ~WorkerChannel() = default;
  virtual void assign(queue::Assign& assign, const JobMetaPtr& meta) = 0;  // meta null: not in memory yet
  virtual void cancel(const queue::Order& order) = 0;
  virtual void pause(const queue::PauseOrder& order) = 0;
  virtual void take_back(const queue::Order& order) = 0;
  virtual void acknowledge(const queue::AckOrder& ack) = 0;
  virtual void drain() = 0;
  // At once, whatever else waits; `relay` stays as it is. False: there is no room for more until the gateway hears that
  // there is, or no connection at all.
  virtual bool relay(pb::Relay& relay) {
    static_cast<void>(relay);
    return false;
  }
  virtual void flush() = 0;
  virtual void lost() = 0;  // its lease ended: what it held is somebody else's
  virtual const std::string& id() const = 0;
  virtual const std::string& host() const = 0;  // how other members of a gang find it
  virtual WorkerFigures figures() const = 0;
  bool touched = false;  // by the delivery at hand
};

class WorkerHub {
 public:
  explicit WorkerHub(Services& services) : s_(services) {}

  void remember(WorkerNo worker, const std::string& id) { names_[worker] = id; }
  const std::string& name_of(WorkerNo worker) const;  // "" when it never was
  const std::string& host_of(WorkerNo worker) const;  // the name of its machine; its own, when it is not here
  std::optional<WorkerNo> number_of(const std::string& id) const;

  // The channel of a worker's number, once the queue answered its hello.
  void bind(WorkerNo worker, std::shared_ptr<WorkerChannel> channel);
  void unbind(WorkerNo worker, const WorkerChannel* channel);  // no effect when another took its place
  WorkerChannel* find(WorkerNo worker) const;
  // A worker that has no session to come back to (of the JSON dialect) is gone. Anybody can make up ids: when there are
  // too many, the names of those gone longest are forgotten.
  void left(WorkerNo worker, Instant now) { gone_.emplace_back(worker, now); }
  void tick(Instant now);
  std::size_t names() const { return names_.size(); }

  void deliver(queue::Delivery& delivery);
  Result<> drain(const std::string& id);
  Result<WorkerNo> known(const std::string& id) const;  // not_found, with what to do
  std::size_t size() const { return channels_.size(); }
  const std::unordered_map<WorkerNo, std::shared_ptr<WorkerChannel>>& all() const { return channels_; }

 private:
  Services& s_;
  std::unordered_map<WorkerNo, std::shared_ptr<WorkerChannel>> channels_;
  std::unordered_map<WorkerNo, std::string> names_;
  std::vector<std::shared_ptr<WorkerChannel>> touched_;
  std::deque<std::pair<WorkerNo, Instant>> gone_;
};

}  // namespace grange::server
