// The engine of services that are reached with a key: OpenAI, Replicate, RunPod.
#include <algorithm>
#include <boost/json/serialize.hpp>
#include <cctype>
#include <cstdlib>
#include <map>

#include <fmt/format.h>

#include "ai/json.hpp"
#include "ai/workflow.hpp"
#include "net/url.hpp"
#include "worker/engines/argument.hpp"
#include "worker/engines/held_tasks.hpp"
#include "worker/engines/remote_open.hpp"
#include "worker/engines/remote_run.hpp"

namespace grange::worker {

namespace {

namespace json = boost::json;

constexpr Bytes kFile = 256 * MiB;
const std::vector<std::string_view> kRemoteKinds{"remote-openai", "replicate", "runpod"};

struct RemoteTask {
  Run run;
  std::unique_ptr<InputFetch> input;
  ServiceInfo service;
  std::shared_ptr<RemoteRun> remote;
  std::uint64_t number = 0;  // of the run
  bool stopped = false;
  Instant began{};
  RemoteEnd end;
  std::size_t stored = 0;
  std::unique_ptr<net::HttpClient::Call> call;
  Blobs::WaitPtr put;
  pb::TaskResult result;
  json::array files;
};
using RemoteTaskPtr = std::shared_ptr<RemoteTask>;

std::string setting(const char* prefix, const std::string& name) {
  std::string variable = prefix;
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    variable += std::isalnum(byte) != 0 ? static_cast<char>(std::toupper(byte)) : '_';
  }
  const char* value = std::getenv(variable.c_str());
  return value != nullptr ? value : "";
}

class RemoteEngine final : public Engine {
 public:
  RemoteEngine(const EngineContext& context, const RemoteTimes& times)
      : context_(context),
        times_(times),
        spending_(file_beside(context.folder, "remote-spending")),
        open_(file_beside(context.folder, "remote-open"), context.loop, context.http, context.services, context.clock,
              times.look),
        tasks_(context) {}

  void run(Run run) override {
    const auto task = std::make_shared<RemoteTask>();
    task->run = std::move(run);
    tasks_.start(task, [this](const RemoteTaskPtr& t, Result<TaskInput> input) { begin(t, std::move(input)); });
  }

  void stop(TaskId id, Attempt attempt, StopHow how) override {
    const RemoteTaskPtr task = tasks_.find(id, attempt);
    if (!task) return;
    task->stopped = true;
    if (const auto remote = task->remote) {
      if (how == StopHow::hard) stopping_[task->number] = remote;  // it goes on without the task
      remote->stop();
      if (how == StopHow::soft) return;
    }
    tasks_.end(task, failure(pb::FAILURE_CANCELLED, "Stopped."));
  }

  void freeze(TaskId id, Attempt attempt, bool on) override {
    const RemoteTaskPtr task = tasks_.find(id, attempt);
    if (task && task->remote) task->remote->pause(on);
  }
  void resume_output() override {}
  void watch() override {}

 private:
  const pb::RemoteSpec& spec(const RemoteTask& task) const { return task.run.job->spec.remote(); }
  std::int64_t wall() const { return context_.clock.now().wall.ms; }
  void event(const RemoteTask& task, std::string type, const json::object& data) {
    tasks_.event(task, std::move(type), without_key(json::serialize(data), task.service.key));
  }

  // What is asked for: the argument, or the spec's input with the argument in its places.
  Result<json::value> input_of(const RemoteTask& task, const TaskInput& given) const {
    auto argument = argument_of(given);
    if (!argument) return argument.error();
    if (spec(task).input_json().empty()) {
      if (argument->is_null())
        return Error{ErrorClass::invalid_argument, "A remote task needs an input, in the job or as its argument."};
      return std::move(*argument);
    }
    auto input = ai::parse_json(spec(task).input_json());
    if (!input) return Error{ErrorClass::invalid_argument, "The input of the job is not JSON."};
    if (argument->is_object() && input->is_object()) {  // its members stand in for those of the job
      for (const auto& [key, value] : argument->get_object()) input->get_object()[key] = value;
    } else if (!argument->is_null()) {
      ai::fill(*input, argument->is_string() ? std::string(argument->get_string()) : json::serialize(*argument));
    }
    return std::move(*input);
  }

  std::optional<ServiceInfo> find(const std::string& wanted) const {
    if (wanted.empty()) return std::nullopt;  // whose money it is has to be said
    const std::string kind = wanted == "openai" ? "remote-openai" : wanted;
    if (std::find(kRemoteKinds.begin(), kRemoteKinds.end(), kind) != kRemoteKinds.end()) {
      if (auto found = context_.services.find({kind}, "", "")) return found;
    }
    return context_.services.find(kRemoteKinds, wanted, "");
  }

  void begin(const RemoteTaskPtr& task, Result<TaskInput> given) {
    if (!given) return tasks_.end(task, failure(pb::FAILURE_ENGINE, given.error().message));
    auto input = input_of(*task, *given);
    if (!input) return tasks_.end(task, failure(pb::FAILURE_REFUSED, input.error().message, true));
    tasks_.stage(*task, pb::STAGE_STARTUP);
    auto service = find(spec(*task).service());
    if (!service)
      return fail(task, {"unreachable", "This worker holds no key for the service \"" + spec(*task).service() +
                                            "\". Put it into its environment: OPENAI_API_KEY, REPLICATE_API_TOKEN or "
                                            "RUNPOD_API_KEY."});
    task->service = std::move(*service);
    if (auto safe = safe_for_keys(task->service.url); !safe) return fail(task, {"auth", safe.error().message, true});
    if (auto within = in_budget(task->service); !within) return fail(task, {"busy", within.error().message});
    RemoteRun::Setup setup{context_.loop,
                           context_.http,
                           context_.clock,
                           task->service.shown.name(),
                           task->service.url,
                           task->service.key,
                           spec(*task).op(),
                           spec(*task).target(),
                           std::move(*input),
                           spec(*task).stream(),
                           times_};
    RemoteRun::Heard heard;
    heard.event = tasks_.while_held(task, [this](const RemoteTaskPtr& t, const std::string& type,
                                                 const json::object& data) { event(*t, type, data); });
    heard.progress =
        tasks_.while_held(task, [this](const RemoteTaskPtr& t, double done, double total, const std::string& text) {
          tasks_.progress(*t, done, total, text);
        });
    const auto cancelled_by = std::make_shared<std::string>();  // a path of the service
    const std::string name = task->service.shown.name(), url = task->service.url;
    heard.opened = [this, cancelled_by, name, url](const std::string& path) {
      *cancelled_by = path;
      open_.add(name, url, path);
    };
    auto then = tasks_.while_held(task, [this](const RemoteTaskPtr& t, RemoteEnd over) { ended(t, std::move(over)); });
    heard.ended = [this, then, cancelled_by, name, url, number = task->number = ++runs_](RemoteEnd over) mutable {
      if (!cancelled_by->empty()) {
        if (over.left_open) {
          open_.leave(name, url, *cancelled_by);
        } else {
          open_.remove(name, url, *cancelled_by);
        }
      }
      stopping_.erase(number);
      then(std::move(over));
    };
    const std::string& kind = task->service.shown.kind();
    task->remote = kind == "replicate" ? make_replicate_run(std::move(setup), std::move(heard))
                   : kind == "runpod"  ? make_runpod_run(std::move(setup), std::move(heard))
                                       : make_openai_run(std::move(setup), std::move(heard));
    task->began = context_.clock.now().mono;
    tasks_.stage(*task, pb::STAGE_EXECUTE);
    const auto remote = task->remote;
    remote->start();
  }

  Result<> in_budget(const ServiceInfo& service) const {
    const std::string text = setting("GRANGE_BUDGET_", service.shown.name());
    if (text.empty()) return {};
    char* after = nullptr;
    const double budget = std::strtod(text.c_str(), &after);
    if (*after != '\0' || !(budget >= 0))
      return Error{ErrorClass::invalid_argument, "The budget of \"" + service.shown.name() + "\" is not a number."};
    const double spent = spending_.today(service.key, wall());
    if (spent < budget) return {};
    return Error{ErrorClass::rate_limited,
                 fmt::format("The budget of \"{}\" is spent: {:.4g} of {:.4g} today. It begins anew at midnight UTC.",
                             service.shown.name(), spent, budget)};
  }

  void ended(const RemoteTaskPtr& task, RemoteEnd over) {
    task->remote.reset();
    if (task->stopped)
      return tasks_.end(
          task, failure(pb::FAILURE_CANCELLED, over.left_open
                                                   ? "Stopped; the service has not heard of it yet, and is told again."
                                                   : "Stopped; it was cancelled at the service."));
    if (over.failure) return fail(task, *over.failure);
    task->end = std::move(over);
    record_cost(*task);
    store(task);
  }

  void record_cost(RemoteTask& task) {
    RemoteEnd& over = task.end;
    json::object& value = over.value;
    value["wall_seconds"] = static_cast<double>((context_.clock.now().mono - task.began).count()) / 1e6;
    std::optional<double> cost = over.cost;
    value["cost_by"] = cost ? json::value("service") : json::value();
    if (const auto prices = read_prices(setting("GRANGE_PRICE_", task.service.shown.name()));
        !cost && prices && prices->any()) {
      cost = prices->per_call + prices->per_second * over.seconds.value_or(0) +
             (prices->per_m_in * static_cast<double>(over.tokens_in.value_or(0)) +
              prices->per_m_out * static_cast<double>(over.tokens_out.value_or(0))) /
                 1e6;
      value["cost_by"] = "price";
    }
    value["cost"] = ai::or_null(cost);
    spending_.add(task.service.key, cost.value_or(0), wall());
  }

  // One file after the other, then the result.
  void store(const RemoteTaskPtr& task) {
    if (task->stored == task->end.files.size()) return finish(task);
    if (task->stored == 0) tasks_.stage(*task, pb::STAGE_UPLOAD);
    RemoteFile& file = task->end.files[task->stored];
    if (!file.bytes.empty()) return put(task, std::move(file.bytes));
    const auto parsed = net::parse_url(file.url);
    const bool its_own = same_service(task->service.url, file.url);
    // Plain http could lead to whatever else listens on this machine.
    if (!parsed || (parsed->scheme != "https" && !its_own)) return skip(task, "its URL is not https");
    net::ClientRequest request{.url = file.url};
    request.limit = kFile;
    if (its_own) request.headers["Authorization"] = "Bearer " + task->service.key;
    const auto got = [this](const RemoteTaskPtr& t, Result<net::ClientResponse> answer) {
      t->call.reset();
      if (!answer) return skip(t, answer.error().message);
      if (answer->status != 200) return skip(t, "it was answered by " + std::to_string(answer->status));
      put(t, std::move(answer->body));
    };
    task->call = context_.http.send(std::move(request), tasks_.while_held(task, got));
  }
  // The work is done, and paid: a file that cannot be had does not undo it.
  void skip(const RemoteTaskPtr& task, const std::string& why) {
    const RemoteFile& file = task->end.files[task->stored++];
    task->files.push_back(json::object{{"file", file.name}, {"url", file.url}, {"error", why}});
    store(task);
  }
  void put(const RemoteTaskPtr& task, std::string bytes) {
    const std::size_t size = bytes.size(), at = task->stored;
    const auto stored = [this, size](const RemoteTaskPtr& t, Result<std::string> sha) {
      if (!sha) return tasks_.end(t, failure(pb::FAILURE_ENGINE, sha.error().message));
      std::string name = t->end.files[t->stored].name;
      if (name.find('/') != std::string::npos || !safe_relative(name)) name = "file";
      for (const pb::FileOut& other : t->result.files()) {
        if (other.path() != name) continue;
        name = std::to_string(t->stored + 1) + "_" + name;
        break;
      }
      pb::FileOut& out = *t->result.add_files();
      out.set_path(name);
      out.set_sha256(*sha);
      out.set_bytes(size);
      out.set_mode(0644);
      t->files.push_back(json::object{{"file", name}, {"sha256", *sha}, {"bytes", size}});
      ++t->stored;
      context_.loop.post([old = std::shared_ptr<Blobs::Wait>(std::move(t->put))] {});
      store(t);
    };
    auto wait = context_.blobs.put(std::move(bytes), tasks_.while_held(task, stored));
    if (tasks_.holds(task) && task->stored == at) task->put = std::move(wait);
  }

  void finish(const RemoteTaskPtr& task) {
    json::object value = std::move(task->end.value);
    if (!task->files.empty()) value["files"] = std::move(task->files);
    json::object shown = value;
    for (const char* big : {"text", "thinking", "tool_calls", "embeddings", "output"}) shown.erase(big);
    shown["ok"] = true;
    event(*task, "remote_done", shown);
    tasks_.complete(task, without_key(json::serialize(value), task->service.key));
  }

  void fail(const RemoteTaskPtr& task, EngineFailure why) {
    why.message = redacted(why.message, task->service.key);
    event(*task, "remote_done", {{"ok", false}, {"error", why.name}, {"message", why.message}});
    tasks_.end(task, to_result(why));
  }

  EngineContext context_;
  RemoteTimes times_;
  Spending spending_;
  RemoteOpen open_;
  HeldTasks<RemoteTask> tasks_;
  std::uint64_t runs_ = 0;
  std::map<std::uint64_t, std::shared_ptr<RemoteRun>> stopping_;
};

}  // namespace

std::unique_ptr<Engine> make_remote_engine(const EngineContext& context) {
  return make_remote_engine(context, RemoteTimes{});
}
std::unique_ptr<Engine> make_remote_engine(const EngineContext& context, const RemoteTimes& times) {
  return std::make_unique<RemoteEngine>(context, times);
}

}  // namespace grange::worker
