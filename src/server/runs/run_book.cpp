#include "server/runs/run_book.hpp"

#include <fmt/format.h>
#include <openssl/rand.h>
#include <spdlog/spdlog.h>

#include <boost/json/serialize.hpp>

#include "core/farm.hpp"
#include "server/api/views.hpp"
#include "server/text.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {
namespace {

constexpr std::size_t kLiveRuns = 64;
constexpr Bytes kEventsFile = 64 * MiB;
constexpr Micros kEachSecond{1'000'000};
constexpr Micros kBetweenLanes{2'000'000};

std::uint64_t random_number() {
  std::uint64_t out = 0;
  GRANGE_ASSERT(RAND_bytes(reinterpret_cast<unsigned char*>(&out), sizeof out) == 1);
  return out;
}

std::string new_run_id(WallMs now) {
  std::string time = iso_time(now);  // 2024-01-15T14:30:22.125Z
  std::erase(time, ':');
  time = time.substr(0, 17);
  time[10] = '_';
  return fmt::format("{}_{:06x}", time, random_number() & 0xffffff);
}

Error ended_before(const std::string& id) {
  return Error{ErrorClass::conflict, "The run " + id + " was ended before its jobs were submitted."};
}

Error too_many(std::size_t live) {
  return Error{ErrorClass::rate_limited, fmt::format("{} races run already. Wait for one of them to end.", live)};
}

}  // namespace

RunBook::RunBook(Services& services, Operations& operations, RunPorts ports)
    : s_(services),
      operations_(operations),
      ports_(std::move(ports)),
      files_(*services.files, services.post, services.options.data_dir) {}

void RunBook::facts(std::function<void(Result<std::vector<WorkerFacts>>)> done) {
  using Rows = std::vector<store::WorkerRow>;
  s_.readers->read<Rows>([](store::Reader& reader) { return reader.workers(); },
                         [this, done](Result<Rows> rows) {
                           if (!rows) return done(std::move(rows).error());
                           s_.queue->inspect([this, done, rows = std::make_shared<Rows>(std::move(*rows)),
                                              post = s_.post](const core::Farm& farm, Now) {
                             std::unordered_map<WorkerNo, core::WorkerView> live;
                             for (core::WorkerView& view : farm.workers()) live.emplace(view.worker, std::move(view));
                             auto out = std::make_shared<std::vector<WorkerFacts>>();
                             for (const store::WorkerRow& row : *rows) {
                               WorkerFacts facts{.worker = row.worker, .id = row.id, .name = row.name, .manifest = {}};
                               if (!facts.manifest.ParseFromString(row.manifest)) facts.manifest.Clear();
                               if (const auto view = live.find(row.worker); view != live.end()) {
                                 facts.connected = view->second.connected;
                                 facts.draining = view->second.draining;
                                 facts.quarantined = view->second.quarantined;
                                 facts.running = view->second.running;
                               }
                               out->push_back(std::move(facts));
                             }
                             post([done, out] { done(std::move(*out)); });
                           });
                         });
}

void RunBook::check(const Principal& who, RunSpec spec, Done<json::object> done) {
  if (auto may = authorize(who, Action::see_workers, {"run"}); !may) return done(std::move(may).error());
  facts([spec = std::move(spec), done = std::move(done)](Result<std::vector<WorkerFacts>> workers) {
    if (!workers) return done(std::move(workers).error());
    done(preflight_json(spec, preflight(spec, *workers)));
  });
}

void RunBook::start(const Principal& who, RunSpec spec, Done<Started> done) {
  if (auto may = authorize(who, Action::submit_job, {"run"}); !may) return done(std::move(may).error());
  if (live_.size() >= kLiveRuns) return done(too_many(live_.size()));
  if (spec.kind == RunKind::image && !spec.seed_given) {
    spec.seed = random_number() >> 32;  // a picture that was painted before comes from a cache
    spec.seed_given = true;
  }
  facts([this, user = who.name, spec = std::move(spec),
         done = std::move(done)](Result<std::vector<WorkerFacts>> workers) {
    if (!workers) return done(std::move(workers).error());
    if (s_.stopping) return done(Error{ErrorClass::unavailable, "The server is stopping. Try again when it is back."});
    if (live_.size() >= kLiveRuns) return done(too_many(live_.size()));  // others began meanwhile
    const Preflight checked = preflight(spec, *workers);
    if (auto left = anything_left(spec, checked); !left) {
      Error error = std::move(left).error();
      error.details = json::serialize(preflight_json(spec, checked));
      return done(std::move(error));
    }
    const Now now = s_.clock.now();
    auto run = std::make_unique<Live>();
    RunState& state = run->state;
    state.id = new_run_id(now.wall);
    state.user = user;
    state.spec = spec;
    state.phases = spec.phases();
    state.warnings = checked.warnings;
    state.started_at = now.wall;
    state.started = now.mono;
    const json::object shown = preflight_json(spec, checked);
    for (std::size_t i = 0; i < checked.machines.size(); ++i) {
      const MachineCheck& one = checked.machines[i];
      if (!one.chosen) continue;
      MachineState machine;
      machine.machine = one.machine;
      machine.worker = one.worker;
      machine.checked = shown.at("machines").get_array()[i].get_object();
      machine.phases.resize(state.phases.size());
      machine.moved = now.mono;
      state.machines.push_back(std::move(machine));
    }
    const std::string id = state.id;
    Live& live = *live_.emplace(id, std::move(run)).first->second;
    // First what ties the jobs together, then the jobs: their keys make a second submit after a crash harmless.
    save(live, [this, id, shown, done](Result<> saved) {
      if (!saved) {
        live_.erase(id);
        return done(std::move(saved).error());
      }
      submit(id, [this, id, shown, done](Result<> submitted) {
        if (!submitted) {
          const auto it = live_.find(id);
          if (it == live_.end() || it->second->state.over) return done(std::move(submitted).error());  // it is kept
          live_.erase(it);
          ports_.on_store(
              [id](store::Store& store) -> Result<> {
                auto dropped = store.drop_run(id);
                if (!dropped) return std::move(dropped).error();
                return {};
              },
              [](Result<>) {});
          return done(std::move(submitted).error());
        }
        const std::uint64_t next = s_.events->next();
        lifecycle(*live_.at(id), "run_start");
        done(Started{.run_id = id, .next_event = next, .preflight = shown});
      });
    });
  });
}

void RunBook::submit(const std::string& id, std::function<void(Result<>)> done) {
  const auto found = live_.find(id);
  if (found == live_.end() || found->second->state.over) return done(ended_before(id));
  const RunState& state = found->second->state;
  std::vector<SubmitInput> jobs;
  for (std::size_t k = 0; k < state.machines.size(); ++k) {
    for (SubmitInput& one : jobs_of(state.spec, id, state.user, k, state.machines[k].machine))
      jobs.push_back(std::move(one));
  }
  operations_.submit_graph(
      {state.user, PrincipalKind::local}, std::move(jobs), [this, id, done](Result<std::vector<SubmitAnswer>> answers) {
        const auto it = live_.find(id);
        if (!answers) return done(std::move(answers).error());
        if (it == live_.end() || it->second->state.over) {
          for (const SubmitAnswer& one : *answers)
            s_.queue->cancel(one.meta->job, std::nullopt, "its race has ended", [](Result<std::uint32_t>) {});
          return done(ended_before(id));
        }
        Live& run = *it->second;
        std::size_t next = 0;
        for (MachineState& machine : run.state.machines) {
          for (PhaseState& phase : machine.phases) {
            phase.job = (*answers)[next].meta->job;
            phase.job_id = (*answers)[next++].meta->id;
          }
        }
        index(run);
        files_.write(id, "metadata.json", wire::json_text(metadata_json(run.state)) + "\n");
        // Were this write lost, the same keys would find the same jobs again.
        save(run, [](Result<>) {});
        done({});
      });
}

void RunBook::index(const Live& run) {
  for (std::size_t k = 0; k < run.state.machines.size(); ++k) {
    for (std::uint32_t p = 0; p < run.state.phases.size(); ++p) {
      if (const JobNo job = run.state.machines[k].phases[p].job; job.value != 0)
        jobs_[job] = {.run = run.state.id, .machine = k, .phase = p};
    }
  }
}

void RunBook::happened(const std::string& id, const RunEvent& event) {
  const auto it = live_.find(id);
  if (it == live_.end()) return;
  Live& run = *it->second;
  bool ended = false;
  for (RunEffect& effect :
       step(run.state, event, s_.clock.now().mono, std::chrono::duration_cast<Micros>(s_.options.lease))) {
    if (const auto* what = std::get_if<Tell>(&effect)) {
      tell(run, *what);
    } else if (const auto* cancel = std::get_if<CancelJob>(&effect)) {
      s_.queue->cancel(cancel->job, std::nullopt, cancel->reason, [](Result<std::uint32_t>) {});
    } else {
      ended = true;
    }
  }
  if (ended) over(id);
}

void RunBook::over(const std::string& id) {
  Live& run = *live_.at(id);
  run.state.ended_at = s_.clock.now().wall;
  lifecycle(run, "run_end");
  flush(run);
  const json::object summary = summary_json(run.state);
  files_.write(id, "metadata.json", wire::json_text(metadata_json(run.state)) + "\n");
  files_.write(id, "summary.json", wire::json_text(machines_json(summary)) + "\n");
  run.unsaved = true;
  keep(id);
}

// Until it is on disk it stays here: a full disk is tried again by the tick.
void RunBook::keep(const std::string& id) {
  Live& run = *live_.at(id);
  if (run.saving) return;
  run.saving = true;
  save(run, [this, id](Result<> saved) {
    const auto it = live_.find(id);
    if (it == live_.end()) return;
    it->second->saving = false;
    if (!saved) return;
    for (const MachineState& machine : it->second->state.machines) {
      for (const PhaseState& phase : machine.phases) jobs_.erase(phase.job);
    }
    const auto waiting = std::move(it->second->waiting);
    live_.erase(it);
    for (const auto& [number, call] : waiting) call();
    forget_beyond(s_.options.retain_runs);
  });
}

void RunBook::began(Fence fence) {
  if (jobs_.empty()) return;
  const auto it = jobs_.find(fence.task.job());
  if (it == jobs_.end()) return;
  const Place place = it->second;
  happened(place.run, run_events::Began{place.machine, place.phase, fence.task.index(), fence.attempt});
}

bool RunBook::said(Fence fence, const std::string& type, const std::string& data) {
  if (jobs_.empty()) return false;
  const auto it = jobs_.find(fence.task.job());
  if (it == jobs_.end()) return false;
  const Place place = it->second;
  happened(place.run, run_events::Said{place.machine, place.phase, fence.task.index(), fence.attempt, type, data});
  return true;
}

namespace {

json::value value_of(std::string_view text) {
  auto value = wire::parse_json(text);
  return value ? std::move(*value) : json::value(nullptr);
}

}  // namespace

Result<json::value> read_result(const store::BlobStore& blobs, const std::string& sha256, Bytes most) {
  const Bytes size = blobs.size(sha256).value_or(0);
  if (size > std::min(most, kRaceResult))
    return Error{ErrorClass::too_large, fmt::format("Its result is too large for a race: {} bytes.", size)};
  auto bytes = blobs.get(sha256);
  if (!bytes) return std::move(bytes).error();
  return value_of(*bytes);
}

run_events::TaskOver task_over(std::size_t machine, std::uint32_t phase, TaskId task, core::TaskEnd end,
                               core::FailureClass failure, std::uint64_t run_us, const core::ResultBody* body) {
  run_events::TaskOver out{.machine = machine,
                           .phase = phase,
                           .repeat = task.index(),
                           .end = end,
                           .failure = failure,
                           .run_us = run_us,
                           .error = {},
                           .message = {}};
  if (body == nullptr) return out;
  if (end == core::TaskEnd::failed) out.error = cut_utf8(is_utf8(body->exception) ? body->exception : "", 64);
  if (end != core::TaskEnd::completed)
    out.message = said(failure, is_utf8(body->message) ? cut_utf8(body->message, 2000) : "");
  return out;
}

void RunBook::outcome(const Place& place, const queue::Ended& ended) {
  const core::ResultBody* body = ended.body.get();
  auto event = std::make_shared<run_events::TaskOver>(
      task_over(place.machine, place.phase, ended.task, ended.end, ended.failure, ended.run_us, body));
  if (body != nullptr && ended.end == core::TaskEnd::completed && !body->value_sha256.empty()) {
    const JobNo job = ended.task.job();
    ++jobs_[job].reading;
    s_.files->read<json::value>(
        [blobs = s_.blobs, sha = body->value_sha256](store::Reader&) { return read_result(*blobs, sha); },
        [this, event, job, run = place.run](Result<json::value> value) {
          if (value) {
            event->value = std::move(*value);
          } else {
            event->message = value.error().message;
          }
          happened(run, *event);
          const auto it = jobs_.find(job);
          if (it == jobs_.end() || --it->second.reading > 0 || !it->second.over) return;
          const Place at = it->second;
          happened(at.run, run_events::JobOver{at.machine, at.phase});
        });
    return;
  }
  if (body != nullptr && ended.end == core::TaskEnd::completed) event->value = value_of(body->value);
  happened(place.run, *event);
}

void RunBook::deliver(const queue::Delivery& delivery) {
  if (live_.empty()) return;
  for (const queue::Ended& ended : delivery.ended) {
    const auto it = jobs_.find(ended.task.job());
    if (it != jobs_.end()) outcome(Place(it->second), ended);
  }
  for (const queue::JobChange& change : delivery.jobs) {
    const auto it = jobs_.find(change.job);
    if (it == jobs_.end() || !core::ended(change.state)) continue;
    it->second.over = true;
    const Place place = it->second;
    if (place.reading == 0) happened(place.run, run_events::JobOver{place.machine, place.phase});
  }
  for (const queue::WorkerChange& change : delivery.workers) {
    const bool gone = change.kind == queue::WorkerChangeKind::lost || change.kind == queue::WorkerChangeKind::left;
    if (!gone && change.kind != queue::WorkerChangeKind::connected) continue;
    std::vector<std::pair<std::string, std::size_t>> places;
    for (const auto& [id, run] : live_) {
      for (std::size_t k = 0; k < run->state.machines.size(); ++k) {
        if (run->state.machines[k].worker == change.worker) places.emplace_back(id, k);
      }
    }
    for (const auto& [id, k] : places) {
      gone ? happened(id, run_events::WorkerLost{k}) : happened(id, run_events::WorkerBack{k});
    }
  }
}

void RunBook::tick(Now now) {
  if (live_.empty()) return;
  const bool look = now.mono - looked_ >= kEachSecond;
  if (look) looked_ = now.mono;
  if (now.mono - looked_at_lanes_ >= kBetweenLanes) {
    looked_at_lanes_ = now.mono;
    look_at_lanes(now.mono);
  }
  std::vector<std::string> ids;
  for (const auto& [id, run] : live_) ids.push_back(id);
  for (const std::string& id : ids) {
    if (const auto it = live_.find(id); it != live_.end()) flush(*it->second);
    if (!look) continue;
    happened(id, run_events::Tick{});
    if (const auto it = live_.find(id); it != live_.end() && it->second->unsaved) keep(id);
  }
}

void RunBook::tell(Live& run, const Tell& what) {
  const Now now = s_.clock.now();
  const RunState& state = run.state;
  std::string place;
  JobNo job{};
  std::string job_id;
  if (what.machine) {
    const MachineState& machine = state.machines[*what.machine];
    place = fmt::format(R"("machine_id":{},"machine":{},)", wire::quoted(machine.machine.id),
                        wire::quoted(machine.machine.name));
    if (what.type != "run_lifecycle") {
      job = machine.phases[what.phase].job;
      job_id = machine.phases[what.phase].job_id;
      const Phase& phase = state.phases[what.phase];
      place += fmt::format(R"("job_id":{},"phase":{},"concurrency":{},"warmup":{},"repeat":{},)", wire::quoted(job_id),
                           what.phase, phase.concurrency, phase.warmup, what.repeat);
    }
  }
  const std::string data = fmt::format(R"({{"run_id":{},{}"t_ms":{:.3f},"payload":{}}})", wire::quoted(state.id), place,
                                       static_cast<double>((now.mono - state.started).count()) / 1000, what.payload);
  s_.events->publish(job.value == 0 ? Topic::runs : Topic::tasks, job, job_id, what.type, data, now.wall, state.id);
  // Pictures on their way are for those who look on; the file gets the rest, up to a size.
  if (what.type == "image_preview") return;
  std::string line =
      fmt::format("{{\"type\":{},\"time\":\"{}\",{}\n", wire::quoted(what.type), iso_time(now.wall), data.substr(1));
  const bool small = what.type == "run_lifecycle" || what.type == "job_start" || what.type == "job_timeout" ||
                     what.type.ends_with("_done");
  if (run.written > kEventsFile && !small) {
    if (!std::exchange(run.full, true))
      run.lines += fmt::format(
          "{{\"type\":\"left_out\",\"time\":\"{}\",\"run_id\":{},\"payload\":{{\"reason\":\"the file of events "
          "is full: only starts and ends follow\"}}}}\n",
          iso_time(now.wall), wire::quoted(state.id));
    return;
  }
  run.written += line.size();
  run.lines += line;
}

void RunBook::lifecycle(Live& run, std::string_view type) {
  const RunState& state = run.state;
  json::array machines;
  for (const MachineState& machine : state.machines) {
    machines.push_back(json::object{
        {"machine", machine.machine.name}, {"machine_id", machine.machine.id}, {"status", name(machine.fate)}});
    if (!machine.waits.empty() && !grange::server::over(machine.fate))
      machines.back().get_object()["waits"] = machine.waits;
  }
  tell(run, {.type = "run_lifecycle",
             .machine = {},
             .payload = json::serialize(json::object{{"type", type},
                                                     {"run_id", state.id},
                                                     {"kind", name(state.spec.kind)},
                                                     {"status", state.status()},
                                                     {"machines", std::move(machines)}})});
}

void RunBook::flush(Live& run) {
  if (run.lines.empty()) return;
  // A disk that cannot keep up gets fewer and larger pieces.
  if (files_.busy(run.state.id) && run.lines.size() < MiB && !run.state.over) return;
  files_.append(run.state.id, std::exchange(run.lines, {}));
}

void RunBook::wait(const std::string& id, Millis patience, std::function<void()> done) {
  const auto it = live_.find(id);
  if (it == live_.end() || patience.count() <= 0) return done();
  struct Waiting {
    bool over = false;
    std::unique_ptr<net::Timer> timer;
  };
  auto waiting = std::make_shared<Waiting>();
  const std::uint64_t number = ++last_wait_;
  const auto finish = [this, id, number, waiting, done = std::move(done)] {
    if (std::exchange(waiting->over, true)) return;
    if (const auto live = live_.find(id); live != live_.end()) live->second->waiting.erase(number);
    s_.post([waiting] { waiting->timer.reset(); });  // not from inside the timer's own callback
    done();
  };
  it->second->waiting.emplace(number, finish);
  waiting->timer = s_.loop.after(patience, finish);
}

void RunBook::cancel(const Principal& who, const std::string& id, const std::string& reason, Done<Unit> done) {
  if (auto may = authorize(who, Action::cancel_job, {"run", id}); !may) return done(std::move(may).error());
  if (!live_.contains(id)) {
    return look(who, id, [id, done](Result<RunLook> found) {
      if (!found) return done(std::move(found).error());
      done(Error{ErrorClass::invalid_state_transition, "The run " + id + " has ended already."});
    });
  }
  const std::string& user = live_.at(id)->state.user;
  if (auto may = authorize(who, Action::cancel_job, {"run", id, user}); !may) return done(std::move(may).error());
  happened(id, run_events::Cancel{reason.empty() ? "cancelled by its user" : cut_utf8(reason, 200)});
  done({});
}

}  // namespace grange::server
