#include "server/events.hpp"

#include <fmt/format.h>

#include <algorithm>

#include <boost/json/serialize.hpp>
#include <boost/json/string.hpp>

#include "server/text.hpp"

namespace grange::server {

std::string_view name(Topic topic) {
  switch (topic) {
    case Topic::jobs:
      return "jobs";
    case Topic::tasks:
      return "tasks";
    case Topic::workers:
      return "workers";
    case Topic::system:
      return "system";
    case Topic::runs:
      return "runs";
    case Topic::alerts:
      return "alerts";
  }
  return "system";
}

bool Topics::wants(const Fact& fact) const {
  switch (fact.topic) {
    case Topic::jobs:
      if (jobs) return true;
      break;
    case Topic::tasks:
      if (tasks) return true;
      break;
    case Topic::workers:
      return workers;
    case Topic::system:
      return system;
    case Topic::runs:
      if (runs) return true;
      break;
    case Topic::alerts:
      return alerts;
  }
  if (!fact.run.empty() && std::find(run_refs.begin(), run_refs.end(), fact.run) != run_refs.end()) return true;
  if (job_refs.empty() || fact.job.value == 0) return false;
  const std::string number = std::to_string(fact.job.value);
  for (const std::string& ref : job_refs) {
    if (ref == fact.job_id || ref == number) return true;
  }
  return false;
}

std::optional<Topics> Topics::parse(const std::vector<std::string>& names, std::string& bad) {
  Topics out;
  for (const std::string& one : names) {
    if (one.empty()) continue;
    if (one == "jobs") {
      out.jobs = true;
    } else if (one == "tasks") {
      out.tasks = true;
    } else if (one == "workers") {
      out.workers = true;
    } else if (one == "system") {
      out.system = true;
    } else if (one == "runs") {
      out.runs = true;
    } else if (one == "alerts") {
      out.alerts = true;
    } else if (one.starts_with("run:") && one.size() > 4 && one.size() <= 4 + limits::kNameBytes &&
               out.run_refs.size() < 1000) {
      out.run_refs.push_back(one.substr(4));
    } else if (one.starts_with("job:") && one.size() > 4 && one.size() <= 4 + limits::kNameBytes &&
               out.job_refs.size() < 1000) {
      out.job_refs.push_back(one.substr(4));
    } else {
      bad = one;
      return std::nullopt;
    }
  }
  if (!out.jobs && !out.tasks && !out.workers && !out.system && !out.runs && !out.alerts && out.job_refs.empty() &&
      out.run_refs.empty()) {
    out.jobs = out.workers = out.system = out.runs = out.alerts = true;
  }
  return out;
}

void Events::publish(Topic topic, JobNo job, const std::string& job_id, std::string_view type,
                     std::string_view data_json, WallMs at, const std::string& run) {
  Fact fact{.number = next_++,
            .topic = topic,
            .job = job,
            .job_id = job_id,
            .run = run,
            .type = std::string(type),
            .json = {}};
  std::string of_job;
  if (!run.empty()) of_job = fmt::format(R"("run_id":{},)", boost::json::serialize(boost::json::string(run)));
  if (job.value != 0) of_job += fmt::format(R"("job_id":{},)", boost::json::serialize(boost::json::string(job_id)));
  fact.json =
      fmt::format(R"({{"event":{},"topic":"{}","type":"{}",{}"time":"{}","data":{}}})", fact.number, name(topic), type,
                  of_job, iso_time(at), data_json.empty() ? std::string_view("{}") : data_json);
  ring_.push_back(std::make_shared<const Fact>(std::move(fact)));
  if (ring_.size() > kept_) ring_.pop_front();
  std::vector<Follower> awake;
  for (const auto& [id, state] : followers_) {
    if (!state.held && !state.busy) awake.push_back(id);
  }
  for (const Follower id : awake) catch_up(id);
}

std::optional<Events::Follower> Events::follow(Topics topics, std::optional<std::uint64_t> from, Sink sink) {
  if (followers_.size() >= limits::kFollowers) return std::nullopt;
  const Follower id = ++last_follower_;
  if (of_tasks(topics)) ++task_followers_;
  followers_.emplace(id, State{.topics = std::move(topics),
                               .sink = std::make_shared<const Sink>(std::move(sink)),
                               .cursor = from.value_or(next_)});
  catch_up(id);
  return id;
}

void Events::unfollow(Follower follower) {
  const auto it = followers_.find(follower);
  if (it == followers_.end()) return;
  if (of_tasks(it->second.topics)) --task_followers_;
  followers_.erase(it);
}

bool Events::tasks_followed(JobNo job, const std::string& job_id) const {
  if (task_followers_ == 0) return false;
  const Fact fact{.topic = Topic::tasks, .job = job, .job_id = job_id};
  return std::any_of(followers_.begin(), followers_.end(),
                     [&](const auto& one) { return of_tasks(one.second.topics) && one.second.topics.wants(fact); });
}

void Events::writable(Follower follower) {
  const auto it = followers_.find(follower);
  if (it == followers_.end()) return;
  it->second.held = false;
  if (!it->second.busy) catch_up(follower);
}

void Events::catch_up(Follower id) {
  for (;;) {
    const auto it = followers_.find(id);
    if (it == followers_.end()) return;
    State& state = it->second;
    if (state.held || state.cursor == next_) return;
    const std::uint64_t first = next_ - ring_.size();
    bool more = true;
    state.busy = true;
    if (state.cursor < first || state.cursor > next_) {
      state.cursor = next_;
      const auto sink = state.sink;
      more = sink->gap(next_);
    } else {
      // Held here: the sink may publish, which moves the ring.
      const std::shared_ptr<const Fact> fact = ring_[static_cast<std::size_t>(state.cursor - first)];
      ++state.cursor;
      if (state.topics.wants(*fact)) {
        const auto sink = state.sink;
        more = sink->keep ? sink->keep(fact) : sink->fact(*fact);
      }
    }
    const auto after = followers_.find(id);
    if (after == followers_.end()) return;
    after->second.busy = false;
    if (!more) after->second.held = true;
  }
}

}  // namespace grange::server
