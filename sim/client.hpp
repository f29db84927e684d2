// A client: submits with idempotency keys, asks again while the answer is unknown, follows outcomes, and meddles.
#pragma once

#include <memory>

#include "auditor.hpp"
#include "net.hpp"
#include "options.hpp"
#include "worker.hpp"

namespace grange::sim {

class ClientActor {
 public:
  // machines: what the workers are that will be there in the end.
  ClientActor(World& world, Net& net, Auditor& auditor, const Options& options, std::uint32_t number,
              std::vector<Machine> machines);

  void start();
  void storm();        // asks everything that is unanswered again, several times
  void race_cancel();  // cancels what is about to end
  // From now on it only wants to see the end: nothing paused, nothing open, no limits.
  void settle();
  bool idle() const { return pending_.empty() && ops_left_ == 0; }
  std::string state() const;

 private:
  struct Job {
    std::string key;
    JobNo no;
    std::uint32_t count = 1;
    bool open = false, paused = false, meddled = false, ended = false, unwanted = false;
    std::set<std::uint32_t> paused_tasks;
    std::map<std::uint32_t, bool> have;
  };
  struct Pending {
    std::string bytes;
    std::function<void(const pb::Response&)> done;
    Instant sent{};
    std::uint32_t times = 0;
  };
  void dial();
  void message(std::string bytes);
  void drop();
  void watch();
  void next_op();
  void op();
  void ask(std::function<std::string(std::uint64_t id)> make, std::function<void(const pb::Response&)> done);
  void admin(const std::string& what);
  void transmit(const std::string& bytes);
  void follow(Job& job);

  Wanted draw_job(const std::string& suffix);
  void submit(Wanted wanted);
  void submit_graph();
  void known(const std::string& key, JobNo no);
  void cancel(Job& job, std::optional<std::uint32_t> index);
  void pause(Job& job, bool on, std::optional<std::uint32_t> index);
  void extend(Job& job, std::uint32_t count, bool close);
  void retry(Job& job);
  Job* some(bool live);

  World& world_;
  Net& net_;
  Auditor& auditor_;
  const Options& options_;
  const std::uint32_t host_;
  std::vector<Machine> machines_;
  Dice dice_;
  ConnId conn_ = 0;
  std::shared_ptr<ConnId> place_;
  bool dialing_ = false, settled_ = false;
  Instant last_heard_{};
  std::uint64_t next_id_ = 1, next_key_ = 1;
  std::uint32_t ops_left_ = 0;
  std::map<std::uint64_t, Pending> pending_;
  std::map<std::string, Job> jobs_;
  std::map<JobNo, std::string> by_no_;
};

}  // namespace grange::sim
