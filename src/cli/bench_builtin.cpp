// The builtin engine over the whole path: Protobuf over WebSocket, the durable queue, workers, and back.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <boost/json.hpp>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <unordered_map>

#include "base/limits.hpp"
#include "cli/bench_farm.hpp"
#include "cli/exit.hpp"
#include "cli/farm_client.hpp"

namespace grange::cli {
namespace {

namespace json = boost::json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Says when it is over, or what went wrong; the farm is given up when nothing at all comes for a minute.
class Finish {
 public:
  void done() { set(""); }
  void fail(const std::string& why) { set(why.empty() ? "failed" : why); }
  void moved() { ++moves_; }
  void wait() {
    std::unique_lock lock(mutex_);
    for (std::uint64_t before = moves_; !over_; before = moves_) {
      if (!changed_.wait_for(lock, std::chrono::seconds(60), [&] { return over_; }) && moves_ == before) {
        throw Exit{kFailed, "Nothing has come from the farm for a minute; has it a worker? See `grange workers`."};
      }
    }
    if (!why_.empty()) throw Exit{kFailed, why_};
  }

 private:
  void set(std::string why) {
    const std::lock_guard lock(mutex_);
    if (over_) return;
    over_ = true;
    why_ = std::move(why);
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<std::uint64_t> moves_{0};
  bool over_ = false;
  std::string why_;
};

pb::JobSpec builtin_job(const std::string& name, const std::string& op, std::uint32_t count) {
  pb::JobSpec spec;
  spec.set_name(name);
  spec.set_engine("builtin");
  spec.set_count(count);
  spec.set_encoding(pb::ENCODING_RAW);
  spec.mutable_builtin()->set_op(op);
  return spec;
}

// Distinct, and not what a mix-up of indices would give.
std::string echo_argument(std::uint64_t index) {
  return fmt::format("{:x}-{}", index * 0x9E3779B97F4A7C15ull, index);
}

std::vector<pb::Payload> echo_payloads(std::uint64_t base, std::uint32_t count) {
  pb::Payload payload;
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::string argument = echo_argument(base + i);
    payload.add_sizes(static_cast<std::uint32_t>(argument.size()));
    payload.mutable_bytes()->append(argument);
  }
  return {std::move(payload)};
}

std::string refused(const pb::Response& response) {
  return response.error().message();
}

// Runs `count` tasks, and looks at every outcome: each index of each job once, completed, with the right value.
class TaskRun {
 public:
  TaskRun(const BenchOptions& options) : options_(options), total_(static_cast<std::uint64_t>(options.count)) {
    const std::uint64_t most = options.op == "echo" ? 400'000 : limits::kTasksPerJob;  // of one frame, of one job
    batch_ = options.batch > 0 ? std::min(static_cast<std::uint64_t>(options.batch), most) : std::min(total_, most);
  }

  // Prepared before the clock starts: it is the farm that is measured.
  void prepare() {
    for (std::uint64_t base = 0; base < total_; base += batch_) {
      const auto count = static_cast<std::uint32_t>(std::min(batch_, total_ - base));
      Batch one{builtin_job("bench tasks", options_.op, count), {}, base};
      if (options_.op == "echo") one.payloads = echo_payloads(base, count);
      batches_.push_back(std::move(one));
    }
    seen_.assign(total_, 0);
  }

  void start(FarmClient& client) {
    client_ = &client;
    submit_more();
  }

  // On the loop's thread.
  void take(const pb::Outcomes& outcomes) {
    finish.moved();
    const auto job = jobs_.find(outcomes.job_id());
    if (job == jobs_.end()) {  // ahead of the answer to its submit
      early_[outcomes.job_id()].push_back(outcomes);
      return;
    }
    const Batch& batch = batches_[job->second];
    for (const pb::Outcome& outcome : outcomes.outcomes()) check(batch, outcome);
    if (outcomes.has_ended()) {
      jobs_.erase(job);
      submit_more();
    }
    if (left_ == 0) finish.done();
  }

  Finish finish;

 private:
  struct Batch {
    pb::JobSpec spec;
    std::vector<pb::Payload> payloads;
    std::uint64_t base = 0;
  };

  void submit_more() {
    while (next_ < batches_.size() && in_flight_ < kInFlight) {
      const std::size_t at = next_++;
      ++in_flight_;
      client_->submit(batches_[at].spec, std::move(batches_[at].payloads), true,
                      [this, at](const pb::Response& response) {
                        if (response.has_error()) {
                          finish.fail(refused(response));
                          return;
                        }
                        jobs_[response.job().job_id()] = at;
                        --in_flight_;
                        const auto early = early_.extract(response.job().job_id());
                        if (!early.empty()) {
                          for (const pb::Outcomes& outcomes : early.mapped()) take(outcomes);
                        }
                        submit_more();
                      });
    }
  }

  void check(const Batch& batch, const pb::Outcome& outcome) {
    const std::uint64_t index = batch.base + outcome.index();
    if (outcome.index() >= batch.spec.count())
      return finish.fail(fmt::format("An outcome came for index {}, which does not exist.", outcome.index()));
    if (outcome.end() != pb::TASK_COMPLETED)
      return finish.fail(fmt::format("Task {} ended with: {}", index, outcome.message()));
    if (seen_[index] != 0) return finish.fail(fmt::format("Task {} had two outcomes.", index));
    if (options_.op == "echo" && outcome.value() != echo_argument(index))
      return finish.fail(fmt::format("Task {} gave another value than its argument.", index));
    seen_[index] = 1;
    --left_;
  }

  static constexpr std::size_t kInFlight = 256;  // submits that are not answered
  BenchOptions options_;
  std::uint64_t total_, left_ = total_, batch_ = 0;
  std::vector<Batch> batches_;
  std::vector<char> seen_;
  std::unordered_map<std::string, std::size_t> jobs_;
  std::unordered_map<std::string, std::vector<pb::Outcomes>> early_;
  std::size_t next_ = 0, in_flight_ = 0;
  FarmClient* client_ = nullptr;
};

FarmClientOptions client_options(const BenchFarm& farm) {
  return {farm.ws_url(), farm.token(), 5};
}

}  // namespace

void percentiles(json::object& figure, std::vector<double> ms) {
  std::sort(ms.begin(), ms.end());
  const auto at = [&](double p) {  // nearest rank
    const auto rank = static_cast<std::size_t>(std::ceil(p * static_cast<double>(ms.size())));
    return std::round(ms[std::clamp<std::size_t>(rank, 1, ms.size()) - 1] * 1000) / 1000;
  };
  if (ms.empty()) return;
  figure["p50_ms"] = at(0.5);
  figure["p90_ms"] = at(0.9);
  figure["p99_ms"] = at(0.99);
  figure["max_ms"] = at(1);
}

json::object bench_tasks(const BenchFarm& farm, const BenchOptions& options) {
  net::Loop loop;
  loop.start_thread();
  TaskRun run(options);
  FarmClient::Events events;
  events.on_outcomes = [&](const pb::Outcomes& outcomes) { run.take(outcomes); };
  events.on_lost = [&](const Error& why) { run.finish.fail(why.message); };
  FarmClient client(loop, client_options(farm), std::move(events));
  take(client.connect(Millis{10'000}));
  run.prepare();
  const auto start = Clock::now();
  loop.post([&] { run.start(client); });
  run.finish.wait();
  const double seconds = seconds_since(start);
  if (client.repeats() != 0) throw Exit{kFailed, fmt::format("{} outcomes came twice.", client.repeats())};
  return {{"count", options.count},
          {"seconds", std::round(seconds * 1e6) / 1e6},
          {"tasks_per_s", std::llround(static_cast<double>(options.count) / seconds)},
          {"verified", true}};
}

json::object bench_latency(const BenchFarm& farm, const BenchOptions& options) {
  constexpr int kWarmUp = 50;
  net::Loop loop;
  loop.start_thread();
  Finish finish;
  std::vector<double> ms;
  std::int64_t at = -kWarmUp;
  Clock::time_point start;
  FarmClient* client_at = nullptr;
  const auto next = [&] {
    auto payloads = echo_payloads(static_cast<std::uint64_t>(at + kWarmUp), 1);
    start = Clock::now();
    client_at->submit(builtin_job("bench latency", "echo", 1), std::move(payloads), true,
                      [&](const pb::Response& response) {
                        if (response.has_error()) finish.fail(refused(response));
                      });
  };
  FarmClient::Events events;
  events.on_outcomes = [&](const pb::Outcomes& outcomes) {
    finish.moved();
    if (outcomes.outcomes_size() == 0) return;  // the job's end may follow its outcome
    const double took = seconds_since(start) * 1000;
    const pb::Outcome& outcome = outcomes.outcomes(0);
    if (outcome.end() != pb::TASK_COMPLETED ||
        outcome.value() != echo_argument(static_cast<std::uint64_t>(at + kWarmUp))) {
      return finish.fail("A task gave another value than its argument. " + outcome.message());
    }
    if (at >= 0) ms.push_back(took);
    if (++at == options.count) return finish.done();
    next();
  };
  events.on_lost = [&](const Error& why) { finish.fail(why.message); };
  FarmClient client(loop, client_options(farm), std::move(events));
  take(client.connect(Millis{10'000}));
  client_at = &client;
  loop.post(next);
  finish.wait();
  json::object figure{{"count", options.count}, {"verified", true}};
  percentiles(figure, std::move(ms));
  return figure;
}

json::object bench_submit(const BenchFarm& farm, const BenchOptions& options) {
  net::Loop loop;
  loop.start_thread();
  FarmClient client(loop, client_options(farm), {});
  take(client.connect(Millis{10'000}));
  std::vector<double> ms;
  for (int i = 0; i < options.repeat; ++i) {
    Finish acknowledged, cancelled;
    double took = 0;
    std::string job_id;
    const auto start = Clock::now();
    client.submit(builtin_job("bench submit", "noop", static_cast<std::uint32_t>(options.count)), {}, false,
                  [&](const pb::Response& response) {
                    took = seconds_since(start) * 1000;
                    if (response.has_error()) return acknowledged.fail(refused(response));
                    if (response.job().count() != static_cast<std::uint32_t>(options.count))
                      return acknowledged.fail("The farm accepted another number of tasks.");
                    job_id = response.job().job_id();
                    acknowledged.done();
                  });
    acknowledged.wait();
    ms.push_back(took);
    client.cancel(job_id, [&](const pb::Response&) { cancelled.done(); });  // it may have ended by itself
    cancelled.wait();
  }
  std::sort(ms.begin(), ms.end());
  const auto rounded = [](double value) { return std::round(value * 1000) / 1000; };
  json::array all;
  for (const double one : ms) all.emplace_back(rounded(one));
  return {{"count", options.count},
          {"ack_ms", rounded(ms[ms.size() / 2])},
          {"repeats_ms", std::move(all)},
          {"verified", true}};
}

}  // namespace grange::cli
