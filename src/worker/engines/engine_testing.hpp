// For tests of engines: a worker's ears, services that stand still, and scripted HTTP servers.
#pragma once

#include <algorithm>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "base/clock.hpp"
#include "net/net_testing.hpp"
#include "worker/engines/engines.hpp"

namespace grange::worker {

struct HeardHost final : EngineHost {
  struct End {
    TaskId task;
    pb::TaskResult result;
    boost::json::object value() const { return boost::json::parse(result.value()).as_object(); }
  };
  struct Event {
    TaskId task;
    std::string type;
    boost::json::object data;
  };
  void ended(TaskId task, Attempt, pb::TaskResult result) override { ends.push_back({task, std::move(result)}); }
  bool log(TaskId, Attempt, pb::Stream, std::string_view) override { return true; }
  void progress(TaskId, Attempt, double done, double total, std::string) override {
    progress_done = done;
    progress_total = total;
  }
  void checkpoint(TaskId, Attempt, std::string) override {}
  void event(TaskId task, Attempt, std::string type, std::string data) override {
    events.push_back({task, std::move(type), boost::json::parse(data).as_object()});
  }
  void stage(TaskId, Attempt, pb::Stage stage) override { stages.push_back(stage); }
  void engine_off(Kind, std::string) override {}

  std::vector<Event> of(std::string_view type) const {
    std::vector<Event> out;
    for (const Event& one : events)
      if (one.type == type) out.push_back(one);
    return out;
  }
  std::ptrdiff_t times(pb::Stage stage) const { return std::count(stages.begin(), stages.end(), stage); }
  std::vector<pb::Stage> stages;
  std::vector<End> ends;
  std::vector<Event> events;
  double progress_done = -1, progress_total = -1;
};

struct FixedServices final : Services {
  void start() override {}
  const std::vector<ServiceInfo>& list() const override { return all; }
  std::optional<ServiceInfo> find(const std::vector<std::string_view>& kinds, std::string_view name,
                                  std::string_view model) const override {
    auto out = ranked(all, kinds, name, model);
    return out.empty() ? std::nullopt : std::optional(out.front());
  }
  void look_again() override { ++looks; }
  void on_change(std::function<void()>) override {}
  const std::string& folder() const override { return models; }

  void add(const std::string& name, const std::string& kind, const std::string& url,
           const std::vector<std::string>& names = {"m"}, std::uint32_t parallel = 0) {
    ServiceInfo one;
    one.url = url;
    one.shown.set_name(name);
    one.shown.set_kind(kind);
    one.shown.set_state("ready");
    one.shown.set_parallel(parallel);
    for (const std::string& model : names) one.shown.add_models()->set_name(model);
    all.push_back(std::move(one));
  }
  std::vector<ServiceInfo> all;
  std::string models;
  int looks = 0;
};

class EngineTest : public net::testing::NetTest {
 protected:
  using HttpExchangePtr = net::HttpExchangePtr;
  EngineTest() {
    services.models = scratch.file("models");
    context = std::make_unique<EngineContext>(EngineContext{loop, host, blobs, client, services, clock,
                                                            scratch.file("tasks"), "http://127.0.0.1:1", "the-token",
                                                            [] { return limits::kInline; }});
  }
  ~EngineTest() override {
    on_loop([&] { engine.reset(); });
  }
  static TaskId task_of(std::uint32_t index) { return TaskId::of(JobNo{1}, index); }
  void run(const pb::JobSpec& spec, std::uint32_t index = 0, const std::string& args = "",
           std::vector<pb::Input> inputs = {}) {
    on_loop([&] {
      auto job = std::make_shared<JobInfo>();
      job->spec = spec;
      worker::Run out;
      out.fence.task = task_of(index);
      out.fence.attempt = 1;
      out.job = std::move(job);
      out.args = args;
      out.inputs = std::move(inputs);
      engine->run(std::move(out));
    });
  }
  bool ended(std::size_t n = 1) {
    return eventually([&] { return host.ends.size() >= n; });
  }

  net::testing::Scratch scratch;
  SystemClock clock;
  HeardHost host;
  FixedServices services;
  net::HttpClient client{loop, {.per_host = 64}};
  Blobs blobs{loop, {"http://127.0.0.1:1", "", scratch.file("cache")}, 1};
  std::unique_ptr<EngineContext> context;
  std::unique_ptr<Engine> engine;
};

}  // namespace grange::worker
