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

void make_folder(const std::filesystem::path& folder) {
  std::error_code ec;
  std::filesystem::create_directories(folder, ec);
  if (ec) throw Exit{kFailed, fmt::format("The folder {} cannot be created: {}.", folder.string(), ec.message())};
}

std::string bytes_of(Rest& rest, const json::value& result) {
  const std::string sha = str(result, "value_sha256");
  if (!sha.empty()) return rest.blob(sha);
  const std::string base64 = str(result, "value_base64");
  if (!base64.empty()) return base64_decode(base64);
  const json::value* value = field(result, "value");
  if (value == nullptr || value->is_null()) return "";
  if (value->is_string() && str(result, "encoding") != "json") return std::string(value->get_string());
  return json::serialize(*value) + "\n";
}

// DIR/path for a job of one task, DIR/INDEX/path for an array; a value that is a blob, or Python's, goes to
// DIR[/INDEX]/value.
std::size_t store(Rest& rest, const json::value& result, const std::filesystem::path& folder) {
  std::size_t stored = 0;
  if (const json::value* files = field(result, "files"); files != nullptr && files->is_array()) {
    for (const json::value& file : files->get_array()) {
      const std::string path = str(file, "path");
      if (!safe_path(path))
        throw Exit{
            kFailed,
            fmt::format("The server names a file \"{}\" that leads out of the folder; it was not stored.", path)};
      const std::filesystem::path target = folder / path;
      make_folder(target.parent_path());
      rest.download(str(file, "sha256"), target.string());
      ++stored;
    }
  }
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

int show(Context& context, const std::string& id, const std::string& out) {
  Rest rest(context);
  const json::value job = get_job(rest, id);
  const bool array = num(job, "total_tasks") > 1;
  std::size_t stored = 0, failed = 0, waiting = 0;
  each_result(rest, id, [&](const json::value& result) {
    const std::string status = str(result, "status");
    if (status == "failed" || status == "cancelled") ++failed;
    if (!out.empty()) {
      const auto index = std::to_string(num(result, "index"));
      stored += store(rest, result, array ? std::filesystem::path(out) / index : std::filesystem::path(out));
    }
    if (context.json) {
      print_json(result);
    } else if (out.empty() && status == "completed") {
      if (!str(result, "value_base64").empty() && is_tty(STDOUT_FILENO)) {
        fmt::print("[{}] a Python value; read it with grange.connect(), or store it with --out DIR\n",
                   num(result, "index"));
        return;
      }
      std::fflush(stdout);
      write_all(STDOUT_FILENO, bytes_of(rest, result));
    }
  });
  std::fflush(stdout);
  if (!job_ended(job)) waiting = static_cast<std::size_t>(num(job, "pending_tasks") + num(job, "running_tasks"));
  if (!out.empty() && !context.json) fmt::print("{} file{} stored in {}\n", stored, stored == 1 ? "" : "s", out);
  if (waiting > 0)
    fmt::print(stderr, "grange: {} tasks have not ended yet; wait for them with: grange wait {}\n", waiting, id);
  if (failed > 0) {
    throw Exit{kFailed,
               fmt::format("{} of {} tasks have no result: they failed or were cancelled; see `grange jobs show {}`.",
                           failed, num(job, "total_tasks"), id)};
  }
  return kOk;
}

}  // namespace

void add_results(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand("results", "Print a job's results in the order of its tasks, or store its files")
                      ->fallthrough();
  sub->footer("Example:\n  grange results 7 --out results/");
  struct Options {
    std::string id, out;
  };
  auto options = std::make_shared<Options>();
  sub->add_option("ID", options->id, "The job's id")->required();
  sub->add_option("-o,--out", options->out, "Store files and large values here, a folder for each task of an array")
      ->type_name("DIR");
  sub->callback([&context, options] {
    context.action = [&context, options] { return show(context, options->id, options->out); };
  });
}

}  // namespace grange::cli
