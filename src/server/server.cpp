#include "server/server.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <thread>

#include "core/farm.hpp"
#include "net/listener.hpp"
#include "server/alerts/alert_desk.hpp"
#include "server/api/rest.hpp"
#include "server/doorway.hpp"
#include "server/gateway/gateway.hpp"
#include "server/gateway/usage_book.hpp"
#include "server/job_news.hpp"
#include "server/overview/overview.hpp"
#include "server/runs/run_book.hpp"
#include "server/schedules.hpp"
#include "server/tokens/token_desk.hpp"

namespace grange::server {
namespace {

constexpr Millis kTick{100};
constexpr Millis kUpkeep{60'000};
constexpr Millis kSweepGrace{6ll * 3600 * 1000};  // an uploaded blob that no job names yet stays so long
constexpr std::uint32_t kForgetAtOnce = 100;

bool is_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

Result<> check(const ServerOptions& options) {
  if (options.data_dir.empty())
    return Error{ErrorClass::invalid_argument, "The server needs a data folder: --data DIR"};
  if (!is_loopback(options.host) && options.token.empty()) {
    return Error{ErrorClass::invalid_argument,
                 fmt::format("Listening on {} lets other machines in, so it needs a token. Make one, and start again:\n"
                             "  head -c 24 /dev/urandom | base64 > grange.token\n"
                             "  grange server --host {} --token-file grange.token",
                             options.host, options.host)};
  }
  if (!options.token.empty() && options.token.size() < 16) {
    return Error{ErrorClass::invalid_argument,
                 "The token is too short to be one; make it 16 characters or more: head -c 24 /dev/urandom | base64 > "
                 "grange.token"};
  }
  if (!options.alert_webhook.empty()) {
    if (auto fine = check_webhook(options.alert_webhook); !fine) return fine;
  }
  const auto names = core::policy_names();
  if (std::find(names.begin(), names.end(), options.policy) == names.end()) {
    std::string list;
    for (const std::string_view name : names) list += (list.empty() ? "" : ", ") + std::string(name);
    return Error{ErrorClass::invalid_argument,
                 "There is no policy \"" + options.policy + "\"; --policy takes one of: " + list};
  }
  if (options.heartbeat.count() <= 0 || options.heartbeat * 2 >= options.lease) {
    return Error{ErrorClass::invalid_argument, "The lease must be longer than two heartbeats."};
  }
  return {};
}

class ServerImpl final : public Server {
 public:
  ServerImpl(net::Loop& loop, ServerOptions options)
      : s_{.loop = loop,
           .options = options,
           .clock = clock_,
           .authenticator = Authenticator(options.token, &token_book_, &clock_),
           .post = {}} {
    s_.post = [&loop, alive = std::weak_ptr<int>(alive_)](std::function<void()> work) {
      loop.post([alive, work = std::move(work)] {
        if (alive.lock()) work();
      });
    };
    s_.started = clock_.now().mono;
    s_.started_at = clock_.now().wall;
  }

  ~ServerImpl() override {
    alive_.reset();
    tick_.reset();
    upkeep_.reset();
    calendar_.reset();
    grace_.reset();
    alias_.reset();
    main_.reset();
    if (stopper_.joinable()) stopper_.join();
    if (queue_) queue_->stop();
    if (readers_) readers_->stop();
    if (files_) files_->stop();
    logs_.reset();
  }

  Result<> start() {
    if (auto fine = check(s_.options); !fine) return fine;
    auto store = store::Store::open({.directory = s_.options.data_dir});
    if (!store) return std::move(store).error();
    store_ = std::move(*store);
    auto blobs = store::BlobStore::open(s_.options.data_dir);
    if (!blobs) return std::move(blobs).error();
    blobs_ = std::move(*blobs);
    auto logs = store::LogStore::open(s_.options.data_dir);
    if (!logs) return std::move(logs).error();
    logs_ = std::move(*logs);
    // Deliveries are posted as they come: nothing waits on the release thread, and their order stays.
    auto queue = queue::LocalQueue::start(
        *store_, clock_,
        {.policy = s_.options.policy,
         .lease = s_.options.lease,
         .aging = s_.options.aging,
         .seed = static_cast<std::uint64_t>(s_.started.us)},
        [this, post = s_.post](queue::Delivery delivery) {
          post([this, d = std::make_shared<queue::Delivery>(std::move(delivery))] { deliver(*d); });
        });
    if (!queue) return std::move(queue).error();
    queue_ = std::move(*queue);
    auto readers = ReaderPool::start(*store_, 2, s_.post);
    if (!readers) return std::move(readers).error();
    readers_ = std::move(*readers);
    auto files = ReaderPool::start(*store_, 2, s_.post);
    if (!files) return std::move(files).error();
    files_ = std::move(*files);

    events_ = std::make_unique<Events>(queue_->incarnation() << 32);
    jobs_ = std::make_unique<JobBook>(*readers_);
    s_.queue = queue_.get();
    s_.blobs = blobs_.get();
    s_.logs = logs_.get();
    s_.readers = readers_.get();
    s_.files = files_.get();
    s_.events = events_.get();
    s_.jobs = jobs_.get();
    hub_ = std::make_unique<WorkerHub>(s_);
    s_.workers = hub_.get();
    gateway_ = std::make_unique<gateway::Gateway>(s_);
    s_.gateway = gateway_.get();
    std::vector<store::ScheduleRow> schedules;
    {
      auto reader = store_->reader();
      if (!reader) return std::move(reader).error();
      auto rows = (*reader)->schedules();
      if (!rows) return std::move(rows).error();
      schedules = std::move(*rows);
      auto known = (*reader)->workers();
      if (!known) return std::move(known).error();
      std::vector<gateway::Gateway::Known> served;
      for (const store::WorkerRow& row : *known) {
        hub_->remember(row.worker, row.id);
        if (!row.forgotten) served.push_back({row.id, row.manifest, row.first_seen, row.last_seen});
      }
      gateway_->remember(served);
    }
    output_ = std::make_unique<TaskOutput>(s_);
    news_ = std::make_unique<JobNews>(s_);
    operations_ = std::make_unique<Operations>(s_, watch_);
    schedules_ = std::make_unique<Schedules>(schedule_ports());
    schedules_->load(std::move(schedules));
    runs_ = std::make_unique<RunBook>(
        s_, *operations_, RunPorts{[this](auto work, auto done) { on_store(std::move(work), std::move(done)); }});
    s_.runs = runs_.get();
    {
      auto reader = store_->reader();
      if (!reader) return std::move(reader).error();
      if (auto loaded = runs_->load(**reader); !loaded) return loaded;
    }
    overview_ =
        std::make_unique<Overview>(s_, [this](auto work, auto done) { on_store(std::move(work), std::move(done)); });
    s_.overview = overview_.get();
    {
      auto reader = store_->reader();
      if (!reader) return std::move(reader).error();
      if (auto loaded = overview_->load(**reader); !loaded) return loaded;
    }
    {
      auto reader = store_->reader();
      if (!reader) return std::move(reader).error();
      auto rows = (*reader)->tokens();
      if (!rows) return std::move(rows).error();
      token_book_.load(*rows);
    }
    tokens_ = std::make_unique<TokenDesk>(token_book_, token_ports());
    s_.tokens = tokens_.get();
    if (auto fine = open_alerts(); !fine) return fine;
    worker_sessions_ = std::make_unique<WorkerSessions>(s_, *output_);
    client_sessions_ = std::make_unique<ClientSessions>(s_, *operations_);
    json_sessions_ = std::make_unique<JsonSessions>(s_, *operations_, watch_, *worker_sessions_, *output_);
    rest_ = std::make_unique<Rest>(s_, *operations_, *schedules_, watch_, *output_, *client_sessions_);
    door_ = std::make_unique<Doorway>(s_, *worker_sessions_, *client_sessions_, *json_sessions_);

    auto main = listen_on(s_.options.port, false);
    if (!main) return std::move(main).error();
    main_ = std::move(*main);
    if (s_.options.ws_port != 0) {
      auto alias = listen_on(s_.options.ws_port, true);
      if (!alias)
        return std::move(alias).error().with_context(
            "The WebSocket address on port " + std::to_string(s_.options.ws_port) + " (--ws-port 0 turns it off)");
      alias_ = std::move(*alias);
    }
    // Timers belong to the Loop's thread; start() may run before it does.
    s_.post([this] {
      tick_ = s_.loop.every(kTick, [this] { tick(); });
      upkeep_ = s_.loop.every(kUpkeep, [this] { upkeep(); });
      upkeep();
      schedules_->look();
    });
    return {};
  }

  std::string url() const override { return fmt::format("http://{}:{}", shown_host(), main_->port()); }
  std::string ws_url() const override {
    return alias_ ? fmt::format("ws://{}:{}", shown_host(), alias_->port())
                  : fmt::format("ws://{}:{}/ws", shown_host(), main_->port());
  }

  void stop(std::function<void()> done) override {
    if (s_.stopping) return;
    s_.stopping = true;
    spdlog::info("stopping: no new work; what was accepted is committed");
    main_->stop_accepting();
    if (alias_) alias_->stop_accepting();
    overview_->keep();
    tokens_->keep();
    // The queue joins its threads, which takes as long as a commit: not on the Loop, which still sends what was
    // released.
    stopper_ = std::thread([this, post = s_.post, done = std::move(done)] {
      queue_->stop();
      logs_->flush();
      post([this, done] {
        gateway_->stop();
        // The queue has stopped, so the store is ours.
        usage_->keep_in(*store_);
        alerts_->keep_in(*store_);
        worker_sessions_->goodbye_all("the server is stopping");
        client_sessions_->goodbye_all("the server is stopping");
        events_->publish(Topic::system, {}, "", "server_stopping", "{}", clock_.now().wall);
        // A moment for the last bytes to leave.
        grace_ = s_.loop.after(Millis{100}, [this, done] {
          tick_.reset();
          upkeep_.reset();
          calendar_.reset();
          s_.post([this, done] {
            alias_.reset();
            main_.reset();
            done();
          });
        });
      });
    });
  }

 private:
  std::string shown_host() const {
    const std::string& host = s_.options.host;
    if (host == "0.0.0.0" || host == "::") return "127.0.0.1";
    return host.find(':') == std::string::npos ? host : "[" + host + "]";
  }

  Result<std::unique_ptr<net::Listener>> listen_on(std::uint16_t port, bool websocket_only) {
    net::ListenerOptions options{.host = s_.options.host,
                                 .port = port,
                                 .allowed_hosts = s_.options.allowed_hosts,
                                 .websocket_only = websocket_only,
                                 .subprotocols = {"grange.json"}};
    net::ListenerHandlers handlers;
    const std::weak_ptr<int> alive = alive_;
    handlers.on_http = [this, alive](net::HttpExchangePtr exchange) {
      if (alive.lock()) rest_->handle(std::move(exchange));
    };
    handlers.authorize_http = [this, alive](const net::HttpRequest& head) -> Result<> {
      if (!alive.lock()) return Error{ErrorClass::unavailable, "The server has stopped."};
      return rest_->admit(head);
    };
    handlers.refusal = [](const net::HttpRequest& head, const Error& why) { return Rest::refusal(head, why); };
    handlers.streams_body = [](const net::HttpRequest& head) { return Rest::streams_body(head); };
    handlers.authorize_websocket = [this, alive, websocket_only](const net::HttpRequest& head) -> Result<> {
      if (!alive.lock()) return Error{ErrorClass::unavailable, "The server has stopped."};
      if (!websocket_only && head.path != "/ws") return Error{ErrorClass::not_found, "The WebSocket address is /ws."};
      return door_->authorize(head);
    };
    handlers.on_websocket = [this, alive](net::ConnectionPtr connection, const net::HttpRequest& head) {
      if (alive.lock()) door_->enter(std::move(connection), head);
    };
    return net::listen(s_.loop, std::move(options), std::move(handlers));
  }

  TokenPorts token_ports() {
    return {.on_store = [this](auto work, auto done) { on_store(std::move(work), std::move(done)); },
            .now = [this] { return clock_.now().wall; },
            .end =
                [this](const std::string& token, const Error& why) {
                  rest_->end(token, why);
                  door_->end(token, why);
                },
            .here =
                [this] {
                  const auto names = door_->tokens_here();
                  return std::vector<std::string>(names.begin(), names.end());
                }};
  }

  // What the schedules need of the rest.
  SchedulePorts schedule_ports() {
    SchedulePorts ports;
    ports.now = [this] { return clock_.now().wall; };
    ports.wake = [this](Millis in) {
      calendar_ = s_.loop.after(in, [this] {
        s_.post([this] {  // not from inside the timer that this replaces
          if (!s_.stopping) schedules_->look();
        });
      });
    };
    ports.submit = [this](const store::ScheduleRow& row, const std::string& key, auto done) {
      auto file = read_job_file(row.file);
      if (!file) return done(std::move(file).error());
      SubmitInput input = to_input(std::move(*file));
      input.spec.set_key(key);
      if (input.spec.user().empty()) input.spec.set_user(row.user);
      // Who set it up was authorized then.
      operations_->submit({row.user, PrincipalKind::local}, std::move(input),
                          [done = std::move(done)](Result<SubmitAnswer> answer) {
                            if (!answer) return done(std::move(answer).error());
                            done(SchedulePorts::Submitted{.job_id = answer->meta->id, .existed = answer->existed});
                          });
    };
    ports.has_ended = [this](const std::string& job, auto done) {
      operations_->status(
          {"schedule", PrincipalKind::local}, job, [done = std::move(done)](Result<JobFigures> figures) {
            done(figures ? core::ended(figures->row.state) : figures.error().cls == ErrorClass::not_found);
          });
    };
    ports.save = [this](store::ScheduleRow row, auto done) {
      on_store([row = std::move(row)](store::Store& store) { return store.put_schedule(row); }, std::move(done));
    };
    ports.drop = [this](const std::string& name, auto done) {
      on_store(
          [name](store::Store& store) -> Result<> {
            auto dropped = store.drop_schedule(name);
            if (!dropped) return std::move(dropped).error();
            return {};
          },
          std::move(done));
    };
    ports.tell = [this](std::string_view type, const store::ScheduleRow& row) {
      s_.events->publish(Topic::system, {}, "", type, boost::json::serialize(schedule_json(row)), clock_.now().wall);
    };
    return ports;
  }

  // And what is counted of the gateway by day.
  Result<> open_alerts() {
    const auto on_store_thread = [this](auto work, auto done) { on_store(std::move(work), std::move(done)); };
    alerts_ = std::make_unique<AlertDesk>(s_, on_store_thread);
    usage_ = std::make_unique<gateway::UsageBook>(s_, on_store_thread);
    auto reader = store_->reader();
    if (!reader) return std::move(reader).error();
    if (auto loaded = alerts_->load(**reader); !loaded) return loaded;
    if (auto loaded = usage_->load(**reader); !loaded) return loaded;
    s_.alerts = alerts_.get();
    return {};
  }

  // Runs on the store's own thread, between two commits; answers on the Loop.
  void on_store(std::function<Result<>(store::Store&)> work, std::function<void(Result<>)> done) {
    queue_->maintain([work = std::move(work), done = std::move(done), post = s_.post](store::Store& store) {
      auto result = work(store);
      post([done, result = std::move(result)] { done(result); });
    });
  }

  void deliver(queue::Delivery& delivery) {
    for (const queue::JobChange& change : delivery.jobs) {
      const JobMetaPtr known = s_.jobs->find(change.job);
      if (known == nullptr ? change.open : known->count != change.count) s_.jobs->grew(change.job, change.count);
    }
    hub_->deliver(delivery);
    client_sessions_->deliver(delivery);
    JobNo last{};
    for (const queue::Ended& ended : delivery.ended) {
      if (ended.task.job() != last) output_->task_ended(last = ended.task.job());
    }
    news_->deliver(delivery);
    runs_->deliver(delivery);
    overview_->deliver(delivery);
    alerts_->deliver(delivery);
    for (const queue::JobChange& change : delivery.jobs) watch_.changed(change);
  }

  void tick() {
    const Now now = clock_.now();
    worker_sessions_->tick(now);
    hub_->tick(now.mono);
    gateway_->tick(now);
    client_sessions_->tick(now);
    json_sessions_->tick(now);
    output_->tick();
    news_->tick();
    runs_->tick(now);
    overview_->tick(now);
    usage_->tick(now);
    tokens_->tick(now);
    rest_->tick(now);
  }

  // Retention. Little at a time, so that commits do not wait behind it.
  void upkeep() {
    if (s_.stopping) return;
    const WallMs wall = clock_.now().wall;
    const WallMs before{wall.ms - s_.options.retain.count()};
    queue_->maintain([this, before, wall, keep = s_.options.retain_jobs, post = s_.post](store::Store& store) {
      auto forgotten = store.forget_ended(before, wall, keep, kForgetAtOnce);
      if (!forgotten) {
        spdlog::warn("retention: {}", forgotten.error().message);
        return;
      }
      if (forgotten->empty()) return;
      post([this, jobs = std::move(*forgotten)] {
        silenced_.insert(silenced_.end(), jobs.begin(), jobs.end());
        forget_logs();
        again_ = s_.loop.after(Millis{1000}, [this] { upkeep(); });
      });
    });
    forget_logs();
    const Instant now = clock_.now().mono;
    if (now - swept_ < Micros{3'600'000'000}) return;
    swept_ = now;
    files_->run([blobs = blobs_.get()](store::Reader& reader) {
      auto swept = blobs->sweep(kSweepGrace, [&reader](const std::string& sha256) {
        auto used = reader.blob_in_use(sha256);
        return !used || *used;
      });
      if (swept && *swept > 0) spdlog::info("removed {} blobs that nothing names any more", *swept);
    });
  }

  // Logs go on a thread that may wait: a log of many lines takes seconds to delete, and commits wait for nobody.
  void forget_logs() {
    if (silenced_.empty()) return;
    const bool taken = files_->run([logs = logs_.get(), jobs = silenced_](store::Reader&) {
      for (const JobNo job : jobs) {
        if (auto cleared = logs->forget(job); !cleared) spdlog::warn("retention: {}", cleared.error().message);
      }
    });
    if (taken) silenced_.clear();
  }

  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
  SystemClock clock_;
  TokenBook token_book_;
  Services s_;
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<store::BlobStore> blobs_;
  std::unique_ptr<store::LogStore> logs_;
  std::unique_ptr<queue::LocalQueue> queue_;
  std::unique_ptr<ReaderPool> readers_, files_;
  std::unique_ptr<Events> events_;
  std::unique_ptr<JobBook> jobs_;
  JobWatch watch_;
  std::unique_ptr<WorkerHub> hub_;
  std::unique_ptr<gateway::Gateway> gateway_;
  std::unique_ptr<TaskOutput> output_;
  std::unique_ptr<JobNews> news_;
  std::unique_ptr<Operations> operations_;
  std::unique_ptr<Schedules> schedules_;
  std::unique_ptr<RunBook> runs_;
  std::unique_ptr<Overview> overview_;
  std::unique_ptr<AlertDesk> alerts_;
  std::unique_ptr<gateway::UsageBook> usage_;
  std::unique_ptr<TokenDesk> tokens_;
  std::unique_ptr<WorkerSessions> worker_sessions_;
  std::unique_ptr<ClientSessions> client_sessions_;
  std::unique_ptr<JsonSessions> json_sessions_;
  std::unique_ptr<Rest> rest_;
  std::unique_ptr<Doorway> door_;
  std::unique_ptr<net::Listener> main_, alias_;
  std::unique_ptr<net::Timer> tick_, upkeep_, again_, grace_, calendar_;
  std::thread stopper_;
  Instant swept_{};
  std::vector<JobNo> silenced_;  // jobs that were deleted; their logs are still there
};

}  // namespace

Result<std::unique_ptr<Server>> Server::start(net::Loop& loop, ServerOptions options) {
  auto server = std::make_unique<ServerImpl>(loop, std::move(options));
  if (auto started = server->start(); !started) return std::move(started).error();
  return std::unique_ptr<Server>(std::move(server));
}

}  // namespace grange::server
