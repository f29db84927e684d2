#include "worker/worker.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdlib>

#include "worker/engines/engines.hpp"
#include "worker/leftovers.hpp"
#include "worker/worker_impl.hpp"

namespace grange::worker {

namespace {

std::string environment(const char* name, std::string_view otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : std::string(otherwise);
}

std::string websocket_url(const std::string& http) {
  std::string url = http.rfind("http", 0) == 0 ? "ws" + http.substr(4) : http;
  while (!url.empty() && url.back() == '/') url.pop_back();
  return url + "/ws";
}

constexpr Millis kLook{250};

std::uint64_t seed() {
  return std::stoull(random_id(8), nullptr, 16);
}

}  // namespace

Result<> Worker::Impl::start() {
  adopt_orphans();
  auto guard = Guardian::start(std::string(kMark) + "=" +
                               random_id(12));  // first: it is a copy of us, and the less we are the better
  if (!guard) return guard.error();
  guardian = std::make_unique<Guardian>(std::move(*guard));
  auto dir = open_data_dir(options.data_dir);
  if (!dir) return dir.error();
  data = std::move(*dir);
  end_left_services(data.path + "/services");
  resources = discover(data.path);
  load_meter = std::make_unique<LoadMeter>(resources.gpus);
  slots = std::clamp<std::uint32_t>(options.slots == 0 ? resources.cores : options.slots, 1, limits::kWindow);
  if (options.python == "none") {
    python_check.note = "Python tasks are not offered: turned off by an option.";
  } else {
    python_check = check_python(find_python(options.python), options.python_path);
  }
  CoreOptions core_options;
  core_options.total = {slots, 1000 * std::max(resources.cores, slots),
                        static_cast<std::uint32_t>(1000 * resources.gpus.size()), resources.memory,
                        resources.disk_free};
  core_options.python = python_check.ok();
  for (const GpuInfo& gpu : resources.gpus) core_options.gpus.push_back(gpu.memory);
  core = std::make_unique<WorkerCore>(core_options);

  Blobs::Options blob_options;
  blob_options.server_url = options.server_url;
  blob_options.token = options.token;
  blob_options.folder = data.cache();
  blobs = std::make_unique<Blobs>(loop, blob_options, seed());
  engines[Kind::command] = make_command_engine(loop, *this, *blobs, guardian.get(),
                                               {data.tasks(), environment("PATH", kPath), options.server_url});
  start_services();
  net::LinkOptions link;
  if (!dialer) {
    std::map<std::string, std::string> headers;
    if (!options.token.empty()) headers["Authorization"] = "Bearer " + options.token;
    dialer = net::websocket_dialer(loop, websocket_url(options.server_url), headers);
  }
  client = std::make_unique<SessionClient>(loop, *this, std::move(dialer), link, "s-" + random_id(12), seed());
  if (keeper) {
    if (auto started = keeper->start(); !started) return started;
  }
  if (python_check.ok()) {
    start_python();
  } else {
    spdlog::warn("{}", python_check.note);
  }
  if (options.health_port != 0) start_health();
  if (options.life.count() > 0) {
    life_over = clock.now().mono + options.life;
    end_of_life = loop.after(options.life, [this] {
      spdlog::info("The time for which this machine was lent is over; finishing what runs.");
      drain();
    });
  }
  looking = loop.every(kLook, [this] { look(); });
  client->start();
  spdlog::info("Worker {} ({}): {} slots, {} cores, {} MiB of memory, {} GPUs, Python {}. Server: {}", data.worker_id,
               name(), slots, resources.cores, resources.memory / MiB, resources.gpus.size(),
               python_check.ok() ? python_check.version : "not offered", options.server_url);
  return {};
}

void Worker::Impl::start_python() {
  PythonOptions o;
  o.server_url = options.server_url;
  o.interpreter = python_check.interpreter;
  o.python_path = options.python_path;
  o.folder = data.executors();
  o.path = environment("PATH", kPath);
  o.home = environment("HOME", data.path);
  o.slots = slots;
  o.recycle_tasks = options.recycle_tasks;
  o.recycle_rss = options.recycle_rss_bytes != 0 ? options.recycle_rss_bytes : resources.memory / slots;
  o.inline_limit = [this] { return client->inline_limit(); };
  auto made = make_python_engine(loop, *this, *blobs, guardian.get(), std::move(o));
  python = made.get();
  engines[Kind::python] = std::move(made);
  python->prestart();  // so that the first call is fast
}

void Worker::Impl::start_services() {
  http = std::make_unique<net::HttpClient>(loop, net::HttpClient::Options{.per_host = kPerService});
  ServicesOptions o;
  o.configured = options.services;
  o.probe = options.probe;
  o.folder = data.path + "/models";
  o.machine = machine_facts(resources);
  if (!options.kept_services.empty()) {
    keeper = make_keeper(loop, *http, guardian.get(), clock,
                         {options.kept_services, data.path + "/services", environment("PATH", kPath)});
    o.keeper = keeper.get();
  }
  services = make_services(loop, *http, std::move(o));
  services->on_change([this] { client->manifest_changed(); });
  const EngineContext context{loop,          *this,
                              *blobs,        *http,
                              *services,     clock,
                              data.tasks(),  options.server_url,
                              options.token, [this] { return client->inline_limit(); }};
  engines[Kind::compute] = make_compute_engine(context);
  engines[Kind::llm] = make_llm_engine(context);
  engines[Kind::image] = make_image_engine(context);
  engines[Kind::remote] = make_remote_engine(context);
  engines[Kind::models] = make_models_engine(context);
  relays = std::make_unique<RelayHost>(*http, *services,
                                       [this](pb::Relay relay) { return client->relay(std::move(relay)); });
  services->start();
}

void Worker::Impl::start_health() {
  HealthPages pages{.state = [this] { return state(); },
                    .ready = [this] { return ready(); },
                    .status = [this] { return status_json(); },
                    .capabilities =
                        [this] {
                          pb::Manifest manifest;
                          fill_manifest(manifest);
                          return capabilities_json(data.worker_id, name(), manifest);
                        },
                    .metrics = [this] { return load_history.json(); },
                    .token = options.token,
                    .server = options.server_url};
  auto made = serve_health(loop, options.health_host, static_cast<std::uint16_t>(options.health_port), pages);
  if (!made) {
    made = serve_health(loop, options.health_host, 0, pages);
    if (!made) {
      spdlog::warn("No health server: {}", made.error().message);
      return;
    }
    spdlog::warn("Port {} is taken; the health server listens on {} instead.", options.health_port, (*made)->port());
  }
  health = std::move(*made);
}

void Worker::Impl::step(const Event& event) {
  core->step(event, clock.now().mono, effects);
  if (acting) return;  // an engine answered at once: the loop below goes on
  acting = true;
  Effects now;
  while (!effects.start.empty() || !effects.freeze.empty() || !effects.stop.empty()) {
    std::swap(now, effects);
    effects.report = effects.report || now.report;
    act(now);
    now.clear();
  }
  acting = false;
  if (effects.report) client->flush_soon();
  effects.clear();
  arm();
  if (core->draining()) start_leaving();
}

void Worker::Impl::act(Effects& now) {
  const auto engine = [this](Kind kind) -> Engine* {
    const auto it = engines.find(kind);
    return it == engines.end() ? nullptr : it->second.get();
  };
  for (Run& run : now.start) {
    const Kind kind = run.job->kind;
    if (run.has_checkpoint) {
      log(run.fence.task, run.fence.attempt, pb::STREAM_SYSTEM,
          "attempt " + std::to_string(run.fence.attempt) + " resumes from the checkpoint of an earlier attempt\n");
    }
    if (Engine* e = engine(kind)) {
      began[{run.fence.task, run.fence.attempt}] = clock.now().mono;
      e->run(std::move(run));
    } else {
      ended(run.fence.task, run.fence.attempt,
            failure(pb::FAILURE_ENGINE,
                    "This worker does not offer the engine \"" + run.job->spec.engine() + "\"; its notes say why."));
    }
  }
  for (const Effects::Freeze& one : now.freeze) {
    if (Engine* e = engine(one.kind)) e->freeze(one.task, one.attempt, one.on);
  }
  for (const Effects::Stop& one : now.stop) {
    if (Engine* e = engine(one.kind)) e->stop(one.task, one.attempt, one.how);
  }
}

// At what tasks use, and whether one left something behind.
void Worker::Impl::look() {
  for (const auto& [kind, engine] : engines) engine->watch();
  end_leftovers();  // the kernel's list may have missed one when its task ended
}

void Worker::Impl::drain() {
  if (left) return;
  if (!patience) {
    patience = loop.after(std::chrono::seconds(options.drain_seconds), [this] {
      if (core->running() > 0)
        spdlog::warn("{} tasks did not end in time; the server will run them again.", core->running());
      leave();
    });
  }
  step(DrainAsked{});
}

void Worker::Impl::arm() {
  const Instant next = core->next_wake();
  if (next == Instant::never() || (wake && armed <= next)) return;
  armed = next;
  const auto rest = std::max<std::int64_t>(0, (next - clock.now().mono).count());
  wake = loop.after(Millis{(rest + 999) / 1000}, [this] {
    loop.post([old = std::shared_ptr<net::Timer>(std::move(wake))] {});
    step(Ticked{});
    arm();
  });
}

void Worker::Impl::start_leaving() {
  if (leaving) return;
  leaving = loop.every(Millis(10), [this] {
    if (core->drained() && client->everything_said()) leave();
  });
  if (core->held() == 0)
    loop.post([weak = weak_from_this()] {
      const auto self = weak.lock();
      if (self && self->core->drained() && self->client->everything_said()) self->leave();
    });
}

// Engines end first: nothing may run once the server has given our tasks to others.
void Worker::Impl::leave() {
  if (left) return;
  left = true;
  loop.post([old = std::shared_ptr<net::Timer>(std::move(leaving))] {});  // we may be below it on the stack
  wake.reset();
  looking.reset();
  python = nullptr;
  relays.reset();
  engines.clear();
  services.reset();
  client->say_goodbye(error ? error->message : core->draining() ? "drained" : "stopped");
  client->stop();
  if (!keeper) return leave_link();
  spdlog::info("Stopping the services that this worker started.");
  keeper->end([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->leave_link();
  });
}

void Worker::Impl::leave_link() {
  // A moment for the goodbye to leave the machine.
  last = loop.after(Millis(100), [this] {
    gone = true;
    for (const auto& done : std::exchange(done_calls, {})) done();
    if (const auto tell = std::exchange(on_ended, nullptr)) tell(error ? &*error : nullptr);
  });
}

Worker::Worker(net::Loop& loop, WorkerOptions options) : Worker(loop, std::move(options), nullptr) {}

Worker::Worker(net::Loop& loop, WorkerOptions options, std::unique_ptr<net::Dialer> dialer)
    : impl_(std::make_shared<Impl>(loop, std::move(options), std::move(dialer))) {}

Worker::~Worker() {
  impl_->python = nullptr;
  impl_->relays.reset();
  impl_->engines.clear();
  impl_->services.reset();
  impl_->keeper.reset();
  impl_->health.reset();
  impl_->client.reset();
}

Result<> Worker::start() {
  return impl_->start();
}

void Worker::drain(std::function<void()> done) {
  if (impl_->gone) {
    impl_->loop.post(std::move(done));
    return;
  }
  impl_->done_calls.push_back(std::move(done));
  impl_->drain();
}

void Worker::stop(std::function<void()> done) {
  if (impl_->gone) {
    impl_->loop.post(std::move(done));
    return;
  }
  impl_->done_calls.push_back(std::move(done));
  if (impl_->left && impl_->keeper) impl_->keeper->end_now();
  impl_->leave();
}

void Worker::on_ended(std::function<void(const Error*)> ended) {
  impl_->on_ended = std::move(ended);
}

WorkerStatus Worker::status() const {
  WorkerStatus out;
  out.state = impl_->state();
  out.worker_id = impl_->data.worker_id;
  out.online = impl_->client->online();
  out.running = impl_->core->running();
  out.backlog = impl_->core->waiting();
  out.window = impl_->core->window();
  out.held = impl_->core->held();
  out.ended = impl_->core->ended();
  out.failed = impl_->core->failed();
  if (impl_->python) out.executors_ready = impl_->python->status().ready;
  if (impl_->health) out.health_port = impl_->health->port();
  return out;
}

std::string Worker::status_json() const {
  return impl_->status_json();
}

}  // namespace grange::worker
