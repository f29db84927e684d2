#include "server/api/views.hpp"

#include <fmt/format.h>

#include <boost/json/serialize.hpp>

#include "server/text.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {
namespace {

constexpr Bytes kShownBlob = 4 * MiB;

json::value text_or_null(const std::string& text) {
  return text.empty() ? json::value(nullptr) : json::value(text);
}

json::value name_or_null(core::FailureClass failure) {
  return failure == core::FailureClass::none ? json::value(nullptr) : json::value(core::name(failure));
}
json::value name_or_null(core::Stage stage) {
  return stage == core::Stage::none ? json::value(nullptr) : json::value(core::name(stage));
}
// Whose doing it was: "job" or "system".
json::value fault_json(core::FailureClass failure, core::Stage stage) {
  const core::Fault fault = core::fault_of(failure, stage);
  return fault == core::Fault::none ? json::value(nullptr) : json::value(core::name(fault));
}

json::array files_json(const std::string& files) {
  json::array out;
  pb::TaskResult only;
  if (files.empty() || !only.ParseFromString(files)) return out;
  for (const pb::FileOut& file : only.files()) {
    out.push_back(
        json::object{{"path", file.path()}, {"sha256", file.sha256()}, {"bytes", file.bytes()}, {"mode", file.mode()}});
  }
  return out;
}

json::object model_json(const pb::Model& model) {
  json::value numbers = nullptr;
  if (!model.fit_json().empty()) {
    if (auto read = wire::parse_json(model.fit_json())) numbers = std::move(*read);
  }
  return {{"name", model.name()},
          {"kind", model.kind()},
          {"bytes", model.bytes()},
          {"quantization", text_or_null(model.quantization())},
          {"family", text_or_null(model.family())},
          {"parameters", text_or_null(model.parameters())},
          {"context", model.context() == 0 ? json::value(nullptr) : json::value(model.context())},
          {"loaded", model.loaded()},
          {"loaded_bytes", model.loaded_bytes()},
          {"gpu_bytes", model.gpu_bytes()},
          {"digest", text_or_null(model.digest())},
          {"fit", model.fit().empty() ? "UNKNOWN" : model.fit()},
          {"good_context", model.good_context()},
          {"max_context", model.max_context()},
          {"fit_numbers", std::move(numbers)}};
}

// Of one that the worker keeps running, what its worker makes of it; one that is up and yet of no use is not well.
std::string service_state(const pb::Service& service) {
  if (!service.managed() || service.care().empty()) return service.state();
  return service.care() == "ready" && service.state() == "down" ? "unhealthy" : service.care();
}

json::object service_json(const pb::Service& service, const WorkerFigures* figures) {
  json::array models;
  for (const pb::Model& model : service.models()) models.push_back(model_json(model));
  json::value cpu = nullptr, memory = nullptr;
  for (std::size_t i = 0; service.managed() && figures != nullptr && i < figures->services.size(); ++i) {
    const ServiceLook& look = figures->services[i];
    if (look.name != service.name()) continue;
    if (look.cpu_percent) cpu = *look.cpu_percent;
    if (look.memory) memory = *look.memory;
  }
  return {{"name", service.name()},
          {"kind", service.kind()},
          {"state", service_state(service)},
          {"managed", service.managed()},
          {"pid", service.pid() == 0 ? json::value(nullptr) : json::value(service.pid())},
          {"restarts", service.restarts()},
          {"since_ms", service.since_ms() == 0 ? json::value(nullptr) : json::value(service.since_ms())},
          {"last_error", text_or_null(service.last_error())},
          {"cpu_percent", std::move(cpu)},
          {"memory_bytes", std::move(memory)},
          {"version", text_or_null(service.version())},
          {"note", text_or_null(service.note())},
          {"parallel", service.parallel()},
          {"models", std::move(models)}};
}

}  // namespace

json::value time_json(WallMs t) {
  return t.ms == 0 ? json::value(nullptr) : json::value(iso_time(t));
}

json::object job_json(const JobFigures& job) {
  const store::JobRow& r = job.row;
  return {{"id", r.id.empty() ? std::to_string(r.job.value) : r.id},
          {"job", r.job.value},
          {"name", r.name},
          {"status", core::name(r.state)},
          {"user", r.user},
          {"engine", r.engine},
          {"priority", r.priority},
          {"total_tasks", r.count},
          {"completed_tasks", r.counts.completed},
          {"failed_tasks", r.counts.failed},
          {"cancelled_tasks", r.counts.cancelled},
          {"running_tasks", job.running},
          {"assigned_tasks", job.assigned},
          {"pending_tasks", job.pending()},
          {"blocked_tasks", job.blocked},
          {"paused_tasks", job.paused},
          {"paused", r.paused},
          {"open", r.open},
          {"created_at", time_json(r.submitted)},
          {"started_at", time_json(r.started)},
          {"completed_at", time_json(r.ended)},
          {"progress", job.progress()}};
}

json::object task_json(const std::string& job_id, const TaskLook& t) {
  return {
      {"id", fmt::format("{}/{}", job_id, t.index)},
      {"job_id", job_id},
      {"index", t.index},
      {"status", t.status},
      {"attempt", t.attempt},
      {"worker_id", text_or_null(t.worker_id)},
      {"second_worker_id", text_or_null(t.second_worker_id)},
      {"failure", name_or_null(t.failure)},
      {"fault", fault_json(t.failure, t.stage)},
      {"stage", name_or_null(t.stage)},
      {"message", text_or_null(said(t.failure, t.message))},
      {"exit_code", t.exit_code ? json::value(*t.exit_code) : json::value(nullptr)},
      {"progress",
       t.progress ? json::value{{"done", t.progress->done}, {"total", t.progress->total}, {"text", t.progress->text}}
                  : json::value(nullptr)},
      {"run_ms", static_cast<double>(t.run_us) / 1000.0},
      {"ended_at", time_json(t.ended_at)},
      {"retry_at", time_json(t.retry_at)}};
}

std::string_view encoding_name(pb::Encoding encoding) {
  switch (encoding) {
    case pb::ENCODING_JSON:
      return "json";
    case pb::ENCODING_PICKLE:
      return "pickle";
    default:
      return "raw";
  }
}

ValueLook look_at_value(pb::Encoding encoding, const core::ResultBody& body, const store::BlobStore& blobs) {
  ValueLook look;
  std::string fetched;
  const std::string* bytes = &body.value;
  if (!body.value_sha256.empty()) {
    const auto size = blobs.size(body.value_sha256);
    auto got = size && *size <= kShownBlob ? blobs.get(body.value_sha256)
                                           : Result<std::string>(Error{ErrorClass::too_large, ""});
    if (!got) {
      look.in_blob = true;
      return look;
    }
    fetched = std::move(*got);
    bytes = &fetched;
  }
  if (encoding == pb::ENCODING_JSON) {
    if (bytes->empty()) return look;
    if (auto value = wire::parse_json(*bytes)) {
      look.value = std::move(*value);
      return look;
    }
  }
  if (encoding != pb::ENCODING_PICKLE && is_utf8(*bytes)) {
    look.value = json::string(*bytes);
  } else if (!bytes->empty()) {
    look.base64 = to_base64(*bytes);
  }
  return look;
}

json::object outcome_json(pb::Encoding encoding, const store::OutcomeRow& row, const std::string& worker_id,
                          const store::BlobStore& blobs) {
  json::object out{{"index", row.task.index()}, {"status", core::name(row.end)}, {"encoding", encoding_name(encoding)}};
  if (row.end == core::TaskEnd::completed) {
    ValueLook look = look_at_value(encoding, row.body, blobs);
    if (!look.base64.empty()) {
      out["value_base64"] = std::move(look.base64);
    } else if (!look.in_blob) {
      out["value"] = std::move(look.value);
    }
  } else if (!row.body.value.empty()) {
    out["value_base64"] = to_base64(row.body.value);  // a pickled exception
  }
  if (!row.body.value_sha256.empty()) out["value_sha256"] = row.body.value_sha256;
  out["exit_code"] = row.body.exit_code;
  out["failure"] = name_or_null(row.failure);
  out["fault"] = fault_json(row.failure, row.body.stage);
  out["stage"] = name_or_null(row.body.stage);
  out["exception"] = text_or_null(row.body.exception);
  out["message"] = text_or_null(said(row.failure, row.body.message));
  out["traceback"] = text_or_null(row.body.traceback);
  out["attempt"] = row.attempt;
  out["worker_id"] = text_or_null(worker_id);
  out["run_ms"] = static_cast<double>(row.run_us) / 1000.0;
  out["files"] = files_json(row.body.files);
  return out;
}

json::object log_json(const std::string& job_id, const store::StoredLog& log) {
  static constexpr std::string_view streams[] = {"stdout", "stderr", "log", "system"};
  json::object out{{"cursor", log.id},
                   {"task", fmt::format("{}/{}", job_id, log.line.task.index())},
                   {"index", log.line.task.index()},
                   {"attempt", log.line.attempt},
                   {"stream", streams[log.line.stream & 3]},
                   {"time", time_json(log.line.at)}};
  if (is_utf8(log.line.data)) {
    out["text"] = log.line.data;
  } else {
    out["text"] = nullptr;
    out["data_base64"] = to_base64(log.line.data);
  }
  return out;
}

json::object load_json(const WorkerLoad& load) {
  const auto shown = [](const auto& value) { return value ? json::value(*value) : json::value(nullptr); };
  json::array gpus;
  for (const GpuLook& gpu : load.gpus) {
    gpus.push_back(json::object{{"percent", shown(gpu.percent)},
                                {"memory_used_bytes", shown(gpu.memory_used)},
                                {"temperature_c", shown(gpu.temperature_c)}});
  }
  return {{"network_in_bytes_per_s", shown(load.network_in)}, {"network_out_bytes_per_s", shown(load.network_out)},
          {"disk_read_bytes_per_s", shown(load.disk_read)},   {"disk_write_bytes_per_s", shown(load.disk_write)},
          {"temperature_c", shown(load.temperature_c)},       {"gpus", std::move(gpus)}};
}

json::object worker_json(const store::WorkerRow& row, const std::optional<core::WorkerView>& live,
                         const std::optional<WorkerFigures>& figures, WallMs) {
  pb::Manifest manifest;
  const bool readable = manifest.ParseFromString(row.manifest);
  const bool connected = figures && figures->connected;
  const std::uint32_t slots = live ? live->capacity.slots : manifest.slots();
  const std::uint32_t running = live ? live->running : 0;
  std::string_view status = "offline";
  const bool quarantined = live && live->quarantined;
  if (connected) {
    status = quarantined                                     ? "quarantined"
             : live && live->paused                          ? "paused"
             : (live && live->draining) || figures->draining ? "draining"
             : running >= slots && running > 0               ? "busy"
                                                             : "online";
  } else if (figures || (live && live->running + live->backlog > 0)) {
    status = "reconnecting";
  }
  json::array gpus, engines, models, notes;
  json::array services;
  json::object labels;
  if (readable) {
    for (const pb::Service& service : manifest.services())
      services.push_back(service_json(service, connected ? &*figures : nullptr));
    for (const pb::Gpu& gpu : manifest.gpus())
      gpus.push_back(json::object{{"name", gpu.name()}, {"memory_bytes", gpu.memory_bytes()}, {"uuid", gpu.uuid()}});
    for (const std::string& engine : manifest.engines()) engines.emplace_back(engine);
    for (const std::string& model : manifest.models()) models.emplace_back(model);
    for (const std::string& note : manifest.notes()) notes.emplace_back(note);
    for (const auto& [key, value] : manifest.labels()) labels[key] = value;
  }
  return {{"id", row.id},
          {"number", row.worker.value},
          {"name", row.name},
          {"status", status},
          {"hostname", manifest.hostname()},
          {"os", manifest.os()},
          {"slots", slots},
          {"cpus", manifest.cpus_milli() / 1000.0},
          {"cpu_model", manifest.cpu_model()},
          {"memory_bytes", manifest.memory_bytes()},
          {"disk_bytes", manifest.disk_bytes()},
          {"gpus", std::move(gpus)},
          {"engines", std::move(engines)},
          {"labels", std::move(labels)},
          {"pool", manifest.pool().empty() ? std::string("standard") : manifest.pool()},
          {"models", std::move(models)},
          {"services", std::move(services)},
          {"quarantined_until", time_json(quarantined ? live->quarantined_until : WallMs{})},
          {"success", live ? json::value(live->success) : json::value(nullptr)},
          {"failed_in_a_row", live ? live->failed_in_a_row : 0},
          {"running", running},
          {"backlog", live ? live->backlog : 0},
          {"window", live ? live->window : 0},
          {"connected", connected},
          {"dialect", figures ? json::value(figures->dialect) : json::value(nullptr)},
          {"first_seen", time_json(row.first_seen)},
          {"last_seen", time_json(figures && figures->seen > row.last_seen ? figures->seen : row.last_seen)},
          {"tasks_completed", row.completed},
          {"tasks_failed", row.failed},
          {"run_ms", static_cast<double>(row.run_us) / 1000.0},
          {"cpu_percent", connected ? json::value(figures->cpu_percent) : json::value(nullptr)},
          {"memory_used_bytes", connected ? json::value(figures->memory_used) : json::value(nullptr)},
          {"load", load_json(connected ? figures->load : WorkerLoad{})},
          {"paused", live ? live->paused : row.paused},
          {"version", manifest.version()},
          {"python_version", text_or_null(manifest.python_version())},
          {"sandbox", manifest.sandbox()},
          {"notes", std::move(notes)}};
}

json::object failure_json(const store::FailureRow& row, const std::string& job_id, const std::string& worker_id) {
  return {{"id", row.id},
          {"worker_id", text_or_null(worker_id)},
          {"job_id", job_id},
          {"task_id", fmt::format("{}/{}", job_id, row.task.index())},
          {"index", row.task.index()},
          {"attempt", row.attempt},
          {"failure", core::name(row.failure)},
          {"fault", fault_json(row.failure, row.stage)},
          {"stage", name_or_null(row.stage)},
          {"message", text_or_null(said(row.failure, row.message))},
          {"failed_at", time_json(row.at)}};
}

std::string_view shown_user(std::string_view user) {
  return user.empty() ? "anonymous" : user;
}

std::string name_workers(const std::string& text, const std::function<std::string(WorkerNo)>& name) {
  constexpr std::string_view word = "orker";
  std::string out;
  std::size_t from = 0;
  for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
    // A user or a label may be called so, too: these stand in quotes or behind other letters.
    const bool begins = at > 0 && (text[at - 1] == 'w' || text[at - 1] == 'W') && (at == 1 || text[at - 2] == ' ');
    std::size_t digits = at + word.size();
    if (!begins || digits >= text.size()) continue;
    if (text[digits] == ',') ++digits;
    if (digits >= text.size() || text[digits] != ' ') continue;
    ++digits;
    std::size_t end = digits;
    while (end < text.size() && text[end] >= '0' && text[end] <= '9') ++end;
    const auto number = to_number(std::string_view(text).substr(digits, end - digits));
    if (!number || *number > UINT32_MAX) continue;
    const std::string known = name({static_cast<std::uint32_t>(*number)});
    if (known.empty()) continue;
    out += text.substr(from, digits - from) + known;
    from = end;
  }
  return out + text.substr(from);
}

namespace {

// A model whose service is down is not brought there by getting it once more.
std::string without_advice(const std::string& text) {
  return text.substr(0, text.find(" Get it with: "));
}

}  // namespace

WorkerWordsMap words_of(const std::vector<store::WorkerRow>& rows) {
  WorkerWordsMap out;
  for (const store::WorkerRow& row : rows) {
    WorkerWords words{.name = row.name, .down = {}};
    pb::Manifest manifest;
    if (row.connected && manifest.ParseFromString(row.manifest)) {
      for (const pb::Service& service : manifest.services()) {
        if (service.state() != "down" || service.kind() == "files" || service.kind() == "replicate" ||
            service.kind() == "runpod" || service.kind().starts_with("remote-"))
          continue;
        words.down.push_back(service.name() + " is down" + (service.note().empty() ? "." : ": " + service.note()));
      }
    }
    out.emplace(row.worker, std::move(words));
  }
  return out;
}

json::object explanation_json(const core::Explanation& e, const std::string& job_id, const WorkerHub& workers,
                              const WorkerWordsMap& words) {
  const auto shown = [&](WorkerNo worker) {
    const auto it = words.find(worker);
    return it == words.end() || it->second.name.empty() ? workers.name_of(worker) : it->second.name;
  };
  const auto named = [&](const std::string& text) { return name_workers(text, shown); };
  const auto reasons = [&](const std::vector<core::Reason>& list) {
    json::array out;
    for (const core::Reason& one : list) {
      out.push_back(json::object{{"code", one.code},
                                 {"text", named(one.text)},
                                 {"have", one.have},
                                 {"need", one.need},
                                 {"until", time_json(one.until)}});
    }
    return out;
  };
  json::array fits;
  std::string services;
  for (const core::WorkerFit& fit : e.workers) {
    json::array why = reasons(fit.why);
    // The core sees models that are gone, not the service that took them along.
    const auto known = words.find(fit.worker);
    const bool lacks = std::any_of(fit.why.begin(), fit.why.end(),
                                   [](const core::Reason& one) { return one.code == "model" || one.code == "engine"; });
    for (std::size_t i = 0; lacks && known != words.end() && i < known->second.down.size(); ++i) {
      const std::string text = "Its " + known->second.down[i];
      why.push_back(json::object{{"code", "service"}, {"text", text}, {"have", 0}, {"need", 0}, {"until", nullptr}});
      const bool first = fits.empty() && i == 0 && !e.waits.empty() &&
                         (e.waits.front().code == "model" || e.waits.front().code == "engine");
      if (first) services = " There " + known->second.down[i];
    }
    fits.push_back(json::object{{"worker", workers.name_of(fit.worker)},
                                {"name", shown(fit.worker)},
                                {"could", fit.could},
                                {"now", fit.now},
                                {"alternative", fit.alternative},
                                {"why", std::move(why)}});
  }
  json::array waits = reasons(e.waits);
  if (!services.empty()) {  // of the first, which is what it waits for
    json::value& text = waits.front().at("text");
    text = without_advice(std::string(text.get_string())) + services;
  }
  const bool whole = e.index == core::Dependency::kAll;
  return {{"job", text_or_null(job_id)},
          {"task", whole || job_id.empty() ? json::value(nullptr) : json::value(fmt::format("{}/{}", job_id, e.index))},
          {"state", e.state},
          {"summary", services.empty() ? named(e.summary) : without_advice(named(e.summary)) + services},
          {"waits", std::move(waits)},
          {"workers", std::move(fits)},
          {"workers_in_all", e.workers_in_all},
          {"workers_could", e.workers_could},
          {"workers_now", e.workers_now},
          {"tasks_before", e.tasks_before},
          {"next_change", time_json(e.next_change)}};
}

json::object user_json(const core::UserView& user) {
  const core::UserLimits& l = user.limits;
  return {{"name", shown_user(user.user)},
          {"weight", l.weight_milli / 1000.0},
          {"max_running", l.max_running},
          {"max_cpus", l.max_cpus_milli / 1000.0},
          {"max_gpus", l.max_gpus_milli / 1000.0},
          {"max_queued", l.max_queued},
          {"starts_per_minute", l.starts_per_minute},
          {"submits_per_minute", l.submits_per_minute},
          {"jobs", user.jobs},
          {"queued_tasks", user.queued},
          {"running_tasks", user.running},
          {"cpus", user.cpus_milli / 1000.0},
          {"gpus", user.gpus_milli / 1000.0},
          {"usage", user.usage},
          {"share", user.share}};
}

json::object policy_json(const core::PolicyView& policy) {
  return {{"name", policy.name},         {"active", policy.active},
          {"assigned", policy.assigned}, {"completed", policy.completed},
          {"failed", policy.failed},     {"active_seconds", static_cast<double>(policy.active_for.count()) / 1e6}};
}

json::object dead_json(const DeadLook& dead) {
  const store::OutcomeRow& row = dead.row;
  return {{"id", fmt::format("{}/{}", dead.job_id, row.task.index())},
          {"job_id", dead.job_id},
          {"index", row.task.index()},
          {"failure", name_or_null(row.failure)},
          {"fault", fault_json(row.failure, row.body.stage)},
          {"stage", name_or_null(row.body.stage)},
          {"message", text_or_null(said(row.failure, row.body.message))},
          {"attempts", row.attempt},
          {"ended_at", time_json(row.at)},
          {"user", shown_user(dead.user)}};
}

json::object schedule_json(const store::ScheduleRow& row) {
  auto file = wire::parse_json(row.file);
  return {{"name", row.name},
          {"cron", row.cron},
          {"user", shown_user(row.user)},
          {"paused", row.paused},
          {"overlap", row.overlap},
          {"catch_up", row.catch_up},
          {"next", row.paused ? json::value(nullptr) : time_json(row.next)},
          {"last", time_json(row.last)},
          {"last_job", text_or_null(row.last_job)},
          {"runs", row.runs},
          {"left_out", row.left_out},
          {"last_error", text_or_null(row.last_error)},
          {"job", file ? std::move(*file) : json::value(nullptr)}};
}

std::string error_body(const Error& error) {
  return fmt::format(R"({{"error":{{"code":"{}","message":{},"details":{}}}}})", code(error.cls),
                     wire::quoted(error.message), error.details.empty() ? "{}" : error.details);
}

}  // namespace grange::server
