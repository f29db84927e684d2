// A worker: the production mind (worker::WorkerCore) and session (wire::Session) over simulated wires and executors.
// The rules of worker/session_client.cpp are mirrored, since there they hang on sockets. One that lies wraps the same
// mind.
#pragma once

#include <memory>
#include <unordered_map>

#include "auditor.hpp"
#include "net.hpp"
#include "options.hpp"
#include "wire/session.hpp"
#include "worker/core.hpp"

namespace grange::sim {

struct Machine {
  std::uint32_t slots = 1;
  std::uint32_t gpus = 0;
  Bytes memory = 0;
  std::string zone;
};

// Fences that went by: what a liar may have overheard.
struct Rumours {
  std::vector<Fence> fences;
  void heard(const Fence& fence) {
    if (fences.size() < 256) return fences.push_back(fence);
    fences[next++ % fences.size()] = fence;
  }
  std::size_t next = 0;
};

class WorkerActor {
 public:
  WorkerActor(World& world, Net& net, Auditor& auditor, const Options& options, Rumours& rumours, std::uint32_t number,
              bool liar);

  void start();
  std::uint32_t number() const { return number_; }
  bool running() const { return core_ != nullptr; }
  bool online() const { return welcomed_; }
  bool liar() const { return liar_; }
  const Machine& machine() const { return machine_; }

  // Faults.
  void crash(Micros away);
  void pause(Micros how_long);
  void slow(int factor) { slowness_ = factor; }
  void drain();
  void change(const Machine& machine);  // from its next start on
  void second_connection();
  void be_of_another_version(int hellos) { strange_hellos_ = hellos; }
  void add_unknown_fields(bool on) { unknown_fields_ = on; }
  void stop_lying() { liar_ = false; }
  void heal();

 private:
  struct Executor {
    Fence fence;
    std::string key;
    bool frozen = false;
    bool stopped = false;
    Micros left{};
    Instant ends{};
    std::uint64_t no = 0;
  };
  struct Script {
    Micros mean{};
    double fails = 0, kills = 0;
    bool stubborn = false;
  };
  // Runs `f` unless this life is over; later when the machine is paused.
  void later(Micros wait, std::function<void()> f);
  void now_or_later(std::function<void()> f);
  void dial();
  void up(ConnId conn);
  void message(ConnId conn, std::string bytes, Instant sent);
  void welcome(const pb::Welcome& welcome);
  void orders(pb::WorkerOrders& orders, Instant sent);
  void drop(std::string_view why);
  void watch();
  void wake();
  void act();
  void run(worker::Run& run);
  void finish(std::uint64_t no);
  void flush_soon();
  void flush();
  void lie();
  void transmit(std::string bytes);
  void fill(pb::Manifest& m) const;
  bool has_model() const { return world_.mono().us / 40'000'000 % 2 == 1; }
  Script script(const pb::JobSpec& spec) const;

  World& world_;
  Net& net_;
  Auditor& auditor_;
  const Options& options_;
  Rumours& rumours_;
  const std::uint32_t number_;
  bool liar_ = false;
  Dice dice_;
  Machine machine_;
  std::string id_;

  std::unique_ptr<worker::WorkerCore> core_;
  worker::Effects effects_;
  wire::Session session_;
  std::string session_id_;
  ConnId conn_ = 0;
  bool model_said_ = false;
  bool welcomed_ = false, dialing_ = false, flush_posted_ = false, leaving_ = false;
  std::uint64_t life_ = 0, sessions_ = 0, next_executor_ = 1, value_ = 0;
  std::uint32_t tries_ = 0;
  Micros heartbeat_ = ms(2000), lease_ = ms(10'000);
  Instant last_heard_{}, last_beat_{}, connected_at_{}, paused_until_{}, wake_at_ = Instant::never();
  std::vector<Fence> claimed_;  // a liar's inventions
  std::map<std::uint64_t, Executor> executors_;
  int slowness_ = 1, strange_hellos_ = 0;
  bool unknown_fields_ = false;
};

}  // namespace grange::sim
