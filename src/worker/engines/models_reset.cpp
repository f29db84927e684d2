// Brings the services of a machine back to where nothing is loaded, and measures until each is ready again.
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <deque>

#include "ai/json.hpp"
#include "worker/engines/models_ops.hpp"
#include "worker/services/answers.hpp"

namespace grange::worker {

namespace {

namespace json = boost::json;

constexpr Millis kResetLook{100};
constexpr Millis kPatience{120'000};  // for one service

class Reset final : public ModelsOp {
 public:
  explicit Reset(ModelsTask t) : task_(std::move(t)) { begin(); }

 private:
  using Answer = Result<net::ClientResponse>;

  void begin() {
    for (const ServiceInfo& one : task_.context.services.list()) {
      const std::string& kind = one.shown.kind();
      if (kind != "ollama" && kind != "llamacpp" && kind != "openai" && kind != "comfyui") continue;
      if (task_.spec.service().empty() ? one.shown.state() != "down" : one.shown.name() == task_.spec.service())
        todo_.push_back(one);
    }
    if (todo_.empty()) {
      return task_.failed({"unreachable",
                           task_.spec.service().empty()
                               ? "This worker reaches no service that could be reset."
                               : "This worker has no service called \"" + task_.spec.service() + "\".",
                           false, false});
    }
    began_ = now();
    next();
  }

  Instant now() const { return task_.context.clock.now().mono; }
  double ms_since(Instant then) const { return static_cast<double>((now() - then).count()) / 1000; }
  const ServiceInfo& service() const { return asking_->service(); }

  void next() {
    if (todo_.empty()) return task_.done({{"op", "reset"}, {"ready_ms", ms_since(began_)}, {"services", services_}});
    one_began_ = now();
    unload_.clear();
    unloaded_.clear();
    asking_ = std::make_unique<Asking>(task_.context.http, std::move(todo_.front()));
    todo_.pop_front();
    task_.event("reset_progress", {{"service", service().shown.name()}, {"status", "unloading"}});
    const std::string& kind = service().shown.kind();
    if (kind == "ollama") {
      asking_->ask("GET", "/api/ps", "", [this](const Answer& answer) { take_loaded(answer, "models", "name"); });
    } else if (kind == "llamacpp") {
      asking_->ask("GET", "/models", "", [this](const Answer& answer) { take_loaded(answer, "data", "id"); });
    } else if (kind == "comfyui") {
      asking_->ask("POST", "/free", R"({"unload_models":true,"free_memory":true})", [this](const Answer& answer) {
        if (!answer || answer->status / 100 != 2) return task_.failed(refused_by(service(), answer));
        wait_until_ready();
      });
    } else {
      wait_until_ready();
    }
  }

  // The names of what is in memory, from Ollama's list or from that of a llama.cpp that serves several models. One that
  // serves a single model has no status there, and nothing to unload.
  void take_loaded(const Answer& answer, std::string_view list, std::string_view key) {
    if (!answer) return task_.failed(refused_by(service(), answer));
    const auto value = ai::parse_json(answer->body);
    const json::array* all =
        answer->status == 200 && value && value->is_object() ? ai::array_at(value->get_object(), list) : nullptr;
    for (std::size_t i = 0; all != nullptr && i < std::min(all->size(), kModels); ++i) {
      if (!(*all)[i].is_object()) continue;
      const json::object& entry = (*all)[i].get_object();
      const json::object* status = ai::object_at(entry, "status");
      const bool loaded =
          service().shown.kind() == "ollama" || (status != nullptr && ai::text_at(*status, "value") == "loaded");
      if (const auto name = ai::text_at(entry, key); name && loaded) unload_.push_back(std::string(*name));
    }
    unload_next();
  }
  void unload_next() {
    if (unload_.empty()) return wait_until_ready();
    const std::string model = std::move(unload_.front());
    unload_.pop_front();
    unloaded_.emplace_back(model);
    const bool ollama = service().shown.kind() == "ollama";
    json::object body{{"model", model}};
    if (ollama) body["keep_alive"] = 0;
    asking_->ask(
        "POST", ollama ? "/api/generate" : "/models/unload", json::serialize(body),
        [this](const Answer& answer) {
          // An embedding model does not generate, and one that has gone by itself is as good.
          if (!answer) return task_.failed(refused_by(service(), answer));
          unload_next();
        },
        kPatience);
  }

  void wait_until_ready() {
    const std::string& kind = service().shown.kind();
    const char* path = kind == "ollama"     ? "/api/ps"
                       : kind == "llamacpp" ? "/health"
                       : kind == "comfyui"  ? "/system_stats"
                                            : "/v1/models";
    asking_->ask("GET", path, "", [this](const Answer& answer) {
      bool ready = answer && answer->status == 200;
      if (ready && service().shown.kind() == "ollama") {
        const auto value = ai::parse_json(answer->body);
        const json::array* left = value && value->is_object() ? ai::array_at(value->get_object(), "models") : nullptr;
        ready = left == nullptr || left->empty();
        if (ready) return ask_version();
      }
      ready ? one_done() : again();
    });
  }
  void ask_version() {
    asking_->ask("GET", "/api/version", "",
                 [this](const Answer& answer) { answer && answer->status == 200 ? one_done() : again(); });
  }
  void again() {
    if (now() - one_began_ > kPatience) {
      return task_.failed({"timeout",
                           "The service \"" + service().shown.name() + "\" was not ready again within " +
                               std::to_string(kPatience.count() / 1000) + " s. Look at it on the machine itself.",
                           false, false});
    }
    timer_ = task_.context.loop.after(kResetLook, [this] { wait_until_ready(); });
  }
  void one_done() {
    json::object row{{"service", service().shown.name()}, {"ready_ms", ms_since(one_began_)}, {"unloaded", unloaded_}};
    task_.event("reset_progress", {{"service", service().shown.name()}, {"status", "ready"}});
    services_.push_back(std::move(row));
    // In a turn of its own: the request whose end we are in goes with `asking_`.
    timer_ = task_.context.loop.after(Millis{0}, [this] { next(); });
  }

  ModelsTask task_;
  std::deque<ServiceInfo> todo_;
  std::deque<std::string> unload_;
  json::array unloaded_, services_;
  std::unique_ptr<Asking> asking_;
  std::unique_ptr<net::Timer> timer_;
  Instant began_{}, one_began_{};
};

}  // namespace

std::unique_ptr<ModelsOp> start_reset(ModelsTask task) {
  return std::make_unique<Reset>(std::move(task));
}

}  // namespace grange::worker
