// What a job asks of a worker, and how often it is tried.
#include "base/limits.hpp"
#include "server/api/job_keys.hpp"

namespace grange::server {
namespace {

// Those an attempt can fail with and be tried again.
constexpr core::FailureClass kTriedAgain[] = {core::FailureClass::worker_lost, core::FailureClass::out_of_memory,
                                              core::FailureClass::time_limit,  core::FailureClass::exit_code,
                                              core::FailureClass::exception,   core::FailureClass::engine,
                                              core::FailureClass::refused};

// What a job has and a requirement is not.
constexpr std::string_view kOfJobs[] = {
    "name",    "engine",    "id",         "key",      "user",        "command",   "script",     "env",
    "stdin",   "files_in",  "files_out",  "builtin",  "python",      "model",     "encoding",   "priority",
    "timeout", "fail_fast", "count",      "args",     "args_file",   "retries",   "retry",      "any_of",
    "after",   "when",      "not_before", "start_in", "deadline",    "finish_in", "result_ttl", "grace",
    "stages",  "speculate", "unique",     "nodes",    "max_running", "weight",    "open"};

void read_labels(Keys& keys, pb::Requirements& needs) {
  const json::object* labels = keys.object("labels");
  if (labels == nullptr) return;
  needs.mutable_labels()->clear();
  needs.mutable_not_labels()->clear();
  if (!keys.strings(*labels, "labels", *needs.mutable_labels(), "not")) return;
  const json::value* unwanted = labels->if_contains("not");
  if (unwanted == nullptr) return;
  if (!unwanted->is_object()) {
    keys.wrong("labels.not", "must be a table of the labels that a worker must not have");
    return;
  }
  keys.strings(unwanted->get_object(), "labels.not", *needs.mutable_not_labels());
}

template <class Out>
void read_backoff(Keys& keys, Out& out) {
  std::uint64_t ms = 0;
  if (keys.duration("base_seconds", ms))
    out.set_base_ms(static_cast<std::uint32_t>(std::min<std::uint64_t>(ms, UINT32_MAX)));
  if (keys.duration("cap_seconds", ms))
    out.set_cap_ms(static_cast<std::uint32_t>(std::min<std::uint64_t>(ms, UINT32_MAX)));
}

void read_rule(Keys& keys, pb::RetryRule& rule) {
  std::string on;
  std::int64_t number = 0;
  if (!keys.text("on", on)) {
    keys.wrong("on", "is missing: the class of failure that the rule is for");
  } else if (const auto failure = read_failure_class(on);
             failure && std::find(std::begin(kTriedAgain), std::end(kTriedAgain), *failure) != std::end(kTriedAgain)) {
    rule.set_failure(static_cast<pb::FailureClass>(*failure));
  } else {
    std::string list;
    for (const core::FailureClass one : kTriedAgain) list += (list.empty() ? "" : ", ") + std::string(core::name(one));
    keys.wrong("on", "must be one of " + list);
  }
  keys.text("type", *rule.mutable_exception());
  rule.set_max_attempts(1);
  if (keys.integer("max_attempts", 1, limits::kMaxAttempts, number))
    rule.set_max_attempts(static_cast<std::uint32_t>(number));
  read_backoff(keys, rule);
}

}  // namespace

std::optional<core::FailureClass> read_failure_class(std::string_view text) {
  if (text == "engine_error") return core::FailureClass::engine;
  for (int n = 1; n <= static_cast<int>(core::FailureClass::dependency); ++n) {
    if (core::name(static_cast<core::FailureClass>(n)) == text) return static_cast<core::FailureClass>(n);
  }
  return std::nullopt;
}

void read_requirements(Keys& keys, pb::Requirements& needs) {
  std::uint64_t number = 0;
  if (keys.number("cpus", 1000, 4096, number)) needs.set_cpus_milli(static_cast<std::uint32_t>(number));
  if (keys.number("gpus", 1000, 1024, number)) needs.set_gpus_milli(static_cast<std::uint32_t>(number));
  if (keys.bytes("memory", number)) needs.set_memory_bytes(number);
  if (keys.bytes("disk", number)) needs.set_disk_bytes(number);
  if (keys.bytes("gpu_memory", number)) needs.set_gpu_memory_bytes(number);
  if (keys.duration("min_life", number)) needs.set_min_life_ms(number);
  keys.text("needs_model", *needs.mutable_model());
  std::int64_t tokens = 0;
  if (keys.integer("context", 0, UINT32_MAX, tokens)) needs.set_context(static_cast<std::uint32_t>(tokens));
  keys.text("pool", *needs.mutable_pool());
  read_labels(keys, needs);
}

void read_alternatives(Keys& keys, pb::JobSpec& spec) {
  const json::array* list = keys.list("any_of");
  if (list == nullptr) return;
  if (list->empty()) {
    keys.wrong("any_of", "is empty: it takes one or more tables of requirements");
    return;
  }
  if (list->size() > limits::kAlternatives + 1) {
    keys.wrong("any_of", fmt::format("may have {} entries", limits::kAlternatives + 1));
    return;
  }
  // The first is what the job asks for; the others are tried after it.
  const pb::Requirements common = spec.requirements();
  bool first = true;
  for (const json::value& one : *list) {
    if (!one.is_object()) {
      keys.wrong("any_of", "must hold tables of requirements, such as {cpus = 4, gpus = 1}");
      return;
    }
    pb::Requirements& needs = first ? *spec.mutable_requirements() : *spec.add_any_of();
    first = false;
    needs = common;
    Keys inner(one.get_object(), "any_of.");
    read_requirements(inner, needs);
    for (const auto& [key, value] : one.get_object()) {
      if (std::find(std::begin(kOfJobs), std::end(kOfJobs), std::string_view(key)) != std::end(kOfJobs))
        inner.wrong(key, "is a key of a job, but not a requirement");
    }
    if (auto result = inner.finish("an entry of any_of"); !result) {
      keys.fail(std::move(result).error());
      return;
    }
  }
}

void read_retry(Keys& keys, pb::JobSpec& spec) {
  std::int64_t number = 0;
  if (keys.integer("retries", 0, limits::kMaxAttempts - 1, number))
    spec.mutable_retry()->set_max_attempts(static_cast<std::uint32_t>(number) + 1);
  const json::object* retry = keys.object("retry");
  if (retry == nullptr) return;
  Keys inner(*retry, "retry.");
  const bool retries = spec.retry().max_attempts() != 0;
  if (inner.integer("max_attempts", 1, limits::kMaxAttempts, number)) {
    if (retries && spec.retry().max_attempts() != number)
      inner.wrong("max_attempts", "and \"retries\" contradict each other (retries is one less); leave one out");
    spec.mutable_retry()->set_max_attempts(static_cast<std::uint32_t>(number));
  }
  read_backoff(inner, *spec.mutable_retry());
  if (inner.integer("crash_limit", 1, limits::kMaxAttempts, number))
    spec.mutable_retry()->set_crash_limit(static_cast<std::uint32_t>(number));
  if (const json::array* rules = inner.list("rules"); rules != nullptr) {
    for (const json::value& one : *rules) {
      if (!one.is_object()) {
        inner.wrong("rules", "must hold tables, such as {on = \"exception\", type = \"ValueError\", max_attempts = 1}");
        break;
      }
      Keys of_rule(one.get_object(), "retry.rules.");
      read_rule(of_rule, *spec.mutable_retry()->add_rules());
      if (auto result = of_rule.finish(); !result) {
        keys.fail(std::move(result).error());
        return;
      }
    }
  }
  if (auto result = inner.finish(); !result) keys.fail(std::move(result).error());
}

// whole: all that an entry of any_of would otherwise take over from the job.
json::object write_requirements(const pb::Requirements& needs, bool whole) {
  json::object out;
  if (whole || needs.cpus_milli() != 0) out["cpus"] = needs.cpus_milli() / 1000.0;
  if (whole || needs.gpus_milli() != 0) out["gpus"] = needs.gpus_milli() / 1000.0;
  if (whole || needs.memory_bytes() != 0) out["memory"] = needs.memory_bytes();
  if (whole || needs.disk_bytes() != 0) out["disk"] = needs.disk_bytes();
  if (whole || needs.gpu_memory_bytes() != 0) out["gpu_memory"] = needs.gpu_memory_bytes();
  if (whole || needs.min_life_ms() != 0) out["min_life"] = in_seconds(needs.min_life_ms());
  if (whole || !needs.model().empty()) out["needs_model"] = needs.model();
  if (whole || needs.context() != 0) out["context"] = needs.context();
  if (whole || !needs.pool().empty()) out["pool"] = needs.pool();
  if (whole || needs.labels_size() > 0 || needs.not_labels_size() > 0) {
    json::object labels, unwanted;
    for (const auto& [key, value] : needs.labels()) labels[key] = value;
    for (const auto& [key, value] : needs.not_labels()) unwanted[key] = value;
    if (!unwanted.empty()) labels["not"] = std::move(unwanted);
    out["labels"] = std::move(labels);
  }
  return out;
}

void write_retry(const pb::Retry& retry, json::object& out) {
  json::object to;
  if (retry.max_attempts() != 0) to["max_attempts"] = retry.max_attempts();
  if (retry.base_ms() != 0) to["base_seconds"] = in_seconds(retry.base_ms());
  if (retry.cap_ms() != 0) to["cap_seconds"] = in_seconds(retry.cap_ms());
  if (retry.crash_limit() != 0) to["crash_limit"] = retry.crash_limit();
  if (retry.rules_size() > 0) {
    json::array rules;
    for (const pb::RetryRule& rule : retry.rules()) {
      json::object one{{"on", core::name(static_cast<core::FailureClass>(rule.failure()))}};
      if (!rule.exception().empty()) one["type"] = rule.exception();
      one["max_attempts"] = rule.max_attempts();
      if (rule.base_ms() != 0) one["base_seconds"] = in_seconds(rule.base_ms());
      if (rule.cap_ms() != 0) one["cap_seconds"] = in_seconds(rule.cap_ms());
      rules.push_back(std::move(one));
    }
    to["rules"] = std::move(rules);
  }
  if (!to.empty()) out["retry"] = std::move(to);
}

}  // namespace grange::server
