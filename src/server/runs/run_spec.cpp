#include "server/runs/run_spec.hpp"

#include <fmt/format.h>

#include <boost/json/serialize.hpp>

#include "server/api/bad.hpp"
#include "server/api/job_keys.hpp"
#include "store/blobs.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {
namespace {

constexpr std::size_t kPromptBytes = 128 * KiB;
constexpr std::uint32_t kUnservedTries = 5;
constexpr std::uint32_t kUnservedPauseMs = 2500;  // its worker has seen by then that the service is gone
constexpr std::uint64_t kWarmupSeeds = 1'000'000;
constexpr std::uint64_t kDefaultN = 50'000'000;             // primes: seconds on one core, not minutes
constexpr std::int64_t kMostRaceN = 1'000'000'000'000'000;  // as far as the sieves go

// A number that stands in the settings as it was written.
void keep_number(Keys& keys, std::string_view key, double least, double most, json::object& to) {
  const json::value* value = keys.find(key);
  if (value == nullptr) return;
  const double n = value->is_number() ? value->to_number<double>() : least - 1;
  if (!(n >= least) || n > most) {
    keys.wrong(key, fmt::format("must be a number from {} to {}", least, most));
    return;
  }
  to[key] = *value;
}

void keep_integer(Keys& keys, std::string_view key, std::int64_t least, std::int64_t most, json::object& to) {
  std::int64_t n = 0;
  if (keys.integer(key, least, most, n)) to[key] = n;
}

void keep_text(Keys& keys, std::string_view key, json::object& to) {
  std::string text;
  if (keys.text(key, text)) to[key] = text;
}

void read_llm(Keys& keys, RunSpec& spec) {
  keys.text("model", spec.model);
  keys.text("prompt", spec.prompt);
  keys.text("system", spec.system);
  keys.text("service", spec.service);
  keep_integer(keys, "max_tokens", 1, 1'000'000, spec.settings);
  keep_integer(keys, "num_ctx", 1, 100'000'000, spec.settings);
  keep_number(keys, "temperature", 0, 10, spec.settings);
  keep_number(keys, "top_p", 0, 1, spec.settings);
  keys.flag("cache", spec.cache);
  if (const json::object* more = keys.object("options"); more != nullptr) {
    for (const auto& [key, value] : *more) {
      if (!spec.settings.contains(key)) spec.settings[key] = value;
    }
  }
  if (spec.model.empty()) keys.wrong("model", "is missing: name a model, such as \"llama3.2\"");
  if (spec.prompt.empty()) keys.wrong("prompt", "is missing: what each machine is asked");
  if (!spec.settings.contains("max_tokens")) spec.settings["max_tokens"] = 256;
  if (!spec.settings.contains("num_ctx")) spec.settings["num_ctx"] = 4096;
  if (!spec.settings.contains("temperature")) spec.settings["temperature"] = 0.2;
}

void read_compute(Keys& keys, RunSpec& spec) {
  std::string op = "primes";
  keys.text("op", op);
  spec.settings["op"] = op;
  keys.text("algorithm", spec.model);
  std::int64_t n = 0;
  if (keys.integer("n", 0, kMostRaceN, n)) spec.settings["n"] = n;
  keep_integer(keys, "threads", 0, 4096, spec.settings);
  if (op == "primes") {
    if (spec.model.empty()) spec.model = "segmented_sieve";
    if (n == 0) spec.settings["n"] = kDefaultN;
  }
}

void read_image(Keys& keys, RunSpec& spec) {
  keys.text("checkpoint", spec.model);
  keys.text("prompt", spec.prompt);
  keys.text("service", spec.service);
  keep_text(keys, "negative", spec.settings);
  keep_text(keys, "sampler", spec.settings);
  keep_text(keys, "scheduler", spec.settings);
  keep_integer(keys, "steps", 1, 1000, spec.settings);
  keep_integer(keys, "width", 16, 16384, spec.settings);
  keep_integer(keys, "height", 16, 16384, spec.settings);
  keep_integer(keys, "batch", 1, 64, spec.settings);
  keep_number(keys, "cfg", 0, 100, spec.settings);
  keep_number(keys, "denoise", 0, 1, spec.settings);
  if (const json::object* workflow = keys.object("workflow"); workflow != nullptr) spec.workflow = *workflow;
  if (!spec.workflow.empty()) return;
  if (spec.model.empty()) keys.wrong("checkpoint", "is missing: name a checkpoint, or give a \"workflow\"");
  if (spec.prompt.empty()) keys.wrong("prompt", "is missing: what each machine paints");
}

void read_concurrency(Keys& keys, RunSpec& spec) {
  const json::value* value = keys.find("concurrency");
  if (value == nullptr) return;
  const json::array one{*value};
  const json::array& list = value->is_array() ? value->get_array() : one;
  spec.concurrency.clear();
  for (const json::value& n : list) {
    const std::int64_t c = n.is_int64() ? n.get_int64() : 0;
    if (c < 1 || c > kRunConcurrency || list.size() > kRunPhases) {
      keys.wrong("concurrency", fmt::format("must be a whole number from 1 to {}, or a list of at most {} of them",
                                            kRunConcurrency, kRunPhases));
      return;
    }
    spec.concurrency.push_back(static_cast<std::uint32_t>(c));
  }
  if (spec.concurrency.empty()) keys.wrong("concurrency", "is an empty list");
}

void read_workers(Keys& keys, std::string_view key, RunSpec& spec) {
  const json::array* list = keys.list(key);
  if (list == nullptr) return;
  for (const json::value& one : *list) {
    if (!one.is_string() || one.get_string().empty() || list->size() > kRunMachines) {
      keys.wrong(key, fmt::format("must be a list of at most {} ids or names of workers", kRunMachines));
      return;
    }
    spec.workers.emplace_back(one.get_string());
  }
}

std::optional<double> target(Keys& keys, std::string_view key) {
  const json::value* value = keys.find(key);
  if (value == nullptr) return std::nullopt;
  const double ms = value->is_number() ? value->to_number<double>() : 0;
  if (!(ms > 0) || ms > 1e9) {
    keys.wrong(key, "must be a number of milliseconds above 0");
    return std::nullopt;
  }
  return ms;
}

json::object image_params(const RunSpec& spec, const std::string& checkpoint) {
  json::object params = spec.settings;
  params["checkpoint"] = checkpoint;
  params["prompt"] = spec.prompt;
  return params;
}

void fill_engine(const RunSpec& spec, const RunMachine& on, pb::JobSpec& job) {
  if (spec.kind == RunKind::llm) {
    pb::LlmSpec& llm = *job.mutable_llm();
    llm.set_op("chat");
    llm.set_model(on.model.empty() ? spec.model : on.model);
    llm.set_system(spec.system);
    json::object options = spec.settings;
    if (spec.seed_given) options["seed"] = spec.seed;
    // The second repeat would measure the memory of the first. llama.cpp can be told; who does not know the word is not
    // sent it.
    if (!spec.cache && !options.contains("cache_prompt")) options["cache_prompt"] = false;
    llm.set_options_json(json::serialize(options));
    llm.set_allow_mock(spec.allow_mock);
    llm.set_service(spec.service);
  } else if (spec.kind == RunKind::compute) {
    pb::ComputeSpec& compute = *job.mutable_compute();
    const auto whole = [&](const char* key) {
      const auto n = number_at(spec.settings, key);
      const json::value* value = spec.settings.if_contains(key);
      if (value != nullptr && value->is_int64()) return static_cast<std::uint64_t>(value->get_int64());
      return static_cast<std::uint64_t>(n.value_or(0));
    };
    compute.set_op(std::string(spec.settings.at("op").get_string()));
    compute.set_algorithm(spec.model);
    compute.set_n(whole("n"));
    compute.set_threads(static_cast<std::uint32_t>(whole("threads")));
  } else {
    pb::ImageSpec& image = *job.mutable_image();
    if (spec.workflow.empty()) {
      image.set_params_json(json::serialize(image_params(spec, on.model.empty() ? spec.model : on.model)));
    } else {
      image.set_workflow_json(json::serialize(spec.workflow));
    }
    image.set_allow_mock(spec.allow_mock);
    image.set_service(spec.service);
  }
}

// One a task. A language model's prompt is the argument, so that braces in it stay what they are.
std::vector<std::string> arguments(const RunSpec& spec, std::uint32_t tasks, std::uint64_t first_seed) {
  std::vector<std::string> out;
  if (spec.kind == RunKind::llm) out.assign(tasks, json::serialize(json::value(spec.prompt)));
  for (std::uint32_t i = 0; spec.kind == RunKind::image && i < tasks; ++i)
    out.push_back(json::serialize(json::object{{"seed", first_seed + i}}));
  return out;
}

}  // namespace

std::string_view name(RunKind kind) {
  switch (kind) {
    case RunKind::llm:
      return "llm";
    case RunKind::compute:
      return "compute";
    case RunKind::image:
      return "image";
  }
  return "llm";
}

std::optional<double> number_at(const json::object& from, std::string_view key) {
  const json::value* value = from.if_contains(key);
  if (value == nullptr || !value->is_number()) return std::nullopt;
  const double n = value->to_number<double>();
  return n == n && n < 1e300 && n > -1e300 ? std::optional(n) : std::nullopt;
}

std::string op_of(const RunSpec& spec) {
  const json::value* op = spec.kind == RunKind::compute ? spec.settings.if_contains("op") : nullptr;
  return op != nullptr && op->is_string() ? std::string(op->get_string()) : std::string();
}

std::string what_of(const RunSpec& spec) {
  if (spec.kind == RunKind::image && spec.model.empty()) return "workflow";
  if (spec.kind != RunKind::compute) return spec.model;
  return op_of(spec) + (spec.model.empty() ? "" : " " + spec.model);
}

Millis RunSpec::limit() const {
  if (timeout.count() > 0) return timeout;
  return kind == RunKind::llm ? Millis{300'000} : kind == RunKind::compute ? Millis{3'600'000} : Millis{900'000};
}

std::uint32_t RunSpec::context() const {
  if (kind != RunKind::llm) return 0;
  return static_cast<std::uint32_t>(std::clamp(number_at(settings, "num_ctx").value_or(0), 0.0, 4e9));
}

std::vector<Phase> RunSpec::phases() const {
  std::vector<Phase> out;
  if (warmup > 0) out.push_back({.warmup = true, .concurrency = 1, .tasks = warmup});
  // Of fewer requests than that there would never be so many at once.
  for (const std::uint32_t c : concurrency)
    out.push_back({.warmup = false, .concurrency = c, .tasks = std::max(repeats, c)});
  return out;
}

Result<RunSpec> read_run(const json::object& body) {
  RunSpec spec;
  Keys keys(body, "");
  std::string kind = body.contains("checkpoint") || body.contains("workflow") ? "image"
                     : body.contains("model") || body.contains("prompt")      ? "llm"
                     : body.contains("algorithm") || body.contains("n")       ? "compute"
                                                                              : "";
  keys.text("kind", kind);
  if (kind == "llm" || kind == "inference") {
    spec.kind = RunKind::llm;
    read_llm(keys, spec);
  } else if (kind == "compute") {
    spec.kind = RunKind::compute;
    read_compute(keys, spec);
  } else if (kind == "image") {
    spec.kind = RunKind::image;
    read_image(keys, spec);
  } else {
    return bad("\"kind\" must be llm, compute or image.");
  }
  read_workers(keys, "workers", spec);
  read_workers(keys, "machines", spec);
  std::int64_t n = 0;
  if (keys.integer("repeats", 1, kRunRepeats, n)) spec.repeats = static_cast<std::uint32_t>(n);
  if (keys.integer("warmup", 0, kRunRepeats, n)) spec.warmup = static_cast<std::uint32_t>(n);
  read_concurrency(keys, spec);
  std::uint64_t ms = 0;
  if (keys.duration("timeout", ms)) {
    if (ms == 0 || ms > 7ull * 24 * 3600 * 1000) keys.wrong("timeout", "must be above 0 and at most a week");
    spec.timeout = Millis{static_cast<std::int64_t>(ms)};
  }
  keys.flag("force", spec.force);
  keys.flag("allow_mock", spec.allow_mock);
  spec.target_ttft_ms = target(keys, "target_ttft_ms");
  spec.target_itl_ms = target(keys, "target_itl_ms");
  if (keys.integer("seed", 0, INT64_MAX, n)) {
    spec.seed = static_cast<std::uint64_t>(n);
    spec.seed_given = true;
  }
  if (auto fine = keys.finish("a run"); !fine) return std::move(fine).error();
  if (spec.prompt.size() > kPromptBytes || spec.system.size() > kPromptBytes)
    return Error{ErrorClass::too_large, fmt::format("A prompt may have {} KiB.", kPromptBytes / KiB)};
  // As a job it would be refused for this as well; here before any machine is looked at.
  pb::JobSpec job;
  job.set_engine(std::string(name(spec.kind)));
  fill_engine(spec, {}, job);
  if (auto fine = check_ai_engine(job); !fine) return std::move(fine).error();
  return spec;
}

json::object write_run(const RunSpec& spec) {
  json::object out{{"kind", name(spec.kind)}};
  const char* model = spec.kind == RunKind::llm ? "model" : spec.kind == RunKind::image ? "checkpoint" : "algorithm";
  if (!spec.model.empty()) out[model] = spec.model;
  if (!spec.prompt.empty()) out["prompt"] = spec.prompt;
  if (!spec.system.empty()) out["system"] = spec.system;
  if (!spec.service.empty()) out["service"] = spec.service;
  static constexpr std::string_view kLlmKeys[] = {"max_tokens", "num_ctx", "temperature", "top_p"};
  json::object options;
  for (const auto& [key, value] : spec.settings) {
    const bool known = spec.kind != RunKind::llm ||
                       std::find(std::begin(kLlmKeys), std::end(kLlmKeys), std::string_view(key)) != std::end(kLlmKeys);
    (known ? out : options)[key] = value;
  }
  if (!options.empty()) out["options"] = std::move(options);
  if (!spec.workflow.empty()) out["workflow"] = spec.workflow;
  if (!spec.workers.empty()) {
    json::array list;
    for (const std::string& one : spec.workers) list.emplace_back(one);
    out["workers"] = std::move(list);
  }
  out["repeats"] = spec.repeats;
  out["warmup"] = spec.warmup;
  json::array sweep;
  for (const std::uint32_t c : spec.concurrency) sweep.emplace_back(c);
  out["concurrency"] = std::move(sweep);
  if (spec.timeout.count() > 0) out["timeout"] = static_cast<double>(spec.timeout.count()) / 1000;
  if (spec.cache) out["cache"] = true;
  if (spec.force) out["force"] = true;
  if (spec.allow_mock) out["allow_mock"] = true;
  if (spec.target_ttft_ms) out["target_ttft_ms"] = *spec.target_ttft_ms;
  if (spec.target_itl_ms) out["target_itl_ms"] = *spec.target_itl_ms;
  if (spec.seed_given) out["seed"] = spec.seed;
  return out;
}

std::string digest_of(const RunSpec& spec) {
  json::object all = write_run(spec);
  for (const char* key :
       {"workers", "repeats", "warmup", "timeout", "force", "allow_mock", "target_ttft_ms", "target_itl_ms", "seed"})
    all.erase(key);
  std::vector<std::string> parts;
  for (const auto& [key, value] : all) parts.push_back(std::string(key) + "=" + json::serialize(value));
  std::sort(parts.begin(), parts.end());
  std::string text;
  for (const std::string& part : parts) text += part + "\n";
  return store::sha256_hex(text);
}

std::vector<SubmitInput> jobs_of(const RunSpec& spec, const std::string& run_id, const std::string& user,
                                 std::size_t machine, const RunMachine& on) {
  std::vector<SubmitInput> out;
  std::uint64_t seed = spec.seed;
  const std::vector<Phase> phases = spec.phases();
  std::string before;
  for (std::size_t k = 0; k < phases.size(); ++k) {
    SubmitInput input;
    pb::JobSpec& job = input.spec;
    job.set_name(fmt::format("race {} machine {} phase {}", run_id, machine, k));
    job.set_key(fmt::format("run:{}:{}:{}", run_id, machine, k));
    job.set_engine(std::string(name(spec.kind)));
    job.set_user(user);
    job.set_count(phases[k].tasks);
    job.set_max_running(phases[k].concurrency);
    job.set_time_limit_ms(static_cast<std::uint32_t>(std::min<std::int64_t>(spec.limit().count(), UINT32_MAX)));
    (*job.mutable_labels())["grange.run"] = run_id;
    if (on.forced) (*job.mutable_labels())["grange.forced"] = "yes";
    pb::Requirements& needs = *job.mutable_requirements();
    (*needs.mutable_labels())["grange.worker"] = on.id;
    // A language model and a picture are the service's work; a sieve is the task's own.
    needs.set_cpus_milli(spec.kind == RunKind::compute ? on.cores * 1000 : 10);
    // What fails is a result of the race, not something to try again.
    job.mutable_retry()->set_max_attempts(1);
    job.mutable_retry()->set_crash_limit(1);
    // But a request that never met its service, or lost it, is none: without this, a service that restarts would cost
    // the machine all of its repeats within a second.
    if (spec.kind != RunKind::compute && !spec.allow_mock) {
      for (const char* none : {"unreachable", "loading"}) {
        pb::RetryRule& rule = *job.mutable_retry()->add_rules();
        rule.set_failure(pb::FAILURE_ENGINE);
        rule.set_exception(none);
        rule.set_max_attempts(kUnservedTries);
        rule.set_base_ms(kUnservedPauseMs);
        rule.set_cap_ms(4 * kUnservedPauseMs);
      }
    }
    fill_engine(spec, on, job);
    if (!before.empty()) {
      pb::DependsOn& after = *job.add_depends_on();
      after.set_job_id(before);
      job.set_when(pb::DEPENDS_ALL_FINISHED);
    }
    before = job.name();
    // A picture that was painted before comes from a cache: no seed is used twice, not by a warm-up either.
    input.pages = make_pages(arguments(spec, phases[k].tasks, phases[k].warmup ? seed + kWarmupSeeds : seed));
    if (!phases[k].warmup) seed += phases[k].tasks;
    out.push_back(std::move(input));
  }
  return out;
}

}  // namespace grange::server
