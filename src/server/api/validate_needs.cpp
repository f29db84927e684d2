// What a job may ask of workers, may wait for, and what the core is told of it.
#include <fmt/format.h>

#include <algorithm>

#include "base/limits.hpp"
#include "server/api/bad.hpp"
#include "server/api/validate.hpp"
#include "server/text.hpp"

namespace grange::server {
namespace {

constexpr Bytes kMostBytes = Bytes{1} << 60;
constexpr std::uint32_t kMostContext = 1u << 30;
constexpr std::uint64_t kMostLife = 10ull * 366 * 24 * 3600 * 1000;  // a life, a time to live: ten years

Result<> check_labels(const google::protobuf::Map<std::string, std::string>& labels, std::size_t others) {
  if (labels.size() + others > limits::kLabels)
    return bad(
        fmt::format("A job may ask for {} labels; this one does for {}.", limits::kLabels, labels.size() + others));
  for (const auto& [key, value] : labels) {
    if (!valid_name(key) || value.size() > limits::kNameBytes)
      return bad(
          fmt::format("A label's name and value may have at most {} bytes, and the name none that cannot be seen.",
                      limits::kNameBytes));
  }
  return {};
}

Result<> check_rule(const pb::RetryRule& rule) {
  const int failure = static_cast<int>(rule.failure());
  if (failure < 1 || failure >= static_cast<int>(core::kCountedClasses))
    return bad("A retry rule must name a class of failure that is tried again.");
  if (rule.max_attempts() < 1 || rule.max_attempts() > limits::kMaxAttempts)
    return bad(fmt::format("A retry rule's max_attempts must be from 1 to {}.", limits::kMaxAttempts));
  if (!rule.exception().empty() && rule.failure() != pb::FAILURE_EXCEPTION && rule.failure() != pb::FAILURE_ENGINE)
    return bad(
        "A retry rule's \"type\" belongs to \"exception\" or \"engine_error\", not to another class of failure.");
  if (!rule.exception().empty() && !valid_name(rule.exception()))
    return bad(
        fmt::format("A retry rule's \"type\" is the name of an exception, of at most {} bytes.", limits::kNameBytes));
  return {};
}

core::Request make_request(const pb::Requirements& needs, const std::string& engine) {
  core::Request out;
  out.cpus_milli = needs.cpus_milli() == 0 ? 1000 : needs.cpus_milli();
  out.gpus_milli = needs.gpus_milli();
  out.memory = needs.memory_bytes();
  out.disk = needs.disk_bytes();
  out.gpu_memory = needs.gpu_memory_bytes();
  out.engine = engine;
  out.model = needs.model();
  out.context = needs.model().empty() ? 0 : needs.context();
  out.pool = needs.pool();
  out.min_life = Millis{static_cast<std::int64_t>(needs.min_life_ms())};
  for (const auto& [key, value] : needs.labels()) out.labels.push_back({.key = key, .value = value});
  for (const auto& [key, value] : needs.not_labels())
    out.labels.push_back({.key = key, .value = value, .negate = true});
  std::sort(out.labels.begin(), out.labels.end());
  return out;
}

// What its speed is measured by.
std::string kind_of(const pb::JobSpec& spec) {
  return spec.engine() + ":" + cut_utf8(default_name(spec), 128);
}

}  // namespace

Result<> check_requirements(const pb::Requirements& needs) {
  if (needs.cpus_milli() > 4'096'000 || needs.gpus_milli() > 1'024'000)
    return bad("No machine has that many cores or GPUs.");
  if (needs.gpus_milli() > 1000 && needs.gpus_milli() % 1000 != 0) {
    return bad(fmt::format("gpus is {}; it must be a part of one GPU (below 1) or a whole number.",
                           static_cast<double>(needs.gpus_milli()) / 1000.0));
  }
  if (needs.gpu_memory_bytes() != 0 && needs.gpus_milli() == 0)
    return bad("gpu_memory is asked for on each GPU that a task gets, but the job asks for no GPU: add gpus.");
  if (needs.memory_bytes() > kMostBytes || needs.disk_bytes() > kMostBytes || needs.gpu_memory_bytes() > kMostBytes)
    return bad("No machine has that much memory or disk.");
  if (needs.min_life_ms() > kMostLife) return bad("min_life may be at most ten years.");
  if (!needs.model().empty() && !valid_name(needs.model()))
    return bad(fmt::format("needs_model may have at most {} bytes, and none that cannot be seen.", limits::kNameBytes));
  if (needs.context() != 0 && needs.model().empty())
    return bad("context is of the model that a worker must have: add needs_model.");
  if (needs.context() > kMostContext) return bad(fmt::format("context may be at most {} tokens.", kMostContext));
  if (!needs.pool().empty() && !valid_name(needs.pool()))
    return bad(fmt::format("pool may have at most {} bytes, and none that cannot be seen.", limits::kNameBytes));
  if (auto labels = check_labels(needs.labels(), static_cast<std::size_t>(needs.not_labels_size())); !labels)
    return labels;
  return check_labels(needs.not_labels(), 0);
}

Result<> check_times(const pb::JobSpec& spec) {
  constexpr std::uint64_t year_10000 = 253'402'300'800'000;
  if (spec.not_before_ms() >= year_10000 || spec.deadline_ms() >= year_10000)
    return bad("The times at which a job may start and must have ended lie before the year 10000.");
  if (spec.deadline_ms() != 0 && spec.deadline_ms() <= spec.not_before_ms())
    return bad(
        "The deadline is over before the job may start: deadline (or finish_in) must be later than not_before (or "
        "start_in).");
  return {};
}

Result<> check_order(const pb::JobSpec& spec) {
  if (static_cast<std::size_t>(spec.any_of_size()) > limits::kAlternatives)
    return bad(fmt::format("any_of may have {} entries.", limits::kAlternatives + 1));
  if (spec.nodes() > limits::kNodes) return bad(fmt::format("nodes may be at most {}.", limits::kNodes));
  if (spec.nodes() > 1 && spec.speculation().on())
    return bad("A task on several nodes gets no speculative attempt: leave \"speculate\" out.");
  if (spec.weight_milli() > 1'000'000) return bad("weight may be at most 1000.");
  if (spec.max_running() > limits::kTasksPerJob)
    return bad(fmt::format("max_running may be at most {}.", limits::kTasksPerJob));
  if (spec.speculation().factor_milli() != 0 &&
      (spec.speculation().factor_milli() < 1000 || spec.speculation().factor_milli() > 1'000'000))
    return bad("speculate.factor must be from 1 to 1000.");
  if (auto times = check_times(spec); !times) return times;
  if (spec.result_ttl_ms() > kMostLife || spec.unique_ms() > kMostLife)
    return bad("result_ttl and unique.for may be at most ten years.");
  if (!spec.unique().empty() && !valid_name(spec.unique()))
    return bad(fmt::format("unique may have at most {} bytes, and none that cannot be seen.", limits::kNameBytes));
  if (spec.unique().empty() && spec.unique_ms() != 0) return bad("unique.for needs unique.word.");
  if (static_cast<std::size_t>(spec.retry().rules_size()) > limits::kRetryRules)
    return bad(fmt::format("A job may have {} retry rules.", limits::kRetryRules));
  for (const pb::RetryRule& rule : spec.retry().rules()) {
    if (auto fine = check_rule(rule); !fine) return fine;
  }
  if (static_cast<std::size_t>(spec.depends_on_size()) > limits::kDependencies)
    return bad(fmt::format("A job may wait for {} others.", limits::kDependencies));
  if (!pb::DependsWhen_IsValid(spec.when()))
    return bad("\"when\" must be all_succeeded, all_finished or any_succeeded.");
  std::vector<std::pair<std::string_view, std::uint64_t>> seen;
  for (const pb::DependsOn& one : spec.depends_on()) {
    if (one.job_id().empty()) return bad("\"after\" has an entry that names no job.");
    if (one.one() && one.each())
      return bad(fmt::format("after \"{}\": \"index\" and \"each\" exclude each other.", cut_utf8(one.job_id(), 64)));
    seen.emplace_back(one.job_id(), one.one() ? one.index() : UINT64_MAX);
  }
  std::sort(seen.begin(), seen.end());
  if (const auto twice = std::adjacent_find(seen.begin(), seen.end()); twice != seen.end())
    return bad(fmt::format("\"after\" names \"{}\" twice.", twice->first.substr(0, 64)));
  return {};
}

core::JobHeader make_header(const pb::JobSpec& spec) {
  core::JobHeader header;
  header.count = spec.count();
  header.priority = spec.priority();
  header.fail_fast = spec.fail_fast();
  header.open = spec.open();
  header.user = spec.user();
  header.kind = kind_of(spec);
  if (spec.weight_milli() != 0) header.weight_milli = spec.weight_milli();
  header.max_running = spec.max_running();
  header.nodes = std::max(1u, spec.nodes());
  header.not_before = WallMs{static_cast<std::int64_t>(spec.not_before_ms())};
  header.deadline = WallMs{static_cast<std::int64_t>(spec.deadline_ms())};
  header.result_ttl = Millis{static_cast<std::int64_t>(spec.result_ttl_ms())};
  header.when = static_cast<core::When>(spec.when());
  bool inputs = false;
  for (const pb::DependsOn& one : spec.depends_on()) {
    header.after.push_back({.job = {one.job()},
                            .index = one.one() ? one.index() : core::Dependency::kAll,
                            .each = one.each(),
                            .pass = one.pass()});
    inputs = inputs || one.pass();
  }
  // Workers of the JSON dialect know nothing of inputs and gangs.
  const bool plain = !inputs && header.nodes == 1;
  const std::string engine = spec.engine() == "python" && spec.encoding() == pb::ENCODING_JSON && plain
                                 ? std::string(kPythonJson)
                                 : needed_engine(spec);
  header.request = make_request(spec.requirements(), engine);
  for (const pb::Requirements& one : spec.any_of()) header.alternatives.push_back(make_request(one, engine));
  const pb::Retry& retry = spec.retry();
  if (retry.max_attempts() != 0) header.retry.max_attempts = retry.max_attempts();
  if (retry.base_ms() != 0) header.retry.base = Millis{retry.base_ms()};
  if (retry.cap_ms() != 0) header.retry.cap = Millis{retry.cap_ms()};
  if (retry.crash_limit() != 0) header.retry.crash_limit = retry.crash_limit();
  for (const pb::RetryRule& rule : retry.rules()) {
    header.retry.rules.push_back({.failure = static_cast<core::FailureClass>(rule.failure()),
                                  .exception = rule.exception(),
                                  .max_attempts = rule.max_attempts(),
                                  .base = rule.base_ms() == 0 ? header.retry.base : Millis{rule.base_ms()},
                                  .cap = rule.cap_ms() == 0 ? header.retry.cap : Millis{rule.cap_ms()}});
  }
  header.speculation.on = spec.speculation().on();
  if (spec.speculation().factor_milli() != 0) header.speculation.factor_milli = spec.speculation().factor_milli();
  if (spec.speculation().min_done() != 0) header.speculation.min_done = spec.speculation().min_done();
  return header;
}

}  // namespace grange::server
