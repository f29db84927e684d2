// The server without threads or sockets: the production engine (queue::Turn) over a disk that fails, and the door to
// it. The engine's loop is that of queue/local.cpp, cut at each point where a process can die.
#pragma once

#include <memory>
#include <optional>

#include "auditor.hpp"
#include "fold.hpp"
#include "net.hpp"
#include "options.hpp"
#include "queue/loop.hpp"
#include "support/lossy_vfs.hpp"

namespace grange::sim {

class Sessions;

class Server {
 public:
  Server(World& world, Net& net, Auditor& auditor, const Options& options);
  ~Server();

  void start();
  bool up() const { return turn_ != nullptr; }

  // Faults.
  void die_in(std::uint32_t boundaries, bool power) {
    die_in_ = boundaries;
    power_ = power;
  }
  void die_in_commit(std::uint64_t operation, bool power);
  void disk_error(std::uint64_t operation, bool lasting);
  void disk_full(bool on);
  void stall(Micros how_long);
  void restart_with(std::string policy, Millis lease);
  void heal();

  // For the sessions.
  void put(queue::Call call);
  store::Reader& reader() { return *reader_; }
  const core::Farm& farm() const { return turn_->farm(); }
  queue::Turn& turn() { return *turn_; }
  const Options& options() const { return options_; }
  Millis lease() const { return options_.lease; }
  Micros heartbeat() const { return std::chrono::duration_cast<Micros>(options_.lease) / 3; }
  std::uint64_t life() const { return life_; }
  Result<> room() const;
  World& world() { return world_; }
  Net& net() { return net_; }
  Auditor& auditor() { return auditor_; }
  // Runs `f`, in which the process may die.
  void guarded(const std::function<void()>& f);
  std::uint64_t restarts() const { return restarts_; }
  void look_inside();

 private:
  struct Died {};
  void boundary(std::string_view where);
  void schedule(Instant at);
  void engine();
  void seal();
  void commit();
  void commit_in(Micros wait);
  bool write(queue::Batch& batch);
  void release();
  void flush(Now now);
  void die(std::string_view why);
  void opened();

  World& world_;
  Net& net_;
  Auditor& auditor_;
  Options options_;
  Dice dice_;
  testing::LossyDisk disk_;
  Fold fold_;
  std::vector<core::Record> doubt_;  // of a commit that did not say whether it is on disk

  std::unique_ptr<store::Store> store_;
  std::unique_ptr<store::Reader> reader_;
  std::unique_ptr<queue::Turn> turn_;
  std::unique_ptr<Sessions> sessions_;
  std::vector<queue::Call> inbox_;
  std::unique_ptr<queue::Batch> batch_;     // on its way to the disk
  std::unique_ptr<queue::Batch> released_;  // on the disk, not let go yet
  Instant wake_ = Instant::never();
  Instant started_at_{}, stalled_until_{}, turn_began_{}, asleep_since_{}, awake_by_ = Instant::never();
  bool storage_full_ = false;
  std::uint64_t life_ = 0, restarts_ = 0, sealed_ = 0;
  std::uint32_t die_in_ = 0, turns_ = 0;
  std::map<std::string, core::UserView> users_;  // as last seen
  bool power_ = false;                           // the next death is a power loss
  bool disk_kills_ = false;                      // the disk's fault is the process's death
};

}  // namespace grange::sim
