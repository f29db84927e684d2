#include "worker/worker.hpp"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/clock.hpp"
#include "worker/command_engine.hpp"
#include "worker/core.hpp"
#include "worker/data_dir.hpp"
#include "worker/health.hpp"
#include "worker/json.hpp"
#include "worker/python_engine.hpp"
#include "worker/resources.hpp"
#include "worker/session_client.hpp"

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

std::uint64_t seed() {
  return std::stoull(random_id(8), nullptr, 16);
}

}  // namespace

struct Worker::Impl final : EngineHost, SessionOwner, std::enable_shared_from_this<Worker::Impl> {
  Impl(net::Loop& l, WorkerOptions o, std::unique_ptr<net::Dialer> d)
      : loop(l), options(std::move(o)), dialer(std::move(d)) {
    while (!options.server_url.empty() && options.server_url.back() == '/') options.server_url.pop_back();
  }

  Result<> start() {
    auto guard = Guardian::start();  // first: it is a copy of us, and the less we are the better
    if (!guard) return guard.error();
    guardian = std::make_unique<Guardian>(std::move(*guard));
    auto dir = open_data_dir(options.data_dir);
    if (!dir) return dir.error();
    data = std::move(*dir);
    resources = discover(data.path);
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
    core = std::make_unique<WorkerCore>(core_options);

    Blobs::Options blob_options;
    blob_options.server_url = options.server_url;
    blob_options.token = options.token;
    blob_options.folder = data.cache();
    blobs = std::make_unique<Blobs>(loop, blob_options, seed());
    commands = make_command_engine(loop, *this, *blobs, guardian.get(),
                                   {data.tasks(), environment("PATH", kPath), options.server_url});
    net::LinkOptions link;
    if (!dialer) {
      std::map<std::string, std::string> headers;
      if (!options.token.empty()) headers["Authorization"] = "Bearer " + options.token;
      dialer = net::websocket_dialer(loop, websocket_url(options.server_url), headers);
    }
    client = std::make_unique<SessionClient>(loop, *this, std::move(dialer), link, "s-" + random_id(12), seed());
    if (python_check.ok()) {
      start_python();
    } else {
      spdlog::warn("{}", python_check.note);
    }
    if (options.health_port != 0) start_health();
    client->start();
    spdlog::info("Worker {} ({}): {} slots, {} cores, {} MiB of memory, {} GPUs, Python {}. Server: {}", data.worker_id,
                 name(), slots, resources.cores, resources.memory / MiB, resources.gpus.size(),
                 python_check.ok() ? python_check.version : "not offered", options.server_url);
    return {};
  }

  void start_python() {
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
    python = make_python_engine(loop, *this, *blobs, guardian.get(), std::move(o));
    python->prestart();  // so that the first call is fast
  }

  void start_health() {
    HealthPages pages{[this] { return state(); }, [this] { return ready(); }, [this] { return status_json(); }};
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

  std::string name() const { return options.name.empty() ? resources.hostname : options.name; }

  // ---- the core and what it wants done

  void step(const Event& event) {
    core->step(event, clock.now().mono, effects);
    if (acting) return;  // an engine answered at once: the loop below goes on
    acting = true;
    Effects now;
    while (!effects.start.empty() || !effects.stop.empty()) {
      std::swap(now, effects);
      effects.report = effects.report || now.report;
      for (Run& run : now.start) {
        const Kind kind = run.job->kind;
        if (run.has_checkpoint) {
          log(run.fence.task, run.fence.attempt, pb::STREAM_SYSTEM,
              "attempt " + std::to_string(run.fence.attempt) + " resumes from the checkpoint of an earlier attempt\n");
        }
        if (kind == Kind::command) {
          commands->run(std::move(run));
        } else if (python) {
          python->run(std::move(run));
        } else {
          ended(run.fence.task, run.fence.attempt,
                failure(pb::FAILURE_ENGINE, "This worker has no Python engine; its notes say why."));
        }
      }
      for (const Effects::Stop& stop : now.stop) {
        if (stop.kind == Kind::command) {
          commands->stop(stop.task, stop.attempt, stop.how);
        } else if (python) {
          python->stop(stop.task, stop.attempt, stop.how);
        }
      }
      now.clear();
    }
    acting = false;
    if (effects.report) client->flush_soon();
    effects.clear();
    arm();
    if (core->draining()) start_leaving();
  }

  void arm() {
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

  // ---- EngineHost

  void ended(TaskId task, Attempt attempt, pb::TaskResult result) override {
    logged.erase({task, attempt});
    step(AttemptEnded{task, attempt, &result});
  }

  bool log(TaskId task, Attempt attempt, pb::Stream stream, std::string_view bytes) override {
    const Fence* fence = core->running_fence(task, attempt);
    if (fence == nullptr || bytes.empty()) return true;  // nobody wants to hear of it
    Bytes& so_far = logged[{task, attempt}];
    if (so_far >= limits::kLogPerTask) return true;
    std::string text(bytes.substr(0, static_cast<std::size_t>(limits::kLogPerTask - so_far)));
    so_far += text.size();
    bool more = send_log(*fence, stream, std::move(text));
    if (so_far >= limits::kLogPerTask) {
      more = send_log(*fence, pb::STREAM_SYSTEM,
                      "[The output of this task went over " + std::to_string(limits::kLogPerTask / MiB) +
                          " MiB; the rest is not kept.]\n");
    }
    return more;
  }

  bool send_log(const Fence& fence, pb::Stream stream, std::string text) {
    bool more = true;
    for (std::size_t at = 0; at < text.size(); at += limits::kLogChunk) {
      pb::LogChunk chunk;
      chunk.set_task(fence.task.packed);
      chunk.set_attempt(fence.attempt);
      chunk.set_epoch(fence.epoch);
      chunk.set_stream(stream);
      chunk.set_time_ms(static_cast<std::uint64_t>(clock.now().wall.ms));
      chunk.set_data(text.substr(at, limits::kLogChunk));
      more = client->log(std::move(chunk));
    }
    return more;
  }

  void progress(TaskId task, Attempt attempt, double done, double total, std::string text) override {
    const Fence* fence = core->running_fence(task, attempt);
    if (fence == nullptr) return;
    pb::Progress out;
    out.set_task(fence->task.packed);
    out.set_attempt(fence->attempt);
    out.set_epoch(fence->epoch);
    out.set_done(done);
    out.set_total(total);
    if (text.size() > limits::kMessageBytes) text.resize(limits::kMessageBytes);
    out.set_text(std::move(text));
    client->progress(std::move(out));
  }

  void checkpoint(TaskId task, Attempt attempt, std::string bytes) override {
    if (bytes.size() <= client->inline_limit()) {
      pb::Checkpoint out;
      out.set_data(std::move(bytes));
      send_checkpoint(task, attempt, std::move(out));
      return;
    }
    // The newest of an attempt replaces one that is still on its way.
    auto& wait = checkpoints[{task, attempt}];
    if (wait) loop.post([old = std::shared_ptr<Blobs::Wait>(std::move(wait))] {});
    wait = blobs->put(std::move(bytes), [this, task, attempt](Result<std::string> sha) {
      if (!sha) {
        spdlog::warn("A checkpoint was not stored: {}", sha.error().message);
        return;
      }
      pb::Checkpoint out;
      out.set_data_sha256(*sha);
      send_checkpoint(task, attempt, std::move(out));
    });
    std::erase_if(checkpoints, [this](const auto& entry) {
      return core->running_fence(entry.first.task, entry.first.attempt) == nullptr;
    });
  }

  void send_checkpoint(TaskId task, Attempt attempt, pb::Checkpoint out) {
    const Fence* fence = core->running_fence(task, attempt);
    if (fence == nullptr) return;
    out.set_task(fence->task.packed);
    out.set_attempt(fence->attempt);
    out.set_epoch(fence->epoch);
    client->checkpoint(std::move(out));
  }

  void engine_off(Kind kind, std::string why) override {
    if (kind != Kind::python) return;
    spdlog::error("{}", why);
    core->set_python(false);
    python_check.version.clear();
    python_check.note = std::move(why);
    // A new Hello without the engine, so that no more such tasks are sent here.
    loop.post([weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->client->reconnect("the Python engine is off");
    });
  }

  // ---- SessionOwner

  void fill_hello(pb::WorkerHello& hello) override {
    hello.set_worker_id(data.worker_id);
    hello.set_name(name());
    hello.set_window(core->window());
    hello.set_draining(core->draining());
    core->list_held(*hello.mutable_held());
    pb::Manifest& m = *hello.mutable_manifest();
    m.set_hostname(resources.hostname);
    m.set_os(resources.os);
    m.set_version("0.1.0");
    m.set_slots(slots);
    m.set_cpus_milli(core->allocator().total().cpus_milli);
    m.set_memory_bytes(resources.memory);
    m.set_disk_bytes(resources.disk_free);
    m.set_cpu_model(resources.cpu_model);
    m.set_python_version(python_check.version);
    m.set_sandbox("process");
    for (const GpuInfo& gpu : resources.gpus) {
      pb::Gpu& out = *m.add_gpus();
      out.set_name(gpu.name);
      out.set_memory_bytes(gpu.memory);
      out.set_uuid(gpu.uuid);
    }
    m.add_engines("builtin");
    m.add_engines("command");
    if (python_check.ok()) m.add_engines("python");
    for (const auto& [key, value] : options.labels) (*m.mutable_labels())[key] = value;
    for (const std::string& note : resources.notes) m.add_notes(note);
    if (!python_check.ok() && !python_check.note.empty()) m.add_notes(python_check.note);
  }

  void welcomed(const pb::Welcome& welcome) override { step(Welcomed{&welcome}); }
  void orders(pb::WorkerOrders& orders) override { step(OrdersArrived{&orders}); }
  bool take_report(pb::WorkerReport& report, Bytes limit) override { return core->take_report(report, limit); }

  void fill_heartbeat(pb::Heartbeat& beat) override {
    const CpuTicks now = parse_cpu_ticks(read_text("/proc/stat", 4096));
    if (ticks.total != 0 && now.total > ticks.total) {
      beat.set_cpu_percent(100.0 * static_cast<double>(now.busy - ticks.busy) /
                           static_cast<double>(now.total - ticks.total));
    }
    ticks = now;
    beat.set_running(core->running());
    beat.set_backlog(core->waiting());
    beat.set_window(core->window());
    beat.set_memory_used_bytes(memory_used());
    beat.set_disk_free_bytes(disk_free(data.path));
  }

  void room_for_output() override {
    if (commands) commands->resume_output();
    if (python) python->resume_output();
  }

  void refused(const Error& why) override {
    spdlog::error("{}", why.message);
    error = why;
    loop.post([weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->leave();
    });
  }

  void link_changed(net::LinkState) override {}

  // ---- leaving

  void start_leaving() {
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
  void leave() {
    if (left) return;
    left = true;
    loop.post([old = std::shared_ptr<net::Timer>(std::move(leaving))] {});  // we may be below it on the stack
    wake.reset();
    python.reset();
    commands.reset();
    client->say_goodbye(error ? error->message : core->draining() ? "drained" : "stopped");
    client->stop();
    // A moment for the goodbye to leave the machine.
    last = loop.after(Millis(100), [this] {
      gone = true;
      for (const auto& done : std::exchange(done_calls, {})) done();
      if (const auto tell = std::exchange(on_ended, nullptr)) tell(error ? &*error : nullptr);
    });
  }

  std::string state() const {
    if (error) return "failed";
    if (core->draining() || left) return "draining";
    if (!client->online()) return client->link_state() == net::LinkState::connected ? "recovering" : "reconnecting";
    if (python && python->status().off.empty() && python->status().ready + python->status().busy == 0)
      return "restarting";
    return "healthy";
  }
  bool ready() const { return !error && !left && !core->draining() && client->online(); }

  std::string status_json() const {
    const Need &used = core->allocator().used(), &total = core->allocator().total();
    const auto need = [](const Need& n) {
      return JsonObject()
          .number("slots", n.slots)
          .number("cpus_milli", n.cpus_milli)
          .number("gpus_milli", n.gpus_milli)
          .number("memory_bytes", n.memory)
          .number("disk_bytes", n.disk)
          .done();
    };
    std::string tasks, notes;
    for (const auto& run : core->running_list()) {
      tasks += tasks.empty() ? "" : ",";
      tasks += JsonObject()
                   .text("id", run.job_id + "/" + std::to_string(run.fence.task.index()))
                   .number("attempt", run.fence.attempt)
                   .text("engine", run.engine)
                   .number("running_ms", (clock.now().mono - run.since).count() / 1000)
                   .done();
    }
    for (const std::string& note : resources.notes) notes += (notes.empty() ? "" : ",") + quoted(note);
    if (!python_check.ok()) notes += (notes.empty() ? "" : ",") + quoted(python_check.note);
    const net::LinkCounters link = client->counters();
    JsonObject executors;
    if (python) {
      const auto s = python->status();
      executors.number("ready", s.ready)
          .number("busy", s.busy)
          .number("starting", s.starting)
          .number("started", s.started)
          .number("recycled", s.recycled)
          .number("died", s.died);
    }
    return JsonObject()
        .text("state", state())
        .text("worker_id", data.worker_id)
        .text("name", name())
        .text("server", options.server_url)
        .text("hostname", resources.hostname)
        .text("os", resources.os)
        .text("cpu_model", resources.cpu_model)
        .text("python_version", python_check.version)
        .text("sandbox", "process")
        .raw("total", need(total))
        .raw("used", need(used))
        .raw("running", "[" + tasks + "]")
        .number("backlog", core->waiting())
        .number("held", core->held())
        .number("window", core->window())
        .number("tasks_ended", core->ended())
        .number("tasks_failed", core->failed())
        .raw("executors", executors.done())
        .raw("connection", JsonObject()
                               .text("state", net::name(client->link_state()))
                               .flag("online", client->online())
                               .number("dials", link.dials)
                               .number("connected", link.connected)
                               .number("failed", link.failed)
                               .number("lost", link.lost)
                               .number("unacknowledged_frames", client->unacknowledged())
                               .done())
        .raw("notes", "[" + notes + "]")
        .done();
  }

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
  std::unordered_map<AttemptKey, Blobs::WaitPtr, AttemptKeyHash> checkpoints;
  std::unordered_map<AttemptKey, Bytes, AttemptKeyHash> logged;
  std::unique_ptr<Engine> commands;
  std::unique_ptr<PythonEngine> python;
  std::unique_ptr<net::Listener> health;
  Effects effects;
  bool acting = false, left = false, gone = false;
  std::unique_ptr<net::Timer> wake, leaving, patience, last;
  Instant armed{};
  CpuTicks ticks;
  std::optional<Error> error;
  std::vector<std::function<void()>> done_calls;
  std::function<void(const Error*)> on_ended;
};

Worker::Worker(net::Loop& loop, WorkerOptions options) : Worker(loop, std::move(options), nullptr) {}

Worker::Worker(net::Loop& loop, WorkerOptions options, std::unique_ptr<net::Dialer> dialer)
    : impl_(std::make_shared<Impl>(loop, std::move(options), std::move(dialer))) {}

Worker::~Worker() {
  impl_->python.reset();
  impl_->commands.reset();
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
  if (impl_->left) return;
  impl_->patience = impl_->loop.after(std::chrono::seconds(impl_->options.drain_seconds), [impl = impl_.get()] {
    if (impl->core->running() > 0)
      spdlog::warn("{} tasks did not end in time; the server will run them again.", impl->core->running());
    impl->leave();
  });
  impl_->step(DrainAsked{});
}

void Worker::stop(std::function<void()> done) {
  if (impl_->gone) {
    impl_->loop.post(std::move(done));
    return;
  }
  impl_->done_calls.push_back(std::move(done));
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
