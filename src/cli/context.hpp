// What every command gets: the global options, and how to add itself to the program.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace grange::cli {

inline constexpr const char* kDefaultUrl = "http://127.0.0.1:8000";

struct Context {
  std::string url;         // --url, GRANGE_URL, or the default; no slash at the end
  bool url_given = false;  // by option
  std::string token_file;
  bool json = false;
  std::vector<std::string> command;  // what stands after `grange run`
  std::function<int()> action;       // set by the command that was chosen

  void settle();              // after parsing: fills url from the environment
  std::string token() const;  // --token-file, else GRANGE_TOKEN, else empty; throws Exit when the file cannot be read
};

// Each of these stands in the file of its command.
void add_up(CLI::App& app, Context& context);
void add_server(CLI::App& app, Context& context);
void add_worker(CLI::App& app, Context& context);
void add_run(CLI::App& app, Context& context);
void add_submit(CLI::App& app, Context& context);
void add_jobs(CLI::App& app, Context& context);
void add_wait(CLI::App& app, Context& context);
void add_logs(CLI::App& app, Context& context);
void add_results(CLI::App& app, Context& context);
void add_cancel(CLI::App& app, Context& context);
void add_retry(CLI::App& app, Context& context);
void add_explain(CLI::App& app, Context& context);
void add_plan(CLI::App& app, Context& context);
void add_pause(CLI::App& app, Context& context);
void add_resume(CLI::App& app, Context& context);
void add_add(CLI::App& app, Context& context);
void add_close(CLI::App& app, Context& context);
void add_graph(CLI::App& app, Context& context);
void add_users(CLI::App& app, Context& context);
void add_tokens(CLI::App& app, Context& context);
void add_schedules(CLI::App& app, Context& context);
void add_dead(CLI::App& app, Context& context);
void add_race(CLI::App& app, Context& context);
void add_runs(CLI::App& app, Context& context);
void add_policy(CLI::App& app, Context& context);
void add_alerts(CLI::App& app, Context& context);
void add_usage(CLI::App& app, Context& context);
void add_tasks(CLI::App& app, Context& context);
void add_top(CLI::App& app, Context& context);
void add_workers(CLI::App& app, Context& context);
void add_models(CLI::App& app, Context& context);
void add_services(CLI::App& app, Context& context);
void add_db(CLI::App& app, Context& context);
void add_bench(CLI::App& app, Context& context);
void add_version(CLI::App& app, Context& context);

}  // namespace grange::cli
