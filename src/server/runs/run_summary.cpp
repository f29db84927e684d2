#include "server/runs/run_summary.hpp"

#include <fmt/format.h>

#include <cmath>

#include "ai/stats.hpp"
#include "server/api/views.hpp"
#include "server/text.hpp"

namespace grange::server {
namespace {

constexpr std::size_t kMetricNames = 64;

// What to do about a failure of a class; the engine's own sentence says more.
std::string_view advice(std::string_view error) {
  static constexpr std::pair<std::string_view, std::string_view> table[] = {
      {"missing_model", "Bring the model there: grange models sync MODEL --workers NAME."},
      {"missing_checkpoint", "Bring the checkpoint there: grange models sync CHECKPOINT --workers NAME."},
      {"oom", "Take a smaller model, picture or context, or close what else uses the memory."},
      {"out_of_memory", "Take a smaller model, picture or context, or close what else uses the memory."},
      {"context_overflow", "Ask for a larger context (--num-ctx) or a shorter prompt."},
      {"cuda_unsupported_arch", "Install a PyTorch build that knows this GPU, or let the service run on the CPU."},
      {"driver_too_old", "Update the GPU driver of that machine."},
      {"missing_node", "Install the custom node that the workflow names, and restart ComfyUI."},
      {"loading", "The model was still loading: try again, or add --warmup 1."},
      {"busy", "Try again when the machine has less to do."},
      {"rate_limited", "Try again later, with less at once."},
      {"auth", "Check the key that the worker has for the service."},
      {"time_limit", "Give it more time with --timeout, or less to do."},
      {"no_progress", "See what the machine is busy with: grange workers."},
      {"service_down", "Start the service on that machine again: grange models ls says how it is."},
      {"worker_lost", "Look at that machine: its worker stopped or lost its connection."},
      {"wrong_result", "Check that machine's memory and clocks, and the build of its worker."},
  };
  for (const auto& [name, text] : table) {
    if (name == error) return text;
  }
  return "";
}

json::value number(double value) {
  if (!std::isfinite(value)) return nullptr;
  if (value == std::floor(value) && std::abs(value) < 9e15) return static_cast<std::int64_t>(value);
  // Seven digits that say something: a sieve may take microseconds.
  const double scale = std::pow(10.0, 6 - std::floor(std::log10(std::abs(value))));
  return std::isfinite(scale) ? std::round(value * scale) / scale : value;
}

json::value number(const std::optional<double>& value) {
  return value ? number(*value) : json::value(nullptr);
}

std::vector<std::string> metric_names(const std::vector<const Sample*>& samples) {
  std::vector<std::string> out;
  for (const Sample* sample : samples) {
    for (const auto& [key, value] : sample->metrics) {
      if (out.size() < kMetricNames && std::find(out.begin(), out.end(), std::string_view(key)) == out.end())
        out.emplace_back(key);
    }
  }
  return out;
}

std::vector<double> values_of(const std::vector<const Sample*>& samples, std::string_view metric) {
  std::vector<double> out;
  for (const Sample* sample : samples) {
    if (const auto value = number_at(sample->metrics, metric)) out.push_back(*value);
  }
  return out;
}

json::object rounded(json::object object) {
  for (auto& [key, value] : object) {
    if (value.is_double()) value = number(value.get_double());
  }
  return object;
}

std::vector<const Sample*> completed(const MachineState& m, std::uint32_t phase) {
  std::vector<const Sample*> out;
  for (const auto& [place, sample] : m.samples) {
    if (place.first == phase && sample.fate == Fate::completed) out.push_back(&sample);
  }
  return out;
}

bool mocked(const std::vector<const Sample*>& samples) {
  return std::any_of(samples.begin(), samples.end(), [](const Sample* s) { return !s->mock_reason.empty(); });
}

json::object phase_json(const RunState& run, const MachineState& m, std::uint32_t p) {
  const Phase& phase = run.phases[p];
  const PhaseState& state = m.phases[p];
  const std::vector<const Sample*> good = completed(m, p);
  const double wall = state.first_us >= 0 && state.last_us > state.first_us
                          ? static_cast<double>(state.last_us - state.first_us) / 1e6
                          : 0;
  json::object stats;
  for (const std::string& metric : metric_names(good)) {
    const auto values = values_of(good, metric);
    stats[metric] = rounded(ai::to_json(ai::summarize(values)));
  }
  json::object out{
      {"phase", p},
      {"concurrency", phase.concurrency},
      {"warmup", phase.warmup},
      {"requests", phase.tasks},
      {"ok", good.size()},
      {"failed", state.ended - std::min<std::uint32_t>(state.ended, static_cast<std::uint32_t>(good.size()))},
      {"phase_seconds", wall > 0 ? number(wall) : json::value(nullptr)},
      {"requests_per_s", wall > 0 ? number(static_cast<double>(good.size()) / wall) : json::value(nullptr)},
      {"stats", std::move(stats)}};
  if (run.spec.kind == RunKind::llm && wall > 0) {
    double tokens = 0;
    for (const double one : values_of(good, "gen_tokens")) tokens += one;
    out["all_tokens_per_s"] = number(tokens / wall);
  }
  if (run.spec.target_ttft_ms || run.spec.target_itl_ms) {
    std::vector<ai::Served> served;
    for (const auto& [place, sample] : m.samples) {
      if (place.first != p || !over(sample.fate)) continue;
      served.push_back({.ok = sample.fate == Fate::completed && sample.mock_reason.empty(),
                        .ttft_ms = number_at(sample.metrics, "ttft_ms"),
                        .itl_ms = number_at(sample.metrics, "itl_ms")});
    }
    const ai::Goodput g = ai::goodput(served, {run.spec.target_ttft_ms, run.spec.target_itl_ms}, wall);
    out["goodput"] = json::object{{"target_ttft_ms", number(run.spec.target_ttft_ms)},
                                  {"target_itl_ms", number(run.spec.target_itl_ms)},
                                  {"requests", g.requests},
                                  {"met", g.met},
                                  {"share", number(g.share)},
                                  {"per_s", number(g.per_s)}};
  }
  return out;
}

// Prompts that came from a service's memory: what is measured then is not the reading of a prompt.
std::string cache_note(const RunState& run, const MachineState& m) {
  if (run.spec.kind != RunKind::llm) return "";
  std::size_t all = 0, cached = 0, unsaid = 0;
  double most = 0;
  bool ollama = false;
  for (const auto& [place, sample] : m.samples) {
    if (run.phases[place.first].warmup || sample.fate != Fate::completed || !sample.mock_reason.empty()) continue;
    ++all;
    const double n = number_at(sample.metrics, "cached_tokens").value_or(0);
    cached += n > 0 ? 1 : 0;
    most = std::max(most, n);
    ollama = ollama || sample.engine == "ollama";
    unsaid += sample.engine == "ollama" && !number_at(sample.metrics, "prompt_tokens") ? 1 : 0;
  }
  if (cached > 0)
    return fmt::format(
        "{} of {} requests took up to {} tokens of their prompt from the service's cache: their TTFT and "
        "prompt rate are not those of a prompt that is read anew",
        cached, all, most);
  if (ollama && unsaid > 0)
    return fmt::format(
        "in {} of {} requests Ollama gave no figures of the prompt, as it does when the whole prompt "
        "came from its cache: their TTFT is not that of a prompt that is read anew",
        unsaid, all);
  return "";
}

std::uint32_t first_measured(const RunState& run) {
  for (std::uint32_t p = 0; p < run.phases.size(); ++p) {
    if (!run.phases[p].warmup) return p;
  }
  return 0;
}

// The figures on top are means over the first phase that counts; of one request they are its own.
json::object machine_json(const RunState& run, const MachineState& m) {
  const std::uint32_t first = first_measured(run);
  const std::vector<const Sample*> good = completed(m, first);
  json::object out{{"machine", m.machine.name}, {"machine_id", m.machine.id}, {"status", name(m.fate)}};
  const Sample* any = nullptr;
  for (const auto& [place, sample] : m.samples) {
    if (!sample.engine.empty() && (any == nullptr || !sample.mock_reason.empty())) any = &sample;
  }
  out["engine"] = any == nullptr ? json::value(nullptr) : json::value(any->engine);
  if (any != nullptr && !any->service.empty()) out["service"] = any->service;
  if (any != nullptr && !any->mock_reason.empty()) {
    out["mock"] = true;
    out["mock_reason"] = any->mock_reason;
  }
  if (run.spec.kind != RunKind::compute) out["model"] = m.machine.model.empty() ? run.spec.model : m.machine.model;
  if (!over(m.fate) && !m.waits.empty()) out["waits"] = m.waits;
  if (run.spec.kind == RunKind::compute) {
    if (!run.spec.model.empty()) out["algorithm"] = run.spec.model;
    out["op"] = op_of(run.spec);
    for (const char* key : {"n", "threads"}) {  // as it was asked, to all machines alike
      if (const json::value* value = run.spec.settings.if_contains(key)) out[key] = *value;
    }
  }
  for (const std::string& metric : metric_names(good)) {
    const ai::Summary s = ai::summarize(values_of(good, metric));
    out[metric] = number(s.mean);
  }
  // The kind's own figures are always there; null: the engine did not give it.
  for (const RunColumn& one : run_columns(name(run.spec.kind), op_of(run.spec))) out.emplace(one.metric, nullptr);
  if (run.spec.kind == RunKind::compute && !good.empty()) out["correct"] = true;
  std::uint32_t wanted = 0, ok = 0, failed = 0;
  for (std::uint32_t p = 0; p < run.phases.size(); ++p) {
    if (run.phases[p].warmup) continue;
    wanted += run.phases[p].tasks;
    const auto n = static_cast<std::uint32_t>(completed(m, p).size());
    ok += n;
    failed += m.phases[p].ended - std::min(m.phases[p].ended, n);
  }
  out["requests"] = wanted;
  out["ok"] = ok;
  out["failed"] = failed;
  if (const json::value* fit = m.checked.if_contains("fit"); fit != nullptr) out["fit"] = *fit;
  json::array notes;
  if (const json::value* warnings = m.checked.if_contains("warnings"); warnings != nullptr && warnings->is_array())
    notes = warnings->get_array();
  if (const std::string cached = cache_note(run, m); !cached.empty()) {
    out["cache_note"] = cached;
    notes.emplace_back(cached);
  }
  out["warnings"] = std::move(notes);
  if (!m.error.empty()) {
    if (m.error == "wrong_result") out["correct"] = false;
    out["error"] = m.error;
    out["message"] = m.message;
    if (const std::string_view what = advice(m.error); !what.empty()) out["advice"] = what;
  }
  json::array phases, jobs;
  for (std::uint32_t p = 0; p < run.phases.size(); ++p) {
    phases.push_back(phase_json(run, m, p));
    jobs.emplace_back(m.phases[p].job_id);
  }
  out["phases"] = std::move(phases);
  out["jobs"] = std::move(jobs);
  const auto said = m.samples.find({first, 0});
  if (said != m.samples.end() && !said->second.text.empty()) out["text"] = said->second.text;
  return out;
}

json::object ranking_json(const RunState& run) {
  json::object out;
  json::object by_metric;
  bool leading = true;
  for (const RankedBy& by : ranked_by(name(run.spec.kind), op_of(run.spec))) {
    std::vector<ai::Contender> contenders;
    for (const MachineState& m : run.machines) {
      const std::vector<const Sample*> good = completed(m, first_measured(run));
      contenders.push_back({.name = m.machine.name,
                            .values = values_of(good, by.metric),
                            .ranked = m.fate == Fate::completed && !mocked(good)});
    }
    const ai::Ranking ranking = ai::rank(contenders, by.higher ? ai::Better::higher : ai::Better::lower);
    json::array order;
    for (const std::size_t i : ranking.order) order.emplace_back(contenders[i].name);
    json::object one{{"metric", by.metric},
                     {"better", by.higher ? "higher" : "lower"},
                     {"order", std::move(order)},
                     {"winner", ranking.winner ? json::value(contenders[*ranking.winner].name) : json::value(nullptr)},
                     {"sentence", ranking.sentence}};
    if (leading) out = one;
    leading = false;
    by_metric[by.metric] = std::move(one);
  }
  out["by_metric"] = std::move(by_metric);
  return out;
}

json::array samples_json(const RunState& run) {
  json::array out;
  for (const MachineState& m : run.machines) {
    for (const auto& [place, sample] : m.samples) {
      json::object one{{"machine", m.machine.name},
                       {"machine_id", m.machine.id},
                       {"phase", place.first},
                       {"concurrency", run.phases[place.first].concurrency},
                       {"warmup", run.phases[place.first].warmup},
                       {"repeat", place.second},
                       {"status", name(sample.fate)},
                       {"engine", sample.engine},
                       {"metrics", sample.metrics}};
      if (sample.started_us >= 0) one["started_ms"] = number(static_cast<double>(sample.started_us) / 1000);
      if (over(sample.fate)) one["ended_ms"] = number(static_cast<double>(sample.ended_us) / 1000);
      if (!sample.mock_reason.empty()) one["mock_reason"] = sample.mock_reason;
      if (!sample.error.empty()) one["error"] = sample.error;
      if (!sample.message.empty()) one["message"] = sample.message;
      out.push_back(std::move(one));
    }
  }
  return out;
}

std::vector<double> values_in(const json::object& summary, std::string_view machine_id, std::string_view metric) {
  std::vector<double> out;
  const json::value* samples = summary.if_contains("samples");
  if (samples == nullptr || !samples->is_array()) return out;
  std::int64_t first = -1;  // the first phase that counts
  for (const json::value& one : samples->get_array()) {
    if (!one.is_object()) continue;
    const json::object& sample = one.get_object();
    const json::value *id = sample.if_contains("machine_id"), *warmup = sample.if_contains("warmup"),
                      *status = sample.if_contains("status"), *metrics = sample.if_contains("metrics");
    const auto phase = static_cast<std::int64_t>(number_at(sample, "phase").value_or(0));
    if (id == nullptr || *id != json::value(machine_id) || warmup == nullptr || *warmup != false || status == nullptr ||
        *status != "completed" || metrics == nullptr || !metrics->is_object() || sample.contains("mock_reason"))
      continue;
    if (first < 0) first = phase;
    if (phase != first) continue;
    if (const auto value = number_at(metrics->get_object(), metric)) out.push_back(*value);
  }
  return out;
}

}  // namespace

std::optional<RunKind> run_kind(std::string_view word) {
  for (const RunKind kind : {RunKind::llm, RunKind::compute, RunKind::image}) {
    if (name(kind) == word) return kind;
  }
  return std::nullopt;
}

json::object summary_json(const RunState& run) {
  json::object machines;
  for (const MachineState& m : run.machines) machines[m.machine.name] = machine_json(run, m);
  json::array warnings;
  for (const std::string& one : run.warnings) warnings.emplace_back(one);
  const std::string op = op_of(run.spec);
  return {{"run_id", run.id},
          {"kind", name(run.spec.kind)},
          {"op", op.empty() ? json::value(nullptr) : json::value(op)},
          {"what", what_of(run.spec)},
          {"status", run.status()},
          {"started_at", time_json(run.started_at)},
          {"ended_at", time_json(run.ended_at)},
          {"machines", std::move(machines)},
          {"ranking", ranking_json(run)},
          {"warnings", std::move(warnings)},
          {"samples", samples_json(run)}};
}

json::object metadata_json(const RunState& run) {
  json::array machines, checked, warnings;
  for (const MachineState& m : run.machines) {
    machines.emplace_back(m.machine.name);
    checked.emplace_back(m.checked);
  }
  for (const std::string& one : run.warnings) warnings.emplace_back(one);
  json::array sweep;
  for (const std::uint32_t c : run.spec.concurrency) sweep.emplace_back(c);
  json::object out{{"run_id", run.id},
                   {"kind", name(run.spec.kind)},
                   {"status", run.status()},
                   {"started_at", time_json(run.started_at)},
                   {"ended_at", time_json(run.ended_at)},
                   {"user", run.user},
                   {"prompt", run.spec.prompt},
                   {"model", run.spec.model},
                   {"what", what_of(run.spec)},
                   {"machines", std::move(machines)},
                   {"settings", run.spec.settings},
                   {"repeats", run.spec.repeats},
                   {"warmup", run.spec.warmup},
                   {"concurrency", std::move(sweep)},
                   {"timeout_seconds", static_cast<double>(run.spec.limit().count()) / 1000},
                   {"preflight", std::move(checked)},
                   {"warnings", std::move(warnings)}};
  if (!run.spec.system.empty()) out["system"] = run.spec.system;
  if (!run.spec.workflow.empty()) out["workflow"] = run.spec.workflow;
  if (run.spec.seed_given) out["seed"] = run.spec.seed;
  if (run.spec.target_ttft_ms) out["target_ttft_ms"] = *run.spec.target_ttft_ms;
  if (run.spec.target_itl_ms) out["target_itl_ms"] = *run.spec.target_itl_ms;
  return out;
}

json::object machines_json(const json::object& summary) {
  const json::value* machines = summary.if_contains("machines");
  return machines != nullptr && machines->is_object() ? machines->get_object() : json::object();
}

json::object compare_json(const json::object& now, const json::object& before) {
  const json::value* kind = now.if_contains("kind");
  const auto of = kind != nullptr && kind->is_string() ? run_kind(kind->get_string()) : std::nullopt;
  const std::string_view name_of_kind = of ? name(*of) : std::string_view();
  const json::value* said = now.if_contains("op");
  const std::string op = said != nullptr && said->is_string() ? std::string(said->get_string()) : std::string();
  const json::object was = machines_json(before);
  json::object machines;
  for (const auto& [name, machine] : machines_json(now)) {
    if (!of || !machine.is_object()) continue;
    const json::value* id = machine.get_object().if_contains("machine_id");
    if (id == nullptr || !id->is_string()) continue;
    json::object metrics;
    for (const RankedBy& by : ranked_by(name_of_kind, op)) {
      const auto here = values_in(now, id->get_string(), by.metric);
      const auto there = values_in(before, id->get_string(), by.metric);
      if (here.empty() || there.empty()) continue;
      const ai::Comparison c = ai::compare(here, there, by.higher ? ai::Better::higher : ai::Better::lower);
      metrics[by.metric] = json::object{{"now", number(ai::summarize(here).mean)},
                                        {"before", number(ai::summarize(there).mean)},
                                        {"ratio", number(c.ratio)},
                                        {"p", number(c.p)},
                                        {"verdict", c.answer == ai::Comparison::Answer::first    ? "better"
                                                    : c.answer == ai::Comparison::Answer::second ? "worse"
                                                    : c.answer == ai::Comparison::Answer::equal  ? "equal"
                                                                                                 : "not_enough_runs"},
                                        {"sentence", c.sentence}};
    }
    if (!metrics.empty()) machines[name] = std::move(metrics);
  }
  const auto copy = [&](const char* key) {
    const json::value* value = before.if_contains(key);
    return value == nullptr ? json::value(nullptr) : *value;
  };
  return {{"run_id", copy("run_id")}, {"started_at", copy("started_at")}, {"machines", std::move(machines)}};
}

}  // namespace grange::server
