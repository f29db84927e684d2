#include "cli/job_input.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

#include "cli/checks.hpp"
#include "cli/exit.hpp"
#include "cli/jobs.hpp"
#include "cli/parse.hpp"
#include "cli/suggest.hpp"

namespace grange::cli {
namespace {

const std::vector<std::string> kTriedAgain = {"worker_lost", "out_of_memory", "time_limit", "exit_code",
                                              "exception",   "engine_error",  "refused"};

json::value seconds(const std::string& text) {
  return static_cast<double>(take(parse_duration(text)).count()) / 1000;
}

void exclude(const json::object& job, const std::string& a, const std::string& b) {
  if (job.contains(a) && job.contains(b)) throw Exit{kUsage, fmt::format("A job takes {} or {}, not both.", a, b)};
}

// `--after 7`, `--after 7/3`, `--after prep`: beside what the file waits for.
void add_after(json::object& job, const std::vector<std::string>& names) {
  if (names.empty()) return;
  json::value& after = job["after"];
  if (!after.is_array()) after = after.is_null() ? json::array{} : json::array{after};
  for (const std::string& name : names) {
    const TaskRef ref = take(parse_task(name));
    if (ref.index) {
      after.get_array().push_back(json::object{{"job", ref.job}, {"index", *ref.index}});
    } else {
      after.get_array().emplace_back(ref.job);
    }
  }
}

void add_rules(json::object& job, const std::vector<std::string>& rules) {
  if (rules.empty()) return;
  json::value& retry = job["retry"];
  if (!retry.is_object()) retry = json::object{};
  // Before those of the file: the first that matches decides.
  json::array all;
  for (const std::string& rule : rules) all.push_back(take(parse_retry_on(rule)));
  if (const json::value* old = retry.get_object().if_contains("rules"); old != nullptr && old->is_array())
    all.insert(all.end(), old->get_array().begin(), old->get_array().end());
  retry.get_object()["rules"] = std::move(all);
}

}  // namespace

Result<json::object> parse_retry_on(std::string_view text) {
  const Error bad{ErrorClass::invalid_argument,
                  fmt::format("\"{}\" is not a rule; write CLASS=RETRIES, such as out_of_memory=0, or "
                              "exception:ValueError=5.",
                              text)};
  const std::size_t at = text.rfind('=');
  if (at == std::string_view::npos || at == 0) return bad;
  const std::string_view count = text.substr(at + 1);
  unsigned retries = 0;
  const auto [end, error] = std::from_chars(count.data(), count.data() + count.size(), retries);
  if (count.empty() || error != std::errc{} || end != count.data() + count.size() || retries > 99) return bad;
  const std::string_view what = text.substr(0, at);
  const std::size_t colon = what.find(':');
  const std::string on(what.substr(0, colon));
  if (std::find(kTriedAgain.begin(), kTriedAgain.end(), on) == kTriedAgain.end()) {
    const std::string near = nearest(on, kTriedAgain);
    return Error{ErrorClass::invalid_argument,
                 fmt::format("There is no class of failure \"{}\"; {}", on,
                             near.empty() ? fmt::format("there are {}.", fmt::join(kTriedAgain, ", "))
                                          : fmt::format("did you mean {}?", near))};
  }
  json::object rule{{"on", on}, {"max_attempts", retries + 1}};
  if (colon != std::string_view::npos) {
    if (on != "exception" || colon + 1 == what.size()) return bad;
    rule["type"] = std::string(what.substr(colon + 1));
  }
  return rule;
}

std::shared_ptr<JobFlags> add_job_flags(CLI::App& sub) {
  auto flags = std::make_shared<JobFlags>();
  sub.add_option("--count", flags->count, "Number of tasks")
      ->transform(whole_number())
      ->check(between(std::int64_t{1}, std::int64_t{10'000'000}))
      ->type_name("N");
  sub.add_option("--name", flags->name, "A name for people");
  sub.add_option("--user", flags->user, "Whose it is, for shares and limits")->type_name("NAME");
  CLI::Option* priority = sub.add_option("--priority", flags->priority, "-1000 to 1000, higher first")
                              ->check(between(-1000, 1000))
                              ->type_name("N");
  priority->each([flags](const std::string&) { flags->has_priority = true; });
  sub.add_option("--retries", flags->retries, "Tries after the first")
      ->check(between(std::int64_t{0}, std::int64_t{99}))
      ->type_name("N");
  sub.add_option("--retry-on", flags->retry_on,
                 "CLASS=RETRIES, such as out_of_memory=0 or exception:ValueError=5, any number of times")
      ->type_name("RULE")
      ->allow_extra_args(false);
  sub.add_option("--timeout", flags->timeout, "Time limit of one task")->type_name("DURATION");
  sub.add_option("--cpus", flags->cpus, "Cores of one task")->check(above_zero())->type_name("N");
  sub.add_option("--memory", flags->memory, "Memory of one task, such as 2GiB")->type_name("SIZE");
  sub.add_option("--gpus", flags->gpus, "GPUs of one task, or a part of one")->check(not_negative())->type_name("N");
  sub.add_option("--gpu-memory", flags->gpu_memory, "Memory of each of its GPUs")->type_name("SIZE");
  sub.add_option("--pool", flags->pool, "Only workers of this pool")->type_name("NAME");
  sub.add_option("--nodes", flags->nodes, "Each task runs on so many workers at once, or not at all")
      ->check(between(std::int64_t{1}, std::int64_t{1024}))
      ->type_name("N");
  sub.add_option("--after", flags->after, "Wait for this job (7) or task (7/3), any number of times")
      ->type_name("ID")
      ->allow_extra_args(false);
  sub.add_option("--when", flags->when, "all_succeeded (default), all_finished or any_succeeded of --after")
      ->check(CLI::IsMember({"all_succeeded", "all_finished", "any_succeeded"}));
  sub.add_option("--start-in", flags->start_in, "Not before this long from now")->type_name("DURATION");
  sub.add_option("--not-before", flags->not_before, "Not before this time, such as 2026-12-01T08:00:00Z")
      ->type_name("TIME");
  sub.add_option("--finish-in", flags->finish_in, "What has not ended this long from now fails")->type_name("DURATION");
  sub.add_option("--deadline", flags->deadline, "The same as a time")->type_name("TIME");
  sub.add_option("--max-running", flags->max_running, "At most so many of its tasks at once")
      ->check(between(std::int64_t{0}, std::int64_t{10'000'000}))
      ->type_name("N");
  sub.add_option("--weight", flags->weight, "Its share among the user's jobs (default 1)")
      ->check(above_zero())
      ->type_name("N");
  sub.add_flag("--speculate", flags->speculate, "A second attempt for a task that is far slower than its siblings");
  sub.add_flag("--open", flags->open, "Tasks can be added with `grange add` until `grange close`");
  sub.add_option("-e,--env", flags->env, "NAME=VALUE, any number of times")->type_name("K=V")->allow_extra_args(false);
  sub.add_option("--key", flags->key, "Idempotency key: a second submit with it answers with the first job");
  sub.add_option("--unique", flags->unique, "While a job with this word has not ended, answer with that one")
      ->type_name("WORD");
  return flags;
}

void apply(const JobFlags& flags, json::object& job) {
  const auto text = [&](const char* key, const std::string& value) {
    if (!value.empty()) job[key] = value;
  };
  const auto number = [&](const char* key, auto value) {
    if (value >= 0) job[key] = value;
  };
  number("count", flags.count);
  number("retries", flags.retries);
  number("cpus", flags.cpus);
  number("gpus", flags.gpus);
  number("nodes", flags.nodes);
  number("max_running", flags.max_running);
  number("weight", flags.weight);
  if (flags.has_priority) job["priority"] = flags.priority;
  text("name", flags.name);
  text("key", flags.key);
  text("user", flags.user);
  text("pool", flags.pool);
  text("when", flags.when);
  text("unique", flags.unique);
  text("not_before", flags.not_before);
  text("deadline", flags.deadline);
  if (!flags.timeout.empty()) job["timeout"] = seconds(flags.timeout);
  if (!flags.start_in.empty()) job["start_in"] = seconds(flags.start_in);
  if (!flags.finish_in.empty()) job["finish_in"] = seconds(flags.finish_in);
  exclude(job, "start_in", "not_before");
  exclude(job, "finish_in", "deadline");
  if (!flags.memory.empty()) job["memory"] = take(parse_memory(flags.memory));
  if (!flags.gpu_memory.empty()) job["gpu_memory"] = take(parse_memory(flags.gpu_memory));
  if (flags.speculate && !job.contains("speculate")) job["speculate"] = true;
  if (flags.open) job["open"] = true;
  add_after(job, flags.after);
  add_rules(job, flags.retry_on);
  if (!flags.env.empty()) {
    json::value& env = job["env"];
    if (!env.is_object()) env = json::object{};
    for (const std::string& setting : flags.env) {
      const auto [key, value] = take(parse_setting(setting));
      env.get_object()[key] = value;
    }
  }
}

std::string read_text(const std::string& file) {
  std::ostringstream text;
  if (file == "-") {
    text << std::cin.rdbuf();
    return text.str();
  }
  std::error_code ec;
  if (std::filesystem::is_directory(file, ec))
    throw Exit{kUsage, fmt::format("{} is a folder; name a job file in TOML or JSON.", file)};
  std::ifstream in(file, std::ios::binary);
  if (!in) {
    throw Exit{kUsage, fmt::format("The job file {} cannot be read: {}. Name a TOML or JSON file, or - for stdin.",
                                   file, std::strerror(errno))};
  }
  text << in.rdbuf();
  return text.str();
}

std::string folder_of(const std::string& file) {
  return file == "-" ? "" : std::filesystem::path(file).parent_path().string();
}

void settle_job(json::object& job, const std::string& folder) {
  take(check_keys(job));
  take(read_args_file(job, folder));
}

json::object read_job(const std::string& file) {
  json::object job = take(parse_job(read_text(file), file));
  settle_job(job, folder_of(file));
  return job;
}

void upload_job(Rest& rest, json::object& job, const std::string& folder) {
  upload_files(rest, job, take(files_in(job, folder)));
}

}  // namespace grange::cli
