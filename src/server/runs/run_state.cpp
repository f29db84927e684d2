#include "server/runs/run_state.hpp"

#include <fmt/format.h>

#include "server/text.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {
namespace {

using namespace run_events;
using Effects = std::vector<RunEffect>;

constexpr std::size_t kTextKept = 2000;
constexpr std::size_t kMetrics = 64;
constexpr std::size_t kImages = 64;

std::string text_at(const json::object& from, std::string_view key, std::size_t most = 256) {
  const json::value* value = from.if_contains(key);
  return value != nullptr && value->is_string() ? cut_utf8(std::string(value->get_string()), most) : std::string();
}

// A result is its worker's word: what is passed on of it has a size.
json::array images_of(const json::value& images) {
  json::array out;
  if (!images.is_array()) return out;
  for (const json::value& image : images.get_array()) {
    if (out.size() >= kImages) break;
    if (!image.is_object()) continue;
    json::object one;
    for (const char* key : {"filename", "sha256"}) {
      if (auto text = text_at(image.get_object(), key); !text.empty()) one[key] = std::move(text);
    }
    for (const char* key : {"bytes", "width", "height"}) {
      const json::value* number = image.get_object().if_contains(key);
      if (number != nullptr && number->is_number()) one[key] = *number;
    }
    out.push_back(std::move(one));
  }
  return out;
}

// "tried again in 3 s" and "in 1 s" are one piece of news.
bool same_but_for_numbers(std::string_view a, std::string_view b) {
  const auto words = [](std::string_view text) {
    std::string out;
    std::copy_if(text.begin(), text.end(), std::back_inserter(out), [](char c) { return c < '0' || c > '9'; });
    return out;
  };
  return words(a) == words(b);
}

std::string_view done_type(RunKind kind) {
  return kind == RunKind::llm ? "job_done" : kind == RunKind::compute ? "compute_done" : "image_done";
}

struct Stepper {
  RunState& run;
  Instant now;
  Micros lease;
  Effects out = {};

  std::int64_t since_start() const { return (now - run.started).count(); }

  void tell(std::string type, std::optional<std::size_t> machine, std::uint32_t phase, std::uint32_t repeat,
            std::string payload) {
    out.emplace_back(std::in_place_type<Tell>, std::move(type), machine, phase, repeat, std::move(payload));
  }

  // Everything names its place; what names none is of no effect.
  MachineState* at(std::size_t machine, std::uint32_t phase, std::uint32_t repeat) {
    if (run.over || machine >= run.machines.size() || phase >= run.phases.size() || repeat >= run.phases[phase].tasks)
      return nullptr;
    return &run.machines[machine];
  }

  void settle(std::size_t k, Fate fate, std::string error, std::string message) {
    MachineState& m = run.machines[k];
    if (over(m.fate)) return;
    m.fate = fate;
    m.error = std::move(error);
    m.message = std::move(message);
    json::object payload{{"type", "machine_end"}, {"status", name(fate)}};
    if (!m.error.empty()) payload["error"] = m.error;
    if (!m.message.empty()) payload["message"] = m.message;
    tell("run_lifecycle", k, 0, 0, wire::json_text(payload));
  }

  void cancel_jobs(const MachineState& m, const std::string& why) {
    for (const PhaseState& phase : m.phases) {
      if (!phase.over && phase.job.value != 0) out.emplace_back(std::in_place_type<CancelJob>, phase.job, why);
    }
  }

  static void goes_on(MachineState& m) {
    m.waits.clear();
    m.gone.clear();
    m.gone_since.reset();
  }

  void operator()(const Began& e) {
    MachineState* m = at(e.machine, e.phase, e.repeat);
    if (m == nullptr) return;
    m->moved = now;
    goes_on(*m);
    Sample& sample = m->samples[{e.phase, e.repeat}];
    if (over(sample.fate)) return;
    sample.phase = e.phase;
    sample.repeat = e.repeat;
    sample.fate = Fate::running;
    sample.started_us = since_start();
    if (!over(m->fate)) m->fate = Fate::running;
    PhaseState& phase = m->phases[e.phase];
    if (phase.first_us < 0) phase.first_us = sample.started_us;
    tell("job_start", e.machine, e.phase, e.repeat, fmt::format(R"({{"attempt":{}}})", e.attempt));
  }

  void operator()(const Said& e) {
    MachineState* m = at(e.machine, e.phase, e.repeat);
    if (m == nullptr) return;
    m->moved = now;
    // The end is told once, from what is on disk.
    if (e.type.ends_with("_done") || e.type == "job_start" || e.type == "job_timeout" || e.type == "run_lifecycle")
      return;
    tell(e.type, e.machine, e.phase, e.repeat, e.data);
  }

  static void read_value(const json::value& value, Sample& sample) {
    if (!value.is_object()) return;
    const json::object& result = value.get_object();
    sample.engine = text_at(result, "engine");
    sample.service = text_at(result, "service");
    sample.model = text_at(result, "model");
    sample.mock_reason = text_at(result, "mock_reason");
    if (sample.engine == "mock" && sample.mock_reason.empty()) sample.mock_reason = "unknown";
    sample.text = text_at(result, "text", kTextKept);
    sample.metrics = flat_metrics(result);
    const json::value* correct = result.if_contains("correct");
    sample.wrong = correct != nullptr && correct->is_bool() && !correct->get_bool();
  }

  void operator()(const TaskOver& e) {
    MachineState* m = at(e.machine, e.phase, e.repeat);
    if (m == nullptr) return;
    Sample& sample = m->samples[{e.phase, e.repeat}];
    if (over(sample.fate)) return;
    m->moved = now;
    sample.phase = e.phase;
    sample.repeat = e.repeat;
    sample.ended_us = e.at_us.value_or(since_start());
    if (sample.started_us < 0)
      sample.started_us = std::max<std::int64_t>(0, sample.ended_us - static_cast<std::int64_t>(e.run_us));
    sample.error = e.error;
    sample.message = e.message;
    sample.fate = e.end == core::TaskEnd::completed              ? Fate::completed
                  : e.end == core::TaskEnd::cancelled            ? Fate::cancelled
                  : e.failure == core::FailureClass::time_limit  ? Fate::timeout
                  : e.failure == core::FailureClass::deadline    ? Fate::timeout
                  : e.failure == core::FailureClass::worker_lost ? Fate::lost
                                                                 : Fate::failed;
    if (sample.fate == Fate::completed) {
      read_value(e.value, sample);
      if (sample.wrong) {
        sample.fate = Fate::failed;
        sample.error = "wrong_result";
        sample.message = "The result is not the known one: this machine cannot be trusted with the work.";
      }
    } else if (sample.error.empty()) {
      sample.error = core::name(e.failure);
    }
    PhaseState& phase = m->phases[e.phase];
    ++phase.ended;
    phase.first_us = phase.first_us < 0 ? sample.started_us : std::min(phase.first_us, sample.started_us);
    phase.last_us = std::max(phase.last_us, sample.ended_us);
    if (e.at_us) return;  // it was told then
    json::object payload = sample.metrics;
    payload["ok"] = sample.fate == Fate::completed;
    payload["status"] = name(sample.fate);
    if (run.phases[e.phase].warmup) payload["warmup"] = true;
    if (!sample.engine.empty()) payload["engine"] = sample.engine;
    if (!sample.mock_reason.empty()) payload["mock_reason"] = sample.mock_reason;
    if (!sample.error.empty()) payload["error"] = sample.error;
    if (!sample.message.empty()) payload["message"] = sample.message;
    if (run.spec.kind == RunKind::image && e.value.is_object()) {
      if (const json::value* images = e.value.get_object().if_contains("images"))
        payload["images"] = images_of(*images);
    }
    if (run.spec.kind == RunKind::compute) {
      payload["op"] = run.spec.settings.at("op");
      if (!run.spec.model.empty()) payload["algorithm"] = run.spec.model;
      if (const json::value* n = run.spec.settings.if_contains("n"); n != nullptr) payload["n"] = *n;
    }
    tell(sample.fate == Fate::timeout ? "job_timeout" : std::string(done_type(run.spec.kind)), e.machine, e.phase,
         e.repeat, wire::json_text(payload));
  }

  // A machine has ended when its jobs have: completed when every request that counts was.
  void finish(std::size_t k) {
    MachineState& m = run.machines[k];
    if (over(m.fate) || !std::all_of(m.phases.begin(), m.phases.end(), [](const PhaseState& p) { return p.over; }))
      return;
    const Sample* bad = nullptr;
    std::uint32_t good = 0, wanted = 0;
    for (std::uint32_t p = 0; p < run.phases.size(); ++p) {
      if (run.phases[p].warmup) continue;
      wanted += run.phases[p].tasks;
    }
    for (const auto& [place, sample] : m.samples) {
      if (run.phases[place.first].warmup) continue;
      if (sample.fate == Fate::completed) {
        ++good;
      } else if (bad == nullptr || (bad->fate == Fate::cancelled && sample.fate != Fate::cancelled)) {
        bad = &sample;
      }
    }
    if (good == wanted) return settle(k, Fate::completed, "", "");
    if (bad == nullptr || !over(bad->fate)) return settle(k, Fate::cancelled, "", "Its job was cancelled.");
    settle(k, bad->fate, bad->error, bad->message);
  }

  void operator()(const JobOver& e) {
    if (run.over || e.machine >= run.machines.size() || e.phase >= run.phases.size()) return;
    run.machines[e.machine].phases[e.phase].over = true;
    run.machines[e.machine].moved = now;
    finish(e.machine);
  }

  void lose(std::size_t k) {
    MachineState& m = run.machines[k];
    if (over(m.fate)) return;
    for (auto& [place, sample] : m.samples) {
      if (over(sample.fate)) continue;
      sample.fate = Fate::lost;
      sample.error = "worker_lost";
      sample.ended_us = since_start();
    }
    settle(k, Fate::lost, "worker_lost", "The worker was lost; its connection ended and did not come back.");
    cancel_jobs(m, "the worker that it was pinned to is lost");
  }

  void operator()(const WorkerLost& e) {
    if (!run.over && e.machine < run.machines.size()) lose(e.machine);
  }

  void operator()(const WorkerBack& e) {
    if (e.machine >= run.machines.size()) return;
    run.machines[e.machine].away.reset();
    run.machines[e.machine].moved = now;
  }

  void operator()(const Waits& e) {
    if (run.over || e.machine >= run.machines.size()) return;
    MachineState& m = run.machines[e.machine];
    if (over(m.fate)) return;
    if (e.error.empty()) {
      m.gone.clear();
      m.gone_since.reset();
    } else {
      if (!m.gone_since) m.gone_since = now;
      m.gone = e.error;
    }
    for (auto& [place, sample] : m.samples) {  // given back: it will be begun again
      if (sample.fate == Fate::running) sample.fate = Fate::waiting;
    }
    const bool told = same_but_for_numbers(e.why, m.waits);
    m.waits = e.why;
    if (told) return;
    json::object payload{{"type", "machine_waits"}, {"status", name(m.fate)}, {"why", e.why}};
    if (!e.error.empty()) payload["ends_in_s"] = (kServicePatience - (now - *m.gone_since)).count() / 1'000'000;
    tell("run_lifecycle", e.machine, 0, 0, wire::json_text(payload));
  }

  void operator()(const Cancel& e) {
    if (run.over || run.cancelled) return;
    run.cancelled = true;
    for (std::size_t k = 0; k < run.machines.size(); ++k) {
      MachineState& m = run.machines[k];
      if (over(m.fate)) continue;
      for (auto& [place, sample] : m.samples) {
        if (over(sample.fate)) continue;
        sample.fate = Fate::cancelled;
        sample.ended_us = since_start();
      }
      settle(k, Fate::cancelled, "cancelled", e.reason);
      cancel_jobs(m, e.reason);
    }
  }

  void operator()(const Tick&) {
    if (run.over) return;
    const Micros patience = std::chrono::duration_cast<Micros>(run.spec.limit()) + kRunPatience;
    for (std::size_t k = 0; k < run.machines.size(); ++k) {
      MachineState& m = run.machines[k];
      if (over(m.fate)) continue;
      if (m.away && now - *m.away > lease * 2) {
        lose(k);
      } else if (m.gone_since && now - *m.gone_since >= kServicePatience) {
        settle(
            k, Fate::failed, m.gone,
            fmt::format("The rest of it was given up after {} s: {}.", kServicePatience.count() / 1'000'000, m.waits));
        cancel_jobs(m, "the race went on without it: " + m.waits);
      } else if (now - m.moved > patience) {
        settle(k, Fate::timeout, "no_progress",
               "Nothing of it began or ended for too long: the machine is busy with other work, or paused.");
        cancel_jobs(m, "the race went on without it");
      }
    }
  }
};

}  // namespace

std::string_view name(Fate fate) {
  static constexpr std::string_view names[] = {"waiting", "running", "completed", "failed",
                                               "lost",    "timeout", "cancelled"};
  return names[static_cast<std::size_t>(fate)];
}

std::string RunState::status() const {
  if (!over) return "running";
  if (cancelled) return "cancelled";
  const auto good =
      std::count_if(machines.begin(), machines.end(), [](const MachineState& m) { return m.fate == Fate::completed; });
  if (good == static_cast<std::ptrdiff_t>(machines.size())) return "completed";
  return good > 0 ? "partial" : "failed";
}

// What was asked for is no figure of a machine, though a result repeats it.
bool is_input(std::string_view key) {
  static constexpr std::string_view kInputs[] = {"n",       "threads",    "expected",   "seed", "steps",
                                                 "width",   "height",     "batch",      "cfg",  "denoise",
                                                 "num_ctx", "max_tokens", "temperature"};
  return std::find(std::begin(kInputs), std::end(kInputs), key) != std::end(kInputs);
}

json::object flat_metrics(const json::object& result) {
  json::object out;
  const auto put = [&](std::string key, const json::value& value) {
    if (is_input(key)) return;
    if (out.size() < kMetrics && key.size() <= 64 && is_utf8(key) && value.is_number() &&
        value.to_number<double>() == value.to_number<double>())
      out[key] = value;
  };
  for (const auto& [key, value] : result) {
    put(std::string(key), value);
    if (!value.is_object()) continue;
    for (const auto& [inner, one] : value.get_object())
      put(inner == "mean" ? std::string(key) : std::string(key) + "_" + std::string(inner), one);
  }
  return out;
}

std::vector<RunEffect> step(RunState& run, const RunEvent& event, Instant now, Micros lease) {
  Stepper stepper{run, now, lease};
  std::visit(stepper, event);
  if (!run.over &&
      std::all_of(run.machines.begin(), run.machines.end(), [](const MachineState& m) { return over(m.fate); })) {
    run.over = true;
    stepper.out.emplace_back(std::in_place_type<RunEnded>);
  }
  return std::move(stepper.out);
}

}  // namespace grange::server
