// Starts, stops and restarts a service that the worker keeps running, and waits until it is so.
#include <boost/json/object.hpp>

#include "worker/engines/models_ops.hpp"
#include "worker/services/keeper.hpp"

namespace grange::worker {

namespace {

constexpr Millis kCareLook{50};

class CareOp final : public ModelsOp {
 public:
  explicit CareOp(ModelsTask t) : task_(std::move(t)), keeper_(task_.context.services.keeper()) { begin(); }

 private:
  void begin() {
    const std::string& name = task_.spec.service();
    began_ = task_.context.clock.now().mono;
    if (keeper_ == nullptr || !keeper_->shown(name)) {
      bool found = false;
      for (const ServiceInfo& one : task_.context.services.list()) found = found || one.shown.name() == name;
      return task_.failed({"not_managed",
                           found ? "The service \"" + name +
                                       "\" was only found here, not started by this worker. To "
                                       "have it started and stopped, put it into the worker's services file."
                                 : "This worker has no service called \"" + name + "\" in its services file.",
                           true, false});
    }
    const CareWish wish = task_.spec.op() == "start"  ? CareWish::start
                          : task_.spec.op() == "stop" ? CareWish::stop
                                                      : CareWish::restart;
    if (auto wished = keeper_->wish(name, wish); !wished)
      return task_.failed({"refused", wished.error().message, true, false});
    falls_ = keeper_->shown(name)->restarts;
    timer_ = task_.context.loop.every(kCareLook, [this] { look(); });
  }

  void look() {
    const std::string& name = task_.spec.service();
    const auto now = keeper_->shown(name);
    const std::string state(worker::name(now->state));
    const std::string said = state + " " + now->note;
    if (said != said_) {
      said_ = said;
      boost::json::object event{{"service", name}, {"state", state}};
      if (!now->note.empty()) event["note"] = now->note;
      task_.event("service_progress", event);
      task_.progress(0, 0, state);
    }
    const double ms = static_cast<double>((task_.context.clock.now().mono - began_).count()) / 1000;
    if (task_.spec.op() == "stop") {
      if (now->state != CareState::stopped) return over({"refused", "Somebody started it again meanwhile."});
      if (now->alive) return;
      timer_.reset();
      return task_.done({{"op", task_.spec.op()}, {"service", name}, {"state", state}, {"stopped_ms", ms}});
    }
    if (now->state == CareState::ready && !now->ending) {
      boost::json::object result{{"op", task_.spec.op()}, {"service", name}, {"state", state}, {"ready_ms", ms}};
      result["pid"] = now->pid;
      timer_.reset();
      return task_.done(std::move(result));
    }
    if (now->state == CareState::stopped) return over({"refused", "Somebody stopped it meanwhile."});
    if (now->state != CareState::failed && now->restarts == falls_) return;
    over({"service_failed", "The service \"" + name + "\" did not become ready" +
                                (now->state == CareState::failed ? ". " : "; its worker goes on trying. ") +
                                now->last_error});
  }

  void over(EngineFailure why) {
    why.permanent = true;
    why.elsewhere = false;
    loop_keeps(std::move(timer_));
    task_.failed(why);
  }
  // The timer may be what called us.
  void loop_keeps(std::unique_ptr<net::Timer> timer) {
    task_.context.loop.post([old = std::shared_ptr<net::Timer>(std::move(timer))] {});
  }

  ModelsTask task_;
  Keeper* keeper_;
  Instant began_{};
  std::uint32_t falls_ = 0;
  std::string said_;
  std::unique_ptr<net::Timer> timer_;
};

}  // namespace

std::unique_ptr<ModelsOp> start_care(ModelsTask task) {
  return std::make_unique<CareOp>(std::move(task));
}

}  // namespace grange::worker
