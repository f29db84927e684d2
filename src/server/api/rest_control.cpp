// Pausing, adding, trying again; the queue and its users.
#include <fmt/format.h>

#include <boost/json/serialize.hpp>

#include "core/farm.hpp"
#include "server/api/job_keys.hpp"
#include "server/api/rest.hpp"
#include "server/text.hpp"

namespace grange::server {
namespace {

// {"classes": ["worker_lost"], "indices": [3, 4]}; both may be left out.
void read_filter(Keys& keys, queue::RetryFilter& out) {
  if (const json::array* classes = keys.list("classes"); classes != nullptr) {
    for (const json::value& one : *classes) {
      const auto failure = one.is_string() ? read_failure_class(std::string_view(one.get_string()))
                                           : std::optional<core::FailureClass>();
      if (!failure) {
        keys.wrong("classes", "must hold classes of failure, such as \"worker_lost\" or \"exception\"");
        return;
      }
      out.classes.push_back(*failure);
    }
  }
  if (const json::array* indices = keys.list("indices"); indices != nullptr) {
    for (const json::value& one : *indices) {
      if (!one.is_int64() || one.get_int64() < 0 || one.get_int64() >= limits::kTasksPerJob) {
        keys.wrong("indices", "must hold indices of tasks");
        return;
      }
      out.indices.push_back(static_cast<std::uint32_t>(one.get_int64()));
    }
    std::sort(out.indices.begin(), out.indices.end());
    out.indices.erase(std::unique(out.indices.begin(), out.indices.end()), out.indices.end());
  }
}

std::string user_of(const RestCallPtr& call) {
  const std::string& name = call->path["name"];
  return name == shown_user("") ? "" : name;
}

// Whole thousandths, as cpus, gpus and weights are kept.
bool milli(Keys& keys, std::string_view key, double most, std::uint32_t& out) {
  std::uint64_t number = 0;
  if (!keys.number(key, 1000, most, number)) return false;
  out = static_cast<std::uint32_t>(number);
  return true;
}

}  // namespace

void Rest::retry_job(RestCallPtr call) {
  auto body = call->body();
  if (!body) return call->fail(body.error());
  Keys keys(*body, "");
  queue::RetryFilter filter;
  read_filter(keys, filter);
  if (auto fine = keys.finish("a retry"); !fine) return call->fail(fine.error());
  operations_.retry(call->who, call->path["id"], std::move(filter), call->count_as("retried"));
}

void Rest::pause_job(RestCallPtr call) {
  auto body = call->body();
  if (!body) return call->fail(body.error());
  Keys keys(*body, "");
  bool freeze = false;
  keys.flag("freeze", freeze);
  if (auto fine = keys.finish("a pause of a job"); !fine) return call->fail(fine.error());
  operations_.pause(call->who, call->path["id"], {.index = std::nullopt, .pause = true, .freeze = freeze},
                    call->count_as("told"));
}

void Rest::resume_job(RestCallPtr call) {
  if (!call->no_keys("a resume")) return;
  operations_.pause(call->who, call->path["id"], {.index = std::nullopt, .pause = false}, call->count_as("told"));
}

void Rest::pause_task(RestCallPtr call) {
  std::uint32_t index = 0;
  if (!call->index(index)) return;
  auto body = call->body();
  if (!body) return call->fail(body.error());
  Keys keys(*body, "");
  std::string how = "freeze";
  if (keys.text("how", how) && how != "freeze" && how != "requeue")
    keys.wrong("how", "must be freeze (it stays where it is) or requeue (it is stopped and given back)");
  if (auto fine = keys.finish("a pause of a task"); !fine) return call->fail(fine.error());
  operations_.pause(call->who, call->path["id"],
                    {.index = index, .pause = true, .freeze = how == "freeze", .requeue = how == "requeue"},
                    call->count_as("told"));
}

void Rest::resume_task(RestCallPtr call) {
  if (!call->no_keys("a resume")) return;
  std::uint32_t index = 0;
  if (!call->index(index)) return;
  operations_.pause(call->who, call->path["id"], {.index = index, .pause = false}, call->count_as("told"));
}

void Rest::extend_job(RestCallPtr call) {
  s_.jobs->resolve(call->path["id"], [this, call](Result<JobMetaPtr> meta) {
    if (!meta) return call->fail(meta.error());
    auto body = call->body();
    if (!body) return call->fail(body.error());
    Keys keys(*body, "");
    ExtendInput input;
    keys.flag("close", input.close);
    keys.text("key", input.key);
    std::int64_t count = 0;
    const bool counted = keys.integer("count", 1, limits::kTasksPerJob, count);
    if (const json::array* args = keys.list("args"); args != nullptr) {
      if (counted && static_cast<std::size_t>(count) != args->size())
        keys.wrong("count", "is not the number of \"args\"; leave it out");
      auto pages = read_args(*args, (*meta)->spec->encoding() == pb::ENCODING_JSON);
      if (!pages) return call->fail(pages.error());
      input.pages = std::move(*pages);
    }
    input.count = static_cast<std::uint32_t>(count);
    if (auto fine = keys.finish("what is added to a job"); !fine) return call->fail(fine.error());
    operations_.extend(call->who, (*meta)->id, std::move(input), call->count_as("total_tasks"));
  });
}

void Rest::close_job(RestCallPtr call) {
  if (!call->no_keys("a close")) return;
  ExtendInput input;
  input.close = true;
  operations_.extend(call->who, call->path["id"], std::move(input), call->count_as("total_tasks"));
}

void Rest::get_dead(RestCallPtr call) {
  std::uint64_t limit = 0;
  if (!call->number("limit", 1, limits::kPage, limits::kPageDefault, limit)) return;
  store::DeadFilter filter;
  filter.limit = static_cast<std::uint32_t>(limit);
  if (const std::string user = call->query("user"); !user.empty()) filter.user = user;
  if (const std::string failure = call->query("class"); !failure.empty()) {
    filter.failure = read_failure_class(failure);
    if (!filter.failure)
      return call->fail(
          {ErrorClass::invalid_argument, "\"class\" must be a class of failure, such as worker_lost or exception."});
  }
  operations_.dead_letters(call->who, call->query("job"), call->query("before"), std::move(filter),
                           [call, limit](Result<std::vector<DeadLook>> found) {
                             if (!found) return call->fail(found.error());
                             json::array out;
                             for (const DeadLook& one : *found) out.push_back(dead_json(one));
                             std::map<std::string, std::string> headers;
                             if (found->size() == limit) {
                               headers["X-Next-Before"] =
                                   fmt::format("{}/{}", found->back().job_id, found->back().row.task.index());
                             }
                             call->answer(200, out, std::move(headers));
                           });
}

void Rest::redrive(RestCallPtr call) {
  auto body = call->body();
  if (!body) return call->fail(body.error());
  Keys keys(*body, "");
  std::string job;
  if (const json::value* number = keys.find("job"); number != nullptr && number->is_int64()) {
    job = json::serialize(*number);
  } else {
    keys.text("job", job);
  }
  if (job.empty()) keys.wrong("job", "is missing: the id of the job whose dead letters run again");
  queue::RetryFilter filter;
  read_filter(keys, filter);
  if (auto fine = keys.finish("a redrive"); !fine) return call->fail(fine.error());
  operations_.retry(call->who, job, std::move(filter), call->count_as("retried"));
}

void Rest::get_queue(RestCallPtr call) {
  s_.queue->inspect([call, post = s_.post](const core::Farm& farm, Now) {
    post([call, view = farm.view(), policy = std::string(farm.policy())] {
      call->answer(200, json::object{{"paused", view.paused},
                                     {"policy", policy},
                                     {"live_jobs", view.live_jobs},
                                     {"queued_tasks", view.queued_tasks},
                                     {"active_tasks", view.active_tasks},
                                     {"running_tasks", view.running_tasks},
                                     {"blocked_tasks", view.blocked_tasks},
                                     {"connected_workers", view.connected_workers},
                                     {"slots", view.slots}});
    });
  });
}

void Rest::pause_queue(RestCallPtr call) {
  if (!call->no_keys("a pause of the queue")) return;
  operations_.pause_queue(call->who, true, call->just_ok());
}
void Rest::resume_queue(RestCallPtr call) {
  if (!call->no_keys("a resume of the queue")) return;
  operations_.pause_queue(call->who, false, call->just_ok());
}

void Rest::get_users(RestCallPtr call) {
  s_.queue->inspect([call, post = s_.post](const core::Farm& farm, Now) {
    post([call, users = farm.users()] {
      json::array out;
      for (const core::UserView& user : users) out.push_back(user_json(user));
      call->answer(200, out);
    });
  });
}

void Rest::get_user(RestCallPtr call) {
  s_.queue->inspect([call, name = user_of(call), post = s_.post](const core::Farm& farm, Now) {
    auto users = farm.users();
    const auto it = std::find_if(users.begin(), users.end(), [&](const auto& user) { return user.user == name; });
    auto found = it == users.end() ? std::optional<core::UserView>() : std::optional(*it);
    post([call, found] {
      if (found) return call->answer(200, user_json(*found));
      call->fail({ErrorClass::not_found, "The user \"" + cut_utf8(call->path["name"], limits::kNameBytes) +
                                             "\" has no limits of its own and no jobs now."});
    });
  });
}

void Rest::put_user(RestCallPtr call) {
  const std::string user = user_of(call);
  if (!user.empty() && !valid_user(user)) return call->fail({ErrorClass::invalid_argument, user_rule()});
  auto body = call->body();
  if (!body) return call->fail(body.error());
  Keys keys(*body, "");
  core::UserLimits limits;
  std::int64_t number = 0;
  if (milli(keys, "weight", 1000, limits.weight_milli) && limits.weight_milli == 0)
    keys.wrong("weight", "must be from 0.001 to 1000");
  milli(keys, "max_cpus", 1'000'000, limits.max_cpus_milli);
  milli(keys, "max_gpus", 1'000'000, limits.max_gpus_milli);
  if (keys.integer("max_running", 0, UINT32_MAX, number)) limits.max_running = static_cast<std::uint32_t>(number);
  if (keys.integer("max_queued", 0, INT64_MAX, number)) limits.max_queued = static_cast<std::uint64_t>(number);
  if (keys.integer("starts_per_minute", 0, UINT32_MAX, number))
    limits.starts_per_minute = static_cast<std::uint32_t>(number);
  if (keys.integer("submits_per_minute", 0, UINT32_MAX, number))
    limits.submits_per_minute = static_cast<std::uint32_t>(number);
  if (auto fine = keys.finish("a user"); !fine) return call->fail(fine.error());
  operations_.set_user(call->who, user, limits, [call, user, limits](Result<> done) {
    if (!done) return call->fail(done.error());
    core::UserView view;
    view.user = user;
    view.limits = limits;
    json::object out = user_json(view);
    for (const std::string_view live : {"jobs", "queued_tasks", "running_tasks", "cpus", "gpus", "usage", "share"})
      out.erase(live);
    call->answer(200, out);
  });
}

void Rest::delete_user(RestCallPtr call) {
  operations_.set_user(call->who, user_of(call), {}, call->just_ok());
}

}  // namespace grange::server
