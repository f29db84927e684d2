// Jobs that are submitted again and again.
#include <fmt/format.h>

#include <algorithm>
#include <boost/json/serialize.hpp>

#include "server/api/job_keys.hpp"
#include "server/api/rest.hpp"
#include "server/text.hpp"

namespace grange::server {
namespace {

constexpr std::size_t kFileBytes = 1 * MiB;
constexpr std::size_t kScheduleNameBytes = 128;  // its runs' idempotency keys begin with it

bool valid_schedule_name(std::string_view name) {
  return name.size() <= kScheduleNameBytes && !name.empty() && name != "." && name != ".." &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-' ||
                  c == '.';
         });
}

// Is it one's own to change, or not there at all? False: answered with an error.
bool may_change(const RestCallPtr& call, const Schedules& schedules, bool makes_it_run = false) {
  const std::string& name = call->path["name"];
  const auto row = schedules.find(name);
  if (!row) return true;
  auto may = authorize(call->who, Action::set_schedules, {"schedule", name, row->user});
  if (may && makes_it_run) {
    if (const auto file = read_job_file(row->file); file && file->spec.has_models())
      may = authorize(call->who, Action::change_machines, {"machine"});
  }
  if (!may) call->fail(may.error());
  return may.ok();
}

Done<store::ScheduleRow> shown(const RestCallPtr& call) {
  return [call](Result<store::ScheduleRow> row) {
    if (!row) return call->fail(row.error());
    call->answer(200, schedule_json(*row));
  };
}

}  // namespace

void Rest::get_schedules(RestCallPtr call) {
  json::array out;
  for (const store::ScheduleRow& row : schedules_.list()) out.push_back(schedule_json(row));
  call->answer(200, out);
}

void Rest::get_schedule(RestCallPtr call) {
  shown(call)(schedules_.find(call->path["name"]));
}

void Rest::put_schedule(RestCallPtr call) {
  store::ScheduleRow row;
  row.name = call->path["name"];
  if (!valid_schedule_name(row.name)) {
    return call->fail(
        {ErrorClass::invalid_argument,
         fmt::format("A schedule's name has 1 to {} letters, digits, and any of _ - and .", kScheduleNameBytes)});
  }
  if (call->request().body.size() > kFileBytes)
    return call->fail({ErrorClass::too_large, "A schedule's job file may have 1 MiB; put large arguments into blobs."});
  auto body = call->body();
  if (!body) return call->fail(body.error());
  Keys keys(*body, "");
  if (!keys.text("cron", row.cron)) keys.wrong("cron", "is missing, such as \"0 4 * * *\" (UTC)");
  keys.flag("overlap", row.overlap);
  keys.flag("catch_up", row.catch_up);
  keys.flag("paused", row.paused);
  const json::object* job = keys.object("job");
  if (job == nullptr) {
    keys.wrong("job", "is missing: the job file to submit");
  } else if (job->contains("id") || job->contains("key")) {
    keys.wrong("job", "may have no \"id\" and no \"key\": each run is a job of its own");
  }
  if (auto fine = keys.finish("a schedule"); !fine) return call->fail(fine.error());
  auto file = read_job_file(*job);
  if (!file) return call->fail(file.error());
  row.file = json::serialize(*job);
  row.user = file->spec.user().empty() ? call->who.name : file->spec.user();
  if (!may_change(call, schedules_)) return;
  // What could never be submitted is no schedule.
  operations_.plan(call->who, to_input(std::move(*file)), [this, call, row](Result<core::Explanation> plan) {
    if (!plan) return call->fail(plan.error());
    if (!may_change(call, schedules_)) return;  // another may have made it meanwhile
    schedules_.put(row, shown(call));
  });
}

void Rest::delete_schedule(RestCallPtr call) {
  if (!may_change(call, schedules_)) return;
  schedules_.drop(call->path["name"], call->just_ok());
}

void Rest::set_schedule_paused(const RestCallPtr& call, bool paused) {
  if (!call->no_keys(paused ? "a pause" : "a resume") || !may_change(call, schedules_, !paused)) return;
  schedules_.set_paused(call->path["name"], paused, shown(call));
}
void Rest::pause_schedule(RestCallPtr call) {
  set_schedule_paused(call, true);
}
void Rest::resume_schedule(RestCallPtr call) {
  set_schedule_paused(call, false);
}

void Rest::run_schedule(RestCallPtr call) {
  if (!call->no_keys("a run of a schedule") || !may_change(call, schedules_, true)) return;
  schedules_.run(call->path["name"], [call](Result<SchedulePorts::Submitted> run) {
    if (!run) return call->fail(run.error());
    call->answer(201, json::object{{"job_id", run->job_id}}, {{"Location", "/api/jobs/" + run->job_id}});
  });
}

}  // namespace grange::server
