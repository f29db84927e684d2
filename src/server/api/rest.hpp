// REST: the routes' handlers. Each checks the form of its question, asks an operation or the store, and shows the
// answer.
#pragma once

#include <unordered_map>

#include "server/api/job_file.hpp"
#include "server/api/operations.hpp"
#include "server/api/routes.hpp"
#include "server/api/views.hpp"
#include "server/client_sessions.hpp"
#include "server/runs/run_book.hpp"
#include "server/schedules.hpp"
#include "server/task_output.hpp"

namespace grange::server {

struct RestCall {
  net::HttpExchangePtr exchange;
  Principal who;
  std::map<std::string, std::string> path;

  const net::HttpRequest& request() const { return exchange->request(); }
  std::string query(const std::string& name) const {
    const auto& all = exchange->request().query;
    const auto it = all.find(name);
    return it == all.end() ? std::string() : it->second;
  }
  void answer(int status, const boost::json::value& body, std::map<std::string, std::string> headers = {}) const;
  void answer_text(int status, std::string_view type, std::string body,
                   std::map<std::string, std::string> headers = {}) const;
  void fail(const Error& error) const;
  void wrong_method(const std::string& allow) const;
  // A whole number in [least, most]; absent: `fallback`. False: the call was answered with an error.
  bool number(const std::string& name, std::uint64_t least, std::uint64_t most, std::uint64_t fallback,
              std::uint64_t& out) const;
  // Seconds in [0, most], a fraction allowed; absent: 0. False: answered with an error.
  bool seconds(const std::string& name, Millis most, Millis& out) const;
  // The index that stands in the path. False: answered with an error.
  bool index(std::uint32_t& out) const;
  // The body as an object; none: an empty one.
  Result<boost::json::object> body() const;
  // Does the body hold nothing, as the route asks for nothing? False: answered with an error.
  bool no_keys(std::string_view of) const;
  // What an operation that counts something answers: {"key": n}, or why not.
  Done<std::uint32_t> count_as(std::string key) const;
  Done<Unit> just_ok() const;
};

SubmitInput to_input(JobFile file);

class Rest {
 public:
  Rest(Services& services, Operations& operations, Schedules& schedules, JobWatch& watch, TaskOutput& output,
       const ClientSessions& clients)
      : s_(services),
        operations_(operations),
        schedules_(schedules),
        watch_(watch),
        output_(output),
        clients_(clients) {}

  void handle(net::HttpExchangePtr exchange);
  // Asked before a body is read; handle() asks again, with the route's object.
  Result<> admit(const net::HttpRequest& head) const;
  static bool streams_body(const net::HttpRequest& head);
  // The body of a refusal that is answered before a handler is asked, in the dialect of its path; nullopt: the usual.
  static std::optional<std::string> refusal(const net::HttpRequest& head, const Error& why);
  void tick(Now now);  // keeps quiet streams open
  // Ends all that is being answered to a named token.
  void end(const std::string& token, const Error& why);

  // system
  void get_stats(RestCallPtr call);
  void get_health(RestCallPtr call);
  void get_ready(RestCallPtr call);
  void get_metrics(RestCallPtr call);
  void get_database(RestCallPtr call);
  void clear_database(RestCallPtr call);
  void get_policy(RestCallPtr call);
  void put_policy(RestCallPtr call);
  void get_events(RestCallPtr call);
  void get_page(RestCallPtr call);
  void get_moved_page(RestCallPtr call);
  void get_asset(RestCallPtr call);
  void get_docs(RestCallPtr call);
  void get_openapi(RestCallPtr call);
  // jobs
  void post_job(RestCallPtr call);
  void get_jobs(RestCallPtr call);
  void get_job(RestCallPtr call);
  void get_tasks(RestCallPtr call);
  void get_results(RestCallPtr call);
  void get_spec(RestCallPtr call);
  void cancel_job(RestCallPtr call);
  void cancel_task(RestCallPtr call);
  void retry_job(RestCallPtr call);
  void post_graph(RestCallPtr call);
  void post_plan(RestCallPtr call);
  void explain_job(RestCallPtr call);
  void explain_task(RestCallPtr call);
  void pause_job(RestCallPtr call);
  void resume_job(RestCallPtr call);
  void pause_task(RestCallPtr call);
  void resume_task(RestCallPtr call);
  void extend_job(RestCallPtr call);
  void close_job(RestCallPtr call);
  void get_dead(RestCallPtr call);
  void redrive(RestCallPtr call);
  void get_logs(RestCallPtr call);
  // queue, users, schedules
  void get_queue(RestCallPtr call);
  void pause_queue(RestCallPtr call);
  void resume_queue(RestCallPtr call);
  void get_policies(RestCallPtr call);
  void get_users(RestCallPtr call);
  void get_user(RestCallPtr call);
  void put_user(RestCallPtr call);
  void delete_user(RestCallPtr call);
  void get_schedules(RestCallPtr call);
  void get_schedule(RestCallPtr call);
  void put_schedule(RestCallPtr call);
  void delete_schedule(RestCallPtr call);
  void pause_schedule(RestCallPtr call);
  void resume_schedule(RestCallPtr call);
  void run_schedule(RestCallPtr call);
  // workers
  void get_workers(RestCallPtr call);
  void drain_worker(RestCallPtr call);
  void release_worker(RestCallPtr call);
  void pause_worker(RestCallPtr call);
  void resume_worker(RestCallPtr call);
  void forget_worker(RestCallPtr call);
  void get_failures(RestCallPtr call);
  // the dashboard's pages (server/overview/rest_overview.cpp)
  void get_overview(RestCallPtr call);
  void get_history(RestCallPtr call);
  void get_grid(RestCallPtr call);
  void get_worker(RestCallPtr call);
  void get_worker_history(RestCallPtr call);
  void get_join(RestCallPtr call);
  void get_settings(RestCallPtr call);
  void get_failure_stats(RestCallPtr call);
  // tokens (server/tokens/rest_tokens.cpp)
  void get_me(RestCallPtr call);
  void get_tokens(RestCallPtr call);
  void post_token(RestCallPtr call);
  void delete_token(RestCallPtr call);
  // alerts (server/alerts/rest_alerts.cpp)
  void get_alerts(RestCallPtr call);
  void get_alert_rules(RestCallPtr call);
  void put_alert_rule(RestCallPtr call);
  void delete_alert_rule(RestCallPtr call);
  void silence_alert(RestCallPtr call);
  // the gateway (server/gateway/routes.cpp)
  void get_usage(RestCallPtr call);
  void pass_on(RestCallPtr call);
  void list_v1_models(RestCallPtr call);
  void get_v1_model(RestCallPtr call);
  void get_ollama(RestCallPtr call);
  void get_ollama_tags(RestCallPtr call);
  void get_ollama_ps(RestCallPtr call);
  void get_ollama_version(RestCallPtr call);
  void get_gateway(RestCallPtr call);
  // models on machines (server/api/rest_machines.cpp)
  void get_machine_models(RestCallPtr call);
  void sync_models(RestCallPtr call);
  void sync_checkpoints(RestCallPtr call);
  void remove_model(RestCallPtr call);
  void reset_worker(RestCallPtr call);
  // services under care (server/api/rest_services.cpp)
  void start_service(RestCallPtr call);
  void stop_service(RestCallPtr call);
  void restart_service(RestCallPtr call);
  void get_service_log(RestCallPtr call);
  // races (server/runs/rest_runs.cpp)
  void post_run(RestCallPtr call);
  void preflight_run(RestCallPtr call);
  void get_runs(RestCallPtr call);
  void get_run(RestCallPtr call);
  void get_run_export(RestCallPtr call);
  void download_run(RestCallPtr call);
  void get_run_events(RestCallPtr call);
  void compare_run(RestCallPtr call);
  void cancel_run(RestCallPtr call);
  void delete_run(RestCallPtr call);
  void post_compute(RestCallPtr call);
  void post_txt2img(RestCallPtr call);
  // blobs and named code
  void put_blob(RestCallPtr call);
  void get_blob(RestCallPtr call);
  void get_blob_status(RestCallPtr call);
  void put_model(RestCallPtr call);
  void get_model(RestCallPtr call);
  void get_models(RestCallPtr call);

 private:
  struct LogFollow;
  bool web_file(const RestCallPtr& call, std::string_view path);
  void cancel(const RestCallPtr& call, std::optional<std::uint32_t> index);
  void explain(const RestCallPtr& call, const std::string& job, std::optional<std::uint32_t> index);
  void answer_explained(const RestCallPtr& call, const core::Explanation& explained, const std::string& id);
  void set_schedule_paused(const RestCallPtr& call, bool paused);
  void follow_logs(RestCallPtr call, JobMetaPtr meta, std::optional<std::uint32_t> index, std::int64_t after);
  void pump_logs(const std::shared_ptr<LogFollow>& follow);
  void upload(RestCallPtr call, std::string sha256);
  void upload_over(const std::string& sha256);
  void start_run(const RestCallPtr& call, const boost::json::object& body,
                 std::function<void(RunBook::Started)> started);
  void export_run(RestCallPtr call, const std::string& format);
  void run_and_wait(const RestCallPtr& call, std::string_view kind);
  void change_service(RestCallPtr call, const std::string& op);
  void keep_open(const net::HttpExchangePtr& exchange) { streams_.push_back(exchange); }

  Services& s_;
  Operations& operations_;
  Schedules& schedules_;
  JobWatch& watch_;
  TaskOutput& output_;
  const ClientSessions& clients_;
  std::vector<std::weak_ptr<net::HttpExchange>> streams_;
  struct Answering {
    std::vector<std::weak_ptr<net::HttpExchange>> exchanges;
    std::size_t look_at = 256;  // so many, and those that are over are taken out
  };
  std::unordered_map<std::string, Answering> answering_;  // by named token
  Instant kept_open_{};
  std::unordered_map<std::string, std::vector<std::function<void()>>>
      uploads_;  // under way -> those who wait for its end
};

std::map<std::string, std::string> security_headers();

}  // namespace grange::server
