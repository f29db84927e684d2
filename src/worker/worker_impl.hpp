// The worker's parts, and who calls whom. For the worker's own files.
#pragma once

#include <unistd.h>

#include <map>
#include <optional>
#include <unordered_map>

#include "base/clock.hpp"
#include "worker/blobs.hpp"
#include "worker/command_engine.hpp"
#include "worker/core.hpp"
#include "worker/data_dir.hpp"
#include "worker/health.hpp"
#include "worker/load.hpp"
#include "worker/machine_pages.hpp"
#include "worker/python_engine.hpp"
#include "worker/relay.hpp"
#include "worker/resources.hpp"
#include "worker/services/keeper.hpp"
#include "worker/services/services.hpp"
#include "worker/session_client.hpp"
#include "worker/worker.hpp"

namespace grange::worker {

struct Worker::Impl final : EngineHost, SessionOwner, std::enable_shared_from_this<Worker::Impl> {
  Impl(net::Loop& l, WorkerOptions o, std::unique_ptr<net::Dialer> d)
      : loop(l), options(std::move(o)), dialer(std::move(d)) {
    while (!options.server_url.empty() && options.server_url.back() == '/') options.server_url.pop_back();
  }

  // worker.cpp
  Result<> start();
  void start_python();
  void start_services();
  void start_health();
  std::string name() const { return options.name.empty() ? resources.hostname : options.name; }
  void step(const Event& event);
  void act(Effects& now);
  void arm();
  void look();
  void drain();
  void start_leaving();
  void leave();
  void leave_link();

  // worker_host.cpp: EngineHost and SessionOwner
  void ended(TaskId task, Attempt attempt, pb::TaskResult result) override;
  bool log(TaskId task, Attempt attempt, pb::Stream stream, std::string_view bytes) override;
  bool send_log(const Fence& fence, pb::Stream stream, std::string text);
  void stage(TaskId task, Attempt attempt, pb::Stage stage) override { step(StageEntered{task, attempt, stage}); }
  void progress(TaskId task, Attempt attempt, double done, double total, std::string text) override;
  void event(TaskId task, Attempt attempt, std::string type, std::string data_json) override;
  void checkpoint(TaskId task, Attempt attempt, std::string bytes) override;
  void checkpoint_done(const AttemptKey& key, std::uint64_t number);
  void send_checkpoint(TaskId task, Attempt attempt, pb::Checkpoint out);
  void engine_off(Kind kind, std::string why) override;
  void fill_hello(pb::WorkerHello& hello) override;
  void fill_manifest(pb::Manifest& manifest) override;
  void welcomed(const pb::Welcome& welcome) override { step(Welcomed{&welcome}); }
  void orders(pb::WorkerOrders& orders) override { step(OrdersArrived{&orders}); }
  bool take_report(pb::WorkerReport& report, Bytes limit) override;
  void fill_heartbeat(pb::Heartbeat& beat) override;
  void room_for_output() override;
  void relay(pb::Relay& relay) override;
  void link_writable() override;
  void refused(const Error& why) override;
  void link_changed(net::LinkState state) override;

  // worker_status.cpp
  std::string state() const;
  bool ready() const;
  std::string status_json() const;

  net::Loop& loop;
  WorkerOptions options;
  std::unique_ptr<net::Dialer> dialer;
  SystemClock clock;
  std::unique_ptr<Guardian> guardian;
  DataDir data;
  Resources resources;
  PythonCheck python_check;
  std::uint32_t slots = 1;
  std::unique_ptr<WorkerCore> core;
  std::unique_ptr<SessionClient> client;
  std::unique_ptr<Blobs> blobs;
  struct Upload {
    Blobs::WaitPtr wait;
    std::uint64_t number = 0;
  };
  std::unordered_map<AttemptKey, Upload, AttemptKeyHash> checkpoints;  // on their way
  std::uint64_t uploads = 0;
  // Attempts that are given back as soon as their checkpoint has arrived.
  std::unordered_map<AttemptKey, pb::TaskResult, AttemptKeyHash> after_checkpoint;
  std::unordered_map<AttemptKey, Bytes, AttemptKeyHash> logged;
  std::unordered_map<AttemptKey, Instant, AttemptKeyHash> began;  // what runs in an engine: for the times of its events
  std::unique_ptr<net::HttpClient> http;                          // to services
  std::unique_ptr<Keeper> keeper;                                 // null: it keeps none
  std::unique_ptr<Services> services;
  std::unique_ptr<RelayHost> relays;
  std::map<Kind, std::unique_ptr<Engine>> engines;
  PythonEngine* python = nullptr;  // one of them
  std::unique_ptr<net::Listener> health;
  LoadHistory load_history;
  Effects effects;
  bool acting = false, left = false, gone = false;
  std::unique_ptr<net::Timer> wake, leaving, patience, last, looking, end_of_life;
  Instant armed{}, life_over = Instant::never();
  CpuTicks ticks;
  std::unique_ptr<LoadMeter> load_meter;
  std::optional<Error> error;
  std::vector<std::function<void()>> done_calls;
  std::function<void(const Error*)> on_ended;
};

}  // namespace grange::worker
