// Runs on disk: written, read again after a start, listed, compared, forgotten.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <boost/json/serialize.hpp>

#include "server/api/views.hpp"
#include "server/runs/run_book.hpp"
#include "server/text.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {
namespace {

constexpr std::uint32_t kComparedWith = 5;
constexpr Bytes kReplayed = 64 * MiB;  // of large results that are read again at a start

Error no_such_run(const std::string& id) {
  return Error{ErrorClass::not_found, "There is no run \"" + cut_utf8(id, 80) + "\". List them with: grange runs ls"};
}

std::string text_in(const json::object& from, std::string_view key) {
  const json::value* value = from.if_contains(key);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

std::uint32_t count_in(const json::object& from, std::string_view key) {
  return static_cast<std::uint32_t>(std::clamp(number_at(from, key).value_or(0), 0.0, 4294967295.0));
}

json::object object_of(const std::string& text) {
  auto value = wire::parse_json(text);
  return value && value->is_object() ? std::move(value->get_object()) : json::object();
}

std::string winner_of(const json::object& summary) {
  const json::value* ranking = summary.if_contains("ranking");
  return ranking != nullptr && ranking->is_object() ? text_in(ranking->get_object(), "winner") : "";
}

store::RunRow row_of(const RunState& run) {
  const json::object summary = run.over ? summary_json(run) : json::object();
  return {.id = run.id,
          .kind = std::string(name(run.spec.kind)),
          .user = run.user,
          .digest = digest_of(run.spec),
          .status = run.status(),
          .started = run.started_at,
          .ended = run.ended_at,
          .record = write_record(run, winner_of(summary)),
          .summary = run.over ? json::serialize(summary) : std::string()};
}

}  // namespace

std::string write_record(const RunState& run, const std::string& winner) {
  json::array machines, warnings;
  for (const MachineState& m : run.machines) {
    json::array jobs;
    for (const PhaseState& phase : m.phases)
      jobs.push_back(json::object{{"job", phase.job.value}, {"id", phase.job_id}});
    machines.push_back(json::object{{"id", m.machine.id},
                                    {"name", m.machine.name},
                                    {"model", m.machine.model},
                                    {"cores", m.machine.cores},
                                    {"forced", m.machine.forced},
                                    {"worker", m.worker.value},
                                    {"checked", m.checked},
                                    {"jobs", std::move(jobs)}});
  }
  for (const std::string& one : run.warnings) warnings.emplace_back(one);
  return json::serialize(json::object{{"spec", write_run(run.spec)},
                                      {"machines", std::move(machines)},
                                      {"warnings", std::move(warnings)},
                                      {"winner", winner}});
}

std::optional<RunState> read_record(const store::RunRow& row) {
  const json::object record = object_of(row.record);
  const json::value *spec = record.if_contains("spec"), *machines = record.if_contains("machines");
  if (spec == nullptr || !spec->is_object() || machines == nullptr || !machines->is_array()) return std::nullopt;
  auto read = read_run(spec->get_object());
  if (!read) return std::nullopt;
  RunState out;
  out.id = row.id;
  out.user = row.user;
  out.spec = std::move(*read);
  out.phases = out.spec.phases();
  out.started_at = row.started;
  out.ended_at = row.ended;
  for (const json::value& one : machines->get_array()) {
    if (!one.is_object()) return std::nullopt;
    const json::object& from = one.get_object();
    MachineState m;
    m.machine.id = text_in(from, "id");
    m.machine.name = text_in(from, "name");
    m.machine.model = text_in(from, "model");
    m.machine.cores = std::max(1u, count_in(from, "cores"));
    const json::value *forced = from.if_contains("forced"), *checked = from.if_contains("checked"),
                      *jobs = from.if_contains("jobs");
    m.machine.forced = forced != nullptr && forced->is_bool() && forced->get_bool();
    m.worker = {count_in(from, "worker")};
    if (checked != nullptr && checked->is_object()) m.checked = checked->get_object();
    m.phases.resize(out.phases.size());
    for (std::size_t p = 0; jobs != nullptr && jobs->is_array() && p < m.phases.size() && p < jobs->get_array().size();
         ++p) {
      const json::value& job = jobs->get_array()[p];
      if (!job.is_object()) continue;
      m.phases[p].job = {count_in(job.get_object(), "job")};
      m.phases[p].job_id = text_in(job.get_object(), "id");
    }
    out.machines.push_back(std::move(m));
  }
  if (const json::value* warnings = record.if_contains("warnings"); warnings != nullptr && warnings->is_array()) {
    for (const json::value& one : warnings->get_array()) {
      if (one.is_string()) out.warnings.emplace_back(one.get_string());
    }
  }
  return out.machines.empty() ? std::nullopt : std::optional(std::move(out));
}

void RunBook::save(const Live& run, std::function<void(Result<>)> done) {
  ports_.on_store([row = row_of(run.state)](store::Store& store) { return store.put_run(row); }, std::move(done));
}

// Outcomes that were on disk when the server ended are told from there; what comes later, the queue tells.
Result<> RunBook::load(store::Reader& reader) {
  auto rows = reader.runs({.unfinished = true, .limit = 1000});
  if (!rows) return std::move(rows).error();
  const Now now = s_.clock.now();
  Bytes room = kReplayed;
  for (const store::RunRow& row : *rows) {
    auto state = valid_run_id(row.id) ? read_record(row) : std::nullopt;
    if (!state) {
      spdlog::warn("the run {} cannot be read any more; it is left as it is", for_log(row.id));
      continue;
    }
    auto run = std::make_unique<Live>();
    run->state = std::move(*state);
    run->state.started = {now.mono.us - (now.wall.ms - row.started.ms) * 1000};
    bool submitted = true;
    for (MachineState& m : run->state.machines) {
      m.moved = now.mono;
      m.away = now.mono;
      for (const PhaseState& phase : m.phases) submitted = submitted && phase.job.value != 0;
    }
    const std::string id = row.id;
    Live& live = *live_.emplace(id, std::move(run)).first->second;
    if (!submitted) {
      s_.post([this, id] {
        if (!live_.contains(id)) return;
        submit(id, [this, id](Result<> done) {
          if (!done) happened(id, run_events::Cancel{"its jobs could not be submitted: " + done.error().message});
        });
      });
      continue;
    }
    index(live);
    auto events = replay(reader, live.state, room);
    if (!events) return std::move(events).error();
    s_.post([this, id, events = std::move(*events)] {
      if (const auto it = live_.find(id); it != live_.end()) lifecycle(*it->second, "run_resumed");
      for (const RunEvent& event : events) happened(id, event);
    });
  }
  return {};
}

Result<std::vector<RunEvent>> RunBook::replay(store::Reader& reader, const RunState& run, Bytes& room) const {
  std::vector<RunEvent> out;
  for (std::size_t k = 0; k < run.machines.size(); ++k) {
    for (std::uint32_t p = 0; p < run.phases.size(); ++p) {
      const JobNo job = run.machines[k].phases[p].job;
      for (std::uint32_t from = 0; from < run.phases[p].tasks;) {
        auto rows = reader.outcomes(job, from, limits::kPage, true);
        if (!rows) return std::move(rows).error();
        if (rows->empty()) break;
        for (const store::OutcomeRow& row : *rows) {
          run_events::TaskOver event = task_over(k, p, row.task, row.end, row.failure, row.run_us, &row.body);
          event.at_us = (row.at.ms - run.started_at.ms) * 1000;
          if (row.end == core::TaskEnd::completed) {
            if (!row.body.value_sha256.empty()) {
              auto value = read_result(*s_.blobs, row.body.value_sha256, room);
              if (value) {
                event.value = std::move(*value);
                room -= std::min(room, s_.blobs->size(row.body.value_sha256).value_or(0));
              } else {
                event.message = value.error().message;
              }
            } else if (auto parsed = wire::parse_json(row.body.value)) {
              event.value = std::move(*parsed);
            }
          }
          from = row.task.index() + 1;
          out.emplace_back(std::move(event));
        }
      }
      auto row = reader.job(job);
      if (!row) return std::move(row).error();
      if (!row->has_value() || core::ended((*row)->state)) out.emplace_back(run_events::JobOver{k, p});
    }
  }
  return out;
}

namespace {

RunLook look_of(const store::RunRow& row) {
  RunLook out;
  if (auto state = read_record(row)) out.metadata = metadata_json(*state);
  out.metadata["run_id"] = row.id;
  out.metadata["kind"] = row.kind;
  out.metadata["status"] = row.status;
  out.summary = object_of(row.summary);
  return out;
}

}  // namespace

void RunBook::look(const Principal& who, const std::string& id, Done<RunLook> done) {
  if (auto may = authorize(who, Action::see_jobs, {"run", id}); !may) return done(std::move(may).error());
  if (const auto it = live_.find(id); it != live_.end())
    return done(RunLook{.metadata = metadata_json(it->second->state), .summary = summary_json(it->second->state)});
  s_.files->read<RunLook>(
      [id](store::Reader& reader) -> Result<RunLook> {
        auto row = reader.run(id);
        if (!row) return std::move(row).error();
        if (!row->has_value()) return no_such_run(id);
        return look_of(**row);
      },
      std::move(done));
}

void RunBook::list(const Principal& who, store::RunFilter filter, Done<json::array> done) {
  if (auto may = authorize(who, Action::see_jobs, {"runs"}); !may) return done(std::move(may).error());
  s_.files->read<json::array>(
      [filter](store::Reader& reader) -> Result<json::array> {
        auto rows = reader.runs(filter);
        if (!rows) return std::move(rows).error();
        json::array out;
        for (const store::RunRow& row : *rows) {
          const RunLook look = look_of(row);
          json::object one;
          for (const char* key : {"run_id", "kind", "status", "started_at", "ended_at", "user", "model", "what",
                                  "prompt", "machines", "repeats", "concurrency"}) {
            if (const json::value* value = look.metadata.if_contains(key); value != nullptr) one[key] = *value;
          }
          if (json::value* prompt = one.if_contains("prompt"); prompt != nullptr && prompt->is_string())
            *prompt = cut_utf8(std::string(prompt->get_string()), 200);
          const std::string winner = text_in(object_of(row.record), "winner");
          one["winner"] = winner.empty() ? json::value(nullptr) : json::value(winner);
          out.push_back(std::move(one));
        }
        return out;
      },
      std::move(done));
}

void RunBook::compare(const Principal& who, const std::string& id, std::vector<std::string> with,
                      Done<json::object> done) {
  if (auto may = authorize(who, Action::see_jobs, {"run", id}); !may) return done(std::move(may).error());
  if (live_.contains(id))
    return done(
        Error{ErrorClass::invalid_state_transition, "The run " + id + " goes on; compare it when it has ended."});
  s_.files->read<json::object>(
      [id, with](store::Reader& reader) -> Result<json::object> {
        auto row = reader.run(id);
        if (!row) return std::move(row).error();
        if (!row->has_value()) return no_such_run(id);
        std::vector<store::RunRow> others;
        for (const std::string& other : with) {
          auto one = reader.run(other);
          if (!one) return std::move(one).error();
          if (!one->has_value()) return no_such_run(other);
          if ((*one)->kind != (*row)->kind)
            return Error{ErrorClass::invalid_argument,
                         fmt::format("{} is a race of the kind {}, and {} of the kind {}: they cannot be compared.", id,
                                     (*row)->kind, other, (*one)->kind)};
          others.push_back(std::move(**one));
        }
        if (with.empty()) {
          auto earlier = reader.runs({.kind = (*row)->kind,
                                      .digest = (*row)->digest,
                                      .before = id,
                                      .summaries = true,
                                      .limit = kComparedWith});
          if (!earlier) return std::move(earlier).error();
          others = std::move(*earlier);
        }
        const json::object now = object_of((*row)->summary);
        json::array compared;
        for (const store::RunRow& other : others) {
          if (other.summary.empty()) continue;
          json::object one = compare_json(now, object_of(other.summary));
          one["same_settings"] = other.digest == (*row)->digest;
          compared.push_back(std::move(one));
        }
        return json::object{{"run_id", id}, {"kind", (*row)->kind}, {"compared_with", std::move(compared)}};
      },
      std::move(done));
}

void RunBook::remove(const Principal& who, const std::string& id, Done<Unit> done) {
  if (auto may = authorize(who, Action::cancel_job, {"run", id}); !may) return done(std::move(may).error());
  if (live_.contains(id))
    return done(
        Error{ErrorClass::conflict, "The run " + id + " goes on. Cancel it first: POST /api/runs/" + id + "/cancel"});
  s_.files->read<std::string>(
      [id](store::Reader& reader) -> Result<std::string> {
        auto row = reader.run(id);
        if (!row) return std::move(row).error();
        if (!row->has_value()) return no_such_run(id);
        return (*row)->user;
      },
      [this, who, id, done](Result<std::string> user) {
        if (!user) return done(std::move(user).error());
        if (auto may = authorize(who, Action::cancel_job, {"run", id, *user}); !may)
          return done(std::move(may).error());
        ports_.on_store(
            [id](store::Store& store) -> Result<> {
              auto dropped = store.drop_run(id);
              if (!dropped) return std::move(dropped).error();
              if (!*dropped) return no_such_run(id);
              return {};
            },
            [this, id, done](Result<> dropped) {
              if (dropped && valid_run_id(id)) files_.remove(id);
              done(std::move(dropped));
            });
      });
}

void RunBook::forget_all() {
  live_.clear();
  jobs_.clear();
  files_.remove_all();
}

void RunBook::forget_beyond(std::uint64_t keep) {
  auto gone = std::make_shared<std::vector<std::string>>();
  ports_.on_store(
      [gone, keep](store::Store& store) -> Result<> {
        auto ids = store.forget_runs(keep);
        if (!ids) return std::move(ids).error();
        *gone = std::move(*ids);
        return {};
      },
      [this, gone](Result<> done) {
        if (!done) return;
        for (const std::string& id : *gone) {
          if (valid_run_id(id)) files_.remove(id);
        }
      });
}

}  // namespace grange::server
