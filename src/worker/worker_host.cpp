// What engines and the session call.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <set>

#include "worker/worker_impl.hpp"

namespace grange::worker {

void Worker::Impl::ended(TaskId task, Attempt attempt, pb::TaskResult result) {
  if (!result.ok() && core->giving_back(task, attempt) && checkpoints.contains({task, attempt})) {
    after_checkpoint[{task, attempt}] = std::move(result);  // else the next attempt would not find it
    return;
  }
  logged.erase({task, attempt});
  began.erase({task, attempt});
  step(AttemptEnded{task, attempt, &result});
}

bool Worker::Impl::log(TaskId task, Attempt attempt, pb::Stream stream, std::string_view bytes) {
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

bool Worker::Impl::send_log(const Fence& fence, pb::Stream stream, std::string text) {
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

void Worker::Impl::progress(TaskId task, Attempt attempt, double done, double total, std::string text) {
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

void Worker::Impl::event(TaskId task, Attempt attempt, std::string type, std::string data_json) {
  const Fence* fence = core->running_fence(task, attempt);
  if (fence == nullptr) return;
  pb::EngineEvent out;
  out.set_task(fence->task.packed);
  out.set_attempt(fence->attempt);
  out.set_epoch(fence->epoch);
  out.set_type(std::move(type));
  out.set_data_json(std::move(data_json));
  if (const auto it = began.find({task, attempt}); it != began.end())
    out.set_time_us(static_cast<std::uint64_t>((clock.now().mono - it->second).count()));
  client->event(std::move(out));
}

void Worker::Impl::checkpoint(TaskId task, Attempt attempt, std::string bytes) {
  if (bytes.size() <= client->inline_limit()) {
    pb::Checkpoint out;
    out.set_data(std::move(bytes));
    send_checkpoint(task, attempt, std::move(out));
    return;
  }
  // The newest of an attempt replaces one that is still on its way.
  Upload& upload = checkpoints[{task, attempt}];
  if (upload.wait) loop.post([old = std::shared_ptr<Blobs::Wait>(std::move(upload.wait))] {});
  const std::uint64_t number = upload.number = ++uploads;
  upload.wait = blobs->put(std::move(bytes), [this, task, attempt, number](Result<std::string> sha) {
    if (sha) {
      pb::Checkpoint out;
      out.set_data_sha256(*sha);
      send_checkpoint(task, attempt, std::move(out));
    } else {
      spdlog::warn("A checkpoint was not stored: {}", sha.error().message);
    }
    loop.post([weak = weak_from_this(), task, attempt, number] {
      if (const auto self = weak.lock()) self->checkpoint_done({task, attempt}, number);
    });
  });
  std::erase_if(checkpoints, [this](const auto& entry) {
    return core->running_fence(entry.first.task, entry.first.attempt) == nullptr;
  });
}

void Worker::Impl::checkpoint_done(const AttemptKey& key, std::uint64_t number) {
  const auto upload = checkpoints.find(key);
  if (upload == checkpoints.end() || upload->second.number != number) return;  // a newer one is on its way
  checkpoints.erase(upload);
  const auto it = after_checkpoint.find(key);
  if (it == after_checkpoint.end()) return;
  pb::TaskResult result = std::move(it->second);
  after_checkpoint.erase(it);
  ended(key.task, key.attempt, std::move(result));
}

void Worker::Impl::send_checkpoint(TaskId task, Attempt attempt, pb::Checkpoint out) {
  const Fence* fence = core->running_fence(task, attempt);
  if (fence == nullptr) return;
  out.set_task(fence->task.packed);
  out.set_attempt(fence->attempt);
  out.set_epoch(fence->epoch);
  client->checkpoint(std::move(out));
}

void Worker::Impl::engine_off(Kind kind, std::string why) {
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

void Worker::Impl::fill_hello(pb::WorkerHello& hello) {
  hello.set_worker_id(data.worker_id);
  hello.set_name(name());
  hello.set_window(core->window());
  hello.set_draining(core->draining());
  core->list_held(*hello.mutable_held());
  fill_manifest(*hello.mutable_manifest());
}

void Worker::Impl::fill_manifest(pb::Manifest& m) {
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
  m.set_pool(options.pool);
  for (const std::string& model : options.models) m.add_models(model);
  if (life_over != Instant::never())
    m.set_life_ms(static_cast<std::uint64_t>(std::max<std::int64_t>(1, (life_over - clock.now().mono).count() / 1000)));
  for (const GpuInfo& gpu : resources.gpus) {
    pb::Gpu& out = *m.add_gpus();
    out.set_name(gpu.name);
    out.set_memory_bytes(gpu.memory);
    out.set_uuid(gpu.uuid);
  }
  m.add_engines("builtin");
  m.add_engines("command");
  if (python_check.ok()) m.add_engines("python");
  // A mock may answer anywhere, where the job allows one.
  for (const char* engine : {"compute", "models", "llm-mock", "image-mock"}) m.add_engines(engine);
  std::set<std::string> engines_of_services;
  // Gone before the rest of a worker that leaves, which may still be asked what it offers.
  for (const ServiceInfo& service : services ? services->list() : std::vector<ServiceInfo>()) {
    const std::string engine = engine_of(service.shown.kind());
    if (!engine.empty()) engines_of_services.insert(engine);
    if (engine.starts_with("remote")) engines_of_services.insert("remote:" + service.shown.name());
    *m.add_services() = service.shown;
  }
  for (const std::string& engine : engines_of_services) m.add_engines(engine);
  for (const auto& [key, value] : options.labels) (*m.mutable_labels())[key] = value;
  (*m.mutable_labels())[std::string(kWorkerLabel)] = data.worker_id;  // nobody else's to say
  for (const std::string& note : resources.notes) m.add_notes(note);
  if (!python_check.ok() && !python_check.note.empty()) m.add_notes(python_check.note);
}

bool Worker::Impl::take_report(pb::WorkerReport& report, Bytes limit) {
  return core->take_report(report, limit);
}

void Worker::Impl::fill_heartbeat(pb::Heartbeat& beat) {
  const CpuTicks now = parse_cpu_ticks(read_text("/proc/stat", 4096));
  if (ticks.total != 0 && now.total > ticks.total) {
    beat.set_cpu_percent(100.0 * static_cast<double>(now.busy - ticks.busy) /
                         static_cast<double>(now.total - ticks.total));
  }
  ticks = now;
  beat.set_running(core->running());
  beat.set_backlog(core->waiting());
  beat.set_window(core->window());
  beat.set_memory_used_bytes(memory_used(resources.memory));
  beat.set_disk_free_bytes(disk_free(data.path));
  if (load_meter) load_meter->fill(beat, clock.now().mono);
  if (keeper) keeper->fill(beat, clock.now().mono);
  load_history.add(clock.now().wall, beat);  // the last: all of it was measured by now
}

void Worker::Impl::room_for_output() {
  for (const auto& [kind, engine] : engines) engine->resume_output();
}

void Worker::Impl::relay(pb::Relay& relay) {
  if (relays) relays->heard(relay);
}

void Worker::Impl::link_writable() {
  if (relays) relays->writable();
}

void Worker::Impl::link_changed(net::LinkState state) {
  if (relays && state != net::LinkState::connected) relays->drop_all();  // a stream does not outlive its connection
}

void Worker::Impl::refused(const Error& why) {
  spdlog::error("{}", why.message);
  error = why;
  loop.post([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->leave();
  });
}

}  // namespace grange::worker
