// The engine of models: pull, fetch, remove, reset; start, stop and restart of services.
#include <boost/json/serialize.hpp>
#include <unordered_map>

#include "worker/engines/models_ops.hpp"

namespace grange::worker {

namespace {

namespace json = boost::json;

class ModelsEngine final : public Engine {
 public:
  explicit ModelsEngine(const EngineContext& context) : context_(context), alive_(std::make_shared<bool>(true)) {
    disk_.start_thread();
  }
  ~ModelsEngine() override {
    ops_.clear();
    disk_.stop();
  }

  void run(Run run) override {
    const AttemptKey key{run.fence.task, run.fence.attempt};
    const pb::ModelsSpec& spec = run.job->spec.models();
    const auto start = spec.op() == "pull"                                                     ? start_pull
                       : spec.op() == "fetch"                                                  ? start_fetch
                       : spec.op() == "remove"                                                 ? start_remove
                       : spec.op() == "reset"                                                  ? start_reset
                       : spec.op() == "start" || spec.op() == "stop" || spec.op() == "restart" ? start_care
                                                                                               : nullptr;
    if (start == nullptr) {
      return context_.host.ended(key.task, key.attempt,
                                 failure(pb::FAILURE_REFUSED,
                                         "There is no models operation \"" + spec.op().substr(0, 100) +
                                             "\"; there are pull, fetch, remove, reset, start, stop and restart.",
                                         true));
    }
    ModelsTask task{context_, disk_, spec, {}, {}, {}, {}};
    task.event = [this, key](std::string type, const json::object& data) {
      context_.host.event(key.task, key.attempt, std::move(type), json::serialize(data));
    };
    task.progress = [this, key](double done, double total, std::string text) {
      context_.host.progress(key.task, key.attempt, done, total, std::move(text));
    };
    task.done = [this, key](json::object value) {
      pb::TaskResult result;
      result.set_ok(true);
      result.set_value(json::serialize(value));
      end_soon(key, std::move(result));
    };
    task.failed = [this, key](const EngineFailure& why) { end_soon(key, to_result(why)); };
    context_.host.stage(key.task, key.attempt, pb::STAGE_EXECUTE);
    ops_[key] = nullptr;
    ops_[key] = start(std::move(task));
  }

  void stop(TaskId id, Attempt attempt, StopHow) override {
    const auto it = ops_.find({id, attempt});
    if (it == ops_.end()) return;
    ops_.erase(it);
    context_.host.ended(id, attempt, failure(pb::FAILURE_CANCELLED, "Stopped."));
  }
  void freeze(TaskId id, Attempt attempt, bool on) override {
    const auto it = ops_.find({id, attempt});
    if (it != ops_.end() && it->second) it->second->pause(on);
  }
  void resume_output() override {}
  void watch() override {}

 private:
  // Not below the op's own callback.
  void end_soon(const AttemptKey& key, pb::TaskResult result) {
    context_.loop.post(
        [this, key, result = std::make_shared<pb::TaskResult>(std::move(result)), alive = std::weak_ptr<bool>(alive_)] {
          if (alive.expired() || ops_.erase(key) == 0) return;
          context_.services.look_again();
          context_.host.ended(key.task, key.attempt, std::move(*result));
        });
  }

  EngineContext context_;
  std::shared_ptr<bool> alive_;
  net::Loop disk_;
  std::unordered_map<AttemptKey, std::unique_ptr<ModelsOp>, AttemptKeyHash> ops_;
};

}  // namespace

void SyncProgress::show(Bytes done, Bytes total, const std::string& status) {
  const Instant now = clock_.now().mono;
  if (status == status_ && now - told_ < std::chrono::milliseconds(250)) return;
  status_ = status;
  told_ = now;
  task_.event("sync_progress", {{"model", task_.spec.model()}, {"status", status}, {"done", done}, {"total", total}});
  task_.progress(static_cast<double>(done), static_cast<double>(total), status);
}

net::ClientRequest Asking::request(const std::string& method, const std::string& path, std::string body) const {
  net::ClientRequest out;
  out.method = method;
  out.url = service_.url + path;
  if (!body.empty()) out.headers["Content-Type"] = "application/json";
  if (!service_.key.empty()) out.headers["Authorization"] = "Bearer " + service_.key;
  out.body = std::move(body);
  out.limit = 4 * MiB;
  return out;
}

void Asking::ask(const std::string& method, const std::string& path, std::string body,
                 std::function<void(const Result<net::ClientResponse>&)> then, Millis idle) {
  net::ClientRequest out = request(method, path, std::move(body));
  out.idle = idle;
  auto old = std::move(call_);  // we may be in its callback
  call_ = http_.send(std::move(out), [then = std::move(then)](Result<net::ClientResponse> answer) { then(answer); });
}

EngineFailure refused_by(const ServiceInfo& service, const Result<net::ClientResponse>& answer) {
  if (!answer) return unreachable(service.shown.name(), answer.error(), false);
  return failure_of(
      ai::classify(service.shown.kind(), answer->status, std::string_view(answer->body).substr(0, 64 * KiB)));
}

std::unique_ptr<Engine> make_models_engine(const EngineContext& context) {
  return std::make_unique<ModelsEngine>(context);
}

}  // namespace grange::worker
