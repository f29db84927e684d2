#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <filesystem>
#include <fstream>

#include "cli/exit.hpp"
#include "cli/follow.hpp"
#include "cli/job_file.hpp"
#include "cli/jobs.hpp"
#include "cli/term.hpp"
#include "cli/why_failed.hpp"

namespace grange::cli {

void each_result(Rest& rest, const std::string& id, const std::function<void(const json::value&)>& each) {
  std::int64_t after = -1;
  while (true) {
    std::string path = fmt::format("/api/jobs/{}/results?limit=1000", escape(id));
    if (after >= 0) path += fmt::format("&after={}", after);
    const json::array page = list(rest.get(path));
    for (const json::value& result : page) {
      each(result);
      after = std::max(after, num(result, "index", after));
    }
    if (page.empty()) return;
  }
}

namespace {

std::string bytes_of(Rest& rest, const json::value& result) {
  const std::string sha = str(result, "value_sha256");
  if (!sha.empty()) return rest.blob(sha);
  const std::string base64 = str(result, "value_base64");
  if (!base64.empty()) return base64_decode(base64);
  const json::value* value = field(result, "value");
  if (value == nullptr || value->is_null()) return "";
  if (value->is_string() && str(result, "encoding") != "json") return std::string(value->get_string());
  return to_json(*value) + "\n";
}

// DIR/path for a job of one task, DIR/INDEX/path for an array; a value that is a blob, or Python's, goes to
// DIR[/INDEX]/value.
std::size_t store(Rest& rest, const json::value& result, const std::filesystem::path& folder) {
  std::size_t stored = download_files(rest, result, folder);
  const bool bytes = !str(result, "value_sha256").empty() || !str(result, "value_base64").empty();
  if (bytes) {
    make_folder(folder);
    const std::filesystem::path target = folder / "value";
    if (!str(result, "value_sha256").empty()) {
      rest.download(str(result, "value_sha256"), target.string());
    } else {
      std::ofstream(target, std::ios::binary) << bytes_of(rest, result);
    }
    ++stored;
  }
  return stored;
}

struct Shown {
  std::size_t stored = 0, failed = 0;
  std::string first;  // that failed: which task, and why
};

void show_one(Context& context, Rest& rest, const std::string& job, const json::value& result,
              const std::filesystem::path& folder, Shown& shown) {
  const std::string status = str(result, "status");
  if (status == "failed" || status == "cancelled") ++shown.failed;
  if (status == "failed" && shown.first.empty())
    shown.first = fmt::format("task {}/{}: {}", printable(job), num(result, "index"), failure_words(result));
  if (!folder.empty()) shown.stored += store(rest, result, folder);
  if (context.json) {
    print_json(result);
  } else if (folder.empty() && status == "completed") {
    if (!str(result, "value_base64").empty() && is_tty(STDOUT_FILENO)) {
      fmt::print("[{}] a Python value; read it with grange.connect(), or store it with --out DIR\n",
                 num(result, "index"));
      return;
    }
    std::fflush(stdout);
    write_all(STDOUT_FILENO, bytes_of(rest, result));
  }
}

int show_results(Context& context, const std::string& name, const std::string& out) {
  const TaskRef ref = take(parse_task(name));
  Rest rest(context);
  const json::value job = get_job(rest, ref.job);
  const bool array = num(job, "total_tasks") > 1;
  Shown shown;
  const auto folder_of = [&](const json::value& result) {
    if (out.empty() || !array) return std::filesystem::path(out);
    return std::filesystem::path(out) / std::to_string(num(result, "index"));
  };
  std::int64_t waiting = 0;
  json::value only = nullptr;
  if (ref.index) {
    const json::value task = get_task(rest, ref);
    std::string path = fmt::format("/api/jobs/{}/results?limit=1", escape(ref.job));
    if (*ref.index > 0) path += fmt::format("&after={}", *ref.index - 1);
    for (const json::value& result : list(rest.get(path))) {
      if (num(result, "index", -1) == *ref.index) only = result;
    }
    if (only.is_null()) {
      throw Exit{kFailed,
                 str(task, "status") == "cancelled"
                     ? fmt::format("Task {} was cancelled; it has no result.", name)
                     : fmt::format("Task {} has not ended yet; wait for its job with: grange wait {}", name, ref.job)};
    }
    show_one(context, rest, ref.job, only, folder_of(only), shown);
  } else {
    each_result(rest, ref.job,
                [&](const json::value& result) { show_one(context, rest, ref.job, result, folder_of(result), shown); });
    if (!job_ended(job)) waiting = num(job, "pending_tasks") + num(job, "assigned_tasks") + num(job, "running_tasks");
  }
  std::fflush(stdout);
  if (!out.empty() && !context.json)
    fmt::print("{} file{} stored in {}\n", shown.stored, shown.stored == 1 ? "" : "s", out);
  std::fflush(stdout);
  if (ref.index && shown.failed > 0) {
    const std::string status = str(only, "status");
    throw Exit{kFailed, fmt::format("Task {} has no result: {}{}. See `grange logs {}`.", name, status,
                                    status == "failed" ? ": " + failure_words(only) : "", name)};
  }
  if (waiting > 0) {
    throw Exit{kFailed, fmt::format("{} task{} not ended yet; wait for them with: grange wait {}", waiting,
                                    waiting == 1 ? " has" : "s have", ref.job)};
  }
  if (shown.failed > 0) {
    if (shown.first.empty())
      throw Exit{kFailed, fmt::format("{} of {} tasks have no result: they were cancelled; see `grange jobs show {}`.",
                                      shown.failed, num(job, "total_tasks"), ref.job)};
    throw Exit{kFailed, fmt::format("{} of {} tasks have no result; {}{}. See `grange tasks ls {} --status failed`.",
                                    shown.failed, num(job, "total_tasks"), shown.failed == 1 ? "" : "the first is ",
                                    shown.first, ref.job)};
  }
  return kOk;
}

}  // namespace

void add_results(CLI::App& app, Context& context) {
  CLI::App* sub =
      app.add_subcommand("results",
                         "Print a job's results in the order of its tasks, or store its files; 1 when one is missing")
          ->fallthrough();
  sub->footer("Example:\n  grange results 7 --out results/");
  struct ResultsOptions {
    std::string id, out;
  };
  auto options = std::make_shared<ResultsOptions>();
  sub->add_option("ID", options->id, "A job (7) or one of its tasks (7/3)")->required();
  sub->add_option("-o,--out", options->out, "Store files and large values here, a folder for each task of an array")
      ->type_name("DIR");
  sub->callback([&context, options] {
    context.action = [&context, options] { return show_results(context, options->id, options->out); };
  });
}

}  // namespace grange::cli
