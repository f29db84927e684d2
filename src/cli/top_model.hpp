// What `grange top` knows and shows. Pure: (state, key or answer, time) -> state and what to ask the server next;
// (state, size) -> a frame. The terminal is in top_screen, the server in top_feed.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cli/rest.hpp"
#include "cli/top_text.hpp"

namespace grange::cli::top {

struct Clock {
  std::int64_t mono_ms = 0;  // for what is due
  std::int64_t wall_ms = 0;  // for times of the server
};

struct Key {
  enum Kind {
    character,
    up,
    down,
    left,
    right,
    page_up,
    page_down,
    home,
    end,
    tab,
    back_tab,
    enter,
    escape,
    backspace
  };
  Kind kind = character;
  char32_t c = 0;
};

struct Ask {
  std::uint64_t id = 0;
  std::string method, path;
};

struct Answer {
  std::uint64_t id = 0;
  int status = 0;  // 0: no answer; then `body` says why
  std::string body;
};

struct Job {
  std::string id, name, status, user, engine;
  std::int64_t number = 0, total = 0, completed = 0, failed = 0, cancelled = 0, running = 0, assigned = 0, pending = 0,
               blocked = 0, paused_tasks = 0, priority = 0;
  bool paused = false, open = false;
  std::int64_t created_ms = -1, started_ms = -1, ended_ms = -1;

  bool ended() const { return status == "completed" || status == "failed" || status == "cancelled"; }
  std::int64_t done() const { return completed + failed + cancelled; }
  std::int64_t waiting() const { return pending + blocked + paused_tasks; }
};
Job read_job(const json::value& object);

struct Worker {
  std::string id, name, status, host, pool;
  std::int64_t slots = 0, running = 0, backlog = 0, completed = 0, failed = 0, memory = 0, seen_ms = -1;
  double cpus = 0;
  std::optional<double> cpu_percent, gpu_percent;
  std::optional<std::int64_t> memory_used;
  std::optional<bool> paused;  // nullopt: this server cannot pause workers
  bool connected = false;
  json::value raw;
};
Worker read_worker(const json::value& object);

struct Figures {
  std::string version, policy;
  double uptime_s = 0;
  std::int64_t jobs = 0, live_jobs = 0, queued = 0, running = 0, blocked = 0, workers = 0, slots = 0, completed = 0,
               failed = 0;
  bool paused = false, storage_full = false;
  std::optional<double> per_second;
  std::optional<double> wait_p50_ms;
  double cores_used = 0, cores = 0, memory_used = 0, memory = 0, gpus_used = 0, gpus = 0;
};

struct Attention {
  Tone tone = Tone::warn;
  std::string text;
};

enum class Tab { overview, jobs, workers };

struct List {
  int sort = -1;  // a column; -1: the natural order
  bool reverse = false;
  std::string filter;
  std::string chosen;  // an id
  std::size_t place = 0;
};

struct LogLine {
  std::int64_t index = 0;
  std::string stream, text;
  bool ended = false;
};

// Finds the end of a log that may be long: pages of kPage from a cursor on, and bisection for the last full one.
struct LogTail {
  enum Step { start, gallop, bisect, last, follow };
  static constexpr std::int64_t kPage = 60;  // lines of 64 KiB: such a page is never cut short by the server
  Step step = start;
  std::int64_t low = 0, high = 0, stride = 1000, cursor = 0;
  int full_pages = 0;
  bool left_out = false;
  std::deque<LogLine> lines;
  std::int64_t before = 0;  // lines that are no longer kept
  std::map<std::pair<std::int64_t, std::string>, std::int64_t>
      open;  // (task, stream) -> number of a line without an end

  std::int64_t asks_after() const;
  // Takes a page; true: the next one is wanted at once.
  bool take(const json::array& page);
};

struct Task {
  std::int64_t index = 0, attempt = 0;
  std::string status, worker, failure, word;
};

struct JobView {
  enum Pane { both, tasks_only, log_only };
  std::string id, missing;  // `missing`: what the server says when it is gone
  std::optional<Job> job;
  std::string why;                                 // it waits
  std::map<std::string, std::vector<Task>> tasks;  // by status
  LogTail log;
  Pane pane = both;
  int back = 0;  // lines scrolled: up from the end of the log, or down into the tasks
};

struct WorkerView {
  std::string id;
  std::optional<std::vector<Task>> tasks;  // nullopt: this server does not tell
  std::vector<std::string> task_ids;
  int down = 0;
};

struct Action {
  std::string question;  // asked before, where it is not empty
  std::string path, what;
};

struct Message {
  Tone tone = Tone::none;
  std::string text;
  std::int64_t until_ms = 0;
};

// Something that is asked for again and again.
struct Slot {
  std::string path;
  std::int64_t due_ms = 0, every_ms = 1000, asked_ms = 0;
  std::uint64_t busy = 0;  // the ask that is under way
};

struct Link {
  enum { starting, up, lost } state = starting;
  bool trying = false;
  int tries = 0;
  std::int64_t retry_ms = 0;
  std::string why;
};

struct Pace {  // of a job: (time, tasks done)
  std::deque<std::pair<std::int64_t, std::int64_t>> seen;
};

struct State {
  std::string url;
  std::int64_t interval_ms = 1000;
  bool utf8 = true;
  int width = 80, height = 24;

  Link link;
  std::optional<Figures> figures;
  std::deque<std::pair<double, std::int64_t>> ended;  // the server's uptime and tasks ended, for the rate
  std::vector<Attention> attention;
  std::map<std::string, std::deque<double>> history;  // by figure, and "cpu " or "mem " and a worker
  std::map<std::string, std::vector<Job>> job_pages;  // newest, running, pending
  std::vector<Job> jobs;
  std::vector<Worker> workers;
  bool heard_jobs = false, heard_workers = false;
  std::map<std::string, Pace> paces;

  Tab tab = Tab::overview;
  List overview, all_jobs, all_workers;
  std::optional<JobView> job_view;
  std::optional<WorkerView> worker_view;
  bool help = false, typing = false;  // typing: a filter
  std::optional<Action> question;
  std::optional<Message> message;

  std::map<std::string, Slot> slots;
  std::map<std::uint64_t, Action> acts;  // under way
  std::deque<Ask> outbox;                // acts to send
  std::uint64_t last_id = 0;
  bool has_overview = true;  // until the server says no
  bool quit = false;
  std::string refused;  // why there is no use in going on, such as a token that is wanted
};

State start(std::string url, std::int64_t interval_ms, bool utf8);
void press(State& state, const Key& key, Clock now);
void hear(State& state, const Answer& answer, Clock now);
std::vector<Ask> asks(State& state, Clock now);
// Milliseconds until asks() or the frame may change by time alone, at most a second.
std::int64_t rests(const State& state, Clock now);
bool is_an_id(const std::string& filter);  // one word: it may name a job that is not listed
bool complete(const State& state);         // each list has been heard once

List& list_of(State& state);
const List& list_of(const State& state);
// As they are shown: filtered and sorted.
std::vector<const Job*> shown_jobs(const State& state, Clock now);
std::vector<const Worker*> shown_workers(const State& state, Clock now);
// Tasks ended a second, lately; seconds that are left. nullopt: not known.
std::optional<double> pace_of(const State& state, const Job& job, Clock now);
std::optional<double> left_of(const State& state, const Job& job, Clock now);

Frame draw(const State& state, Clock now);
int most_scroll(const State& state, Clock now);  // of the view that is open
// One frame as text: everything, however long.
std::vector<std::string> text_of(const State& state, int width, Clock now);

}  // namespace grange::cli::top
