// Runs tests/scenarios/*.txt: commands, then after ---- what the core says to them. GRANGE_BLESS=1 writes the answers
// anew.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/test_disk.hpp"

namespace grange::core {
namespace {

using Words = std::vector<std::string>;

Words split(const std::string& text, char by) {
  Words out;
  std::stringstream in(text);
  for (std::string word; std::getline(in, word, by);) {
    if (!word.empty()) out.push_back(word);
  }
  return out;
}
std::uint32_t number(const std::string& text) {
  return static_cast<std::uint32_t>(std::stoul(text));
}
// "5s", "250ms", "2m"
std::int64_t millis(const std::string& text) {
  std::size_t used = 0;
  const double n = std::stod(text, &used);
  const std::string unit = text.substr(used);
  return static_cast<std::int64_t>(n * (unit == "ms" ? 1 : unit == "m" ? 60'000 : unit == "h" ? 3'600'000 : 1000));
}
TaskId task_of(const std::string& text) {
  const auto slash = text.find('/');
  return TaskId::of({number(text)}, number(text.substr(slash + 1)));
}
std::string text(TaskId id) {
  return std::to_string(id.job().value) + "/" + std::to_string(id.index());
}
std::string text(TaskId id, Attempt attempt) {
  return text(id) + "#" + std::to_string(attempt);
}
FailureClass class_of(const std::string& word) {
  for (std::uint8_t c = 0; c <= 10; ++c) {
    if (name(static_cast<FailureClass>(c)) == word) return static_cast<FailureClass>(c);
  }
  throw std::runtime_error("no failure class " + word);
}

class Scenario {
 public:
  Scenario() { farm_ = disk_.load(options_, now_); }

  std::string run(const std::string& line) {
    Words words = split(line, ' ');
    command_ = words.at(0);
    args_.assign(words.begin() + 1, words.end());
    out_.clear();
    command(line);
    return out_.empty() ? "ok\n" : out_;
  }

 private:
  const std::string& arg(std::size_t i) const { return args_.at(i); }
  bool has(const std::string& word) const { return std::find(args_.begin(), args_.end(), word) != args_.end(); }
  static std::string value(const Words& words, const std::string& key, std::string otherwise = "") {
    for (const auto& w : words) {
      if (w.starts_with(key + "=")) return w.substr(key.size() + 1);
    }
    return otherwise;
  }
  std::string value(const std::string& key, std::string otherwise = "") const {
    return value(args_, key, std::move(otherwise));
  }
  std::uint32_t number_of(const std::string& key, std::uint32_t otherwise) const {
    const auto v = value(key);
    return v.empty() ? otherwise : number(v);
  }
  static std::uint32_t milli_of(const Words& words, const std::string& key, std::uint32_t otherwise) {
    const auto v = value(words, key);
    return v.empty() ? otherwise : static_cast<std::uint32_t>(std::stod(v) * 1000 + 0.5);
  }
  static Bytes gib_of(const Words& words, const std::string& key, Bytes otherwise = 0) {
    const auto v = value(words, key);
    return v.empty() ? otherwise : static_cast<Bytes>(std::stod(v) * static_cast<double>(GiB));
  }
  void say(const std::string& line) { out_ += line + "\n"; }

  void command(const std::string& line) {
    if (command_ == "worker") return hello();
    if (command_ == "change") return step(WorkerChanged{who(), capacity(), kNoBody});
    if (command_ == "submit") return step(submit(args_));
    if (command_ == "graph") {
      SubmitGraph graph;
      for (const auto& part : split(line.substr(6), '|')) graph.jobs.push_back(submit(split(part, ' ')));
      return step(graph);
    }
    if (command_ == "extend") return step(ExtendJob{{number(arg(0))}, number_of("count", 0), has("close"), kNoBody});
    if (command_ == "start") return step(AttemptStarted{who(), fence()});
    if (command_ == "end") return end();
    if (command_ == "return") return step(AttemptReturned{who(), fence(), has("unsent")});
    if (command_ == "frozen") return step(AttemptPaused{who(), fence(), true});
    if (command_ == "thawed") return step(AttemptPaused{who(), fence(), false});
    if (command_ == "preempted") return step(AttemptPreempted{who(), fence()});
    if (command_ == "checkpoint") return step(CheckpointTaken{who(), fence(), kNoBody});
    if (command_ == "gone") return step(WorkerGone{who(), has("for_good"), has("charge")});
    if (command_ == "drain") return step(WorkerDrain{who()});
    if (command_ == "release") return step(WorkerRelease{who()});
    if (command_ == "hold_worker") return step(WorkerPause{who(), true});
    if (command_ == "resume_worker") return step(WorkerPause{who(), false});
    if (command_ == "forget_worker") return step(WorkerForget{who()});
    if (command_ == "tick") return tick();
    if (command_ == "wall") return jump();
    if (command_ == "pause" || command_ == "resume") return pause(command_ == "pause");
    if (command_ == "cancel") {
      if (arg(0).find('/') != std::string::npos) return step(CancelTask{task_of(arg(0)), kNoBody});
      return step(CancelJob{{number(arg(0))}, kNoBody});
    }
    if (command_ == "retry") {
      const JobNo no{number(arg(0))};
      return step(disk_.jobs.contains(no) ? disk_.retry(no) : RetryTasks{no, {}, {}});
    }
    if (command_ == "user") {
      return step(SetUser{arg(0),
                          {.weight_milli = number_of("weight", 1000),
                           .max_running = number_of("max_running", 0),
                           .max_cpus_milli = number_of("max_cpus", 0) * 1000,
                           .max_gpus_milli = milli_of(args_, "max_gpus", 0),
                           .max_queued = number_of("max_queued", 0),
                           .starts_per_minute = number_of("starts_per_minute", 0),
                           .submits_per_minute = number_of("submits_per_minute", 0)}});
    }
    if (command_ == "restart") return restart();
    if (command_ == "show") return show();
    if (command_ == "explain") return explain();
    if (command_ == "preview") return said(farm_->preview(submit(args_, false).header, now_));
    if (command_ == "policy") return policy();
    if (command_ == "policies") return policies();
    if (command_ == "users") return users();
    if (command_ == "window") return step(WorkerWindow{who(), number(arg(1))});
    throw std::runtime_error("no command " + command_);
  }

  WorkerNo who() const { return {number(arg(0))}; }
  // Of what this worker was handed; else one that nobody gave out.
  Fence fence() const {
    const TaskId id = task_of(arg(1));
    const auto it = held_.find({who(), id});
    Fence f = it == held_.end() ? Fence{id, 1, 12345} : it->second;
    const auto attempt = value("attempt");
    if (!attempt.empty()) f.attempt = number(attempt);
    return f;
  }

  void step(const Event& event) {
    const StepAnswer answer = farm_->step(event, now_, effects_);
    farm_->check_invariants();
    if (!answer.result.ok()) {
      say("refused " + std::string(code(answer.result.error().cls)) + ": " + answer.result.error().message);
    }
    for (const Fence& f : answer.refused) say("refused attempt " + text(f.task, f.attempt));
    if (std::holds_alternative<WorkerHello>(event) && answer.count > 0) say("adopted " + std::to_string(answer.count));
    turn();
  }

  void turn() {
    farm_->apply(farm_->plan(now_, prng_), now_, effects_);
    farm_->finish_batch(now_, effects_);
    farm_->check_invariants();
    disk_.fold(effects_);
    for (const auto& r : effects_.records) {
      if (const auto* e = std::get_if<TaskEnded>(&r); e != nullptr && e->end != TaskEnd::completed) {
        say("task " + text(e->task) + " " + std::string(name(e->end)) + ": " + std::string(name(e->failure)));
      }
    }
    for (const auto& f : effects_.failed) {
      say("attempt " + text(f.task, f.attempt) + " failed on w" + std::to_string(f.worker.value) + ": " +
          std::string(name(f.failure)) +
          (f.retry ? ", again in " + std::to_string((f.retry_in.count() + 500) / 1000) + " s" : ", the last"));
    }
    for (const auto& n : effects_.workers) {
      constexpr std::array kNews = {"connected", "disconnected", "lost",    "left",     "quarantined",
                                    "released",  "paused",       "resumed", "forgotten"};
      say("worker " + std::to_string(n.worker.value) + " " + kNews[static_cast<std::size_t>(n.news)] +
          (n.requeued > 0 ? ", requeued " + std::to_string(n.requeued) : ""));
    }
    for (const auto& c : effects_.cancel)
      say("stop " + text(c.task, c.attempt) + " on w" + std::to_string(c.worker.value));
    for (const auto& p : effects_.pause) {
      constexpr std::array kHow = {"freeze", "resume", "requeue"};
      say(std::string(kHow[static_cast<std::size_t>(p.how)]) + " " + text(p.task, p.attempt) + " on w" +
          std::to_string(p.worker.value));
    }
    for (const auto& t : effects_.take_back)
      say("take back " + text(t.task) + " from w" + std::to_string(t.worker.value));
    for (const auto& a : effects_.acks) {
      if (!a.accepted) say("result of " + text(a.task, a.attempt) + " not accepted");
    }
    for (const auto& a : effects_.assign) {
      held_[{a.worker, a.fence.task}] = a.fence;
      alternatives_[{a.worker, a.fence.task}] = a.alternative;
      say("assign " + text(a.fence.task, a.fence.attempt) + " to w" + std::to_string(a.worker.value) +
          (a.gang != UINT32_MAX ? " rank " + std::to_string(a.rank) : "") +
          (a.alternative > 0 ? " alternative " + std::to_string(a.alternative) : ""));
    }
    for (const auto& j : effects_.jobs) {
      if (ended(j.state)) {
        say("job " + std::to_string(j.job.value) + " " + std::string(name(j.state)) + " " + counts(j.counts));
      }
    }
    effects_ = {};
  }

  static std::string counts(const JobCounts& c) {
    return std::to_string(c.completed) + "/" + std::to_string(c.failed) + "/" + std::to_string(c.cancelled);
  }

  Capacity capacity() const {
    const std::uint32_t slots = number_of("slots", 1);
    Capacity c{.slots = slots,
               .cpus_milli = number_of("cpus", slots) * 1000,
               .gpus_milli = milli_of(args_, "gpus", 0),
               .memory = gib_of(args_, "memory", 16 * GiB),
               .disk = gib_of(args_, "disk"),
               .gpu_memory = gib_of(args_, "gpu_memory"),
               .engines = split(value("engines", "builtin"), ','),
               .pool = value("pool")};
    std::map<std::string, std::uint32_t> models;  // name, or name@context
    for (const auto& word : split(value("models"), ',')) {
      const Words parts = split(word, '@');
      models[parts[0]] = parts.size() > 1 ? number(parts[1]) : 0;
    }
    for (const auto& [name, context] : models) {
      c.models.push_back(name);
      c.contexts.push_back(context);
    }
    for (const auto& word : split(value("labels"), ',')) {  // key:value
      const Words parts = split(word, ':');
      c.labels.emplace_back(parts.at(0), parts.at(1));
    }
    if (const auto v = value("life"); !v.empty()) c.life = Millis{millis(v)};
    std::sort(c.labels.begin(), c.labels.end());
    std::sort(c.engines.begin(), c.engines.end());
    return c;
  }

  void hello() {
    WorkerHello e{who(), capacity(), number_of("window", number_of("slots", 1)), {}, kNoBody};
    for (const auto& word : split(value("held"), ',')) {
      const auto it = held_.find({who(), task_of(word)});
      const auto alternative = alternatives_.find({who(), task_of(word)});
      e.held.push_back({it == held_.end() ? Fence{task_of(word), 1, 12345} : it->second, true,
                        alternative == alternatives_.end() ? 0 : alternative->second});
    }
    online_.insert(who());
    step(e);
  }

  static Request request(const Words& words, const Request& otherwise) {
    Request r = otherwise;
    r.engine = value(words, "engine", r.engine);
    r.cpus_milli = milli_of(words, "cpus", r.cpus_milli);
    r.gpus_milli = milli_of(words, "gpus", r.gpus_milli);
    r.memory = gib_of(words, "memory", r.memory);
    r.disk = gib_of(words, "disk", r.disk);
    r.gpu_memory = gib_of(words, "gpu_memory", r.gpu_memory);
    r.model = value(words, "model", r.model);
    if (const auto v = value(words, "context"); !v.empty()) r.context = number(v);
    r.pool = value(words, "pool", r.pool);
    if (const auto v = value(words, "min_life"); !v.empty()) r.min_life = Millis{millis(v)};
    for (const auto& word : split(value(words, "labels"), ',')) {  // key:value or !key:value
      const bool negate = word.front() == '!';
      const Words parts = split(word.substr(negate ? 1 : 0), ':');
      r.labels.push_back({parts.at(0), parts.at(1), negate});
    }
    std::sort(r.labels.begin(), r.labels.end());
    return r;
  }

  // numbered: the first word is the job's number.
  SubmitJob submit(const Words& words, bool numbered = true) {
    SubmitJob e{{numbered ? number(words.at(0)) : UINT32_MAX}, {}, kNoBody, {}};
    JobHeader& h = e.header;
    const auto get = [&](const char* key, std::uint32_t otherwise) {
      const auto v = value(words, key);
      return v.empty() ? otherwise : number(v);
    };
    const auto flag = [&](const char* word) { return std::find(words.begin(), words.end(), word) != words.end(); };
    h.count = get("count", 1);
    h.request = request(words, {.engine = "builtin"});
    // or=cpus=4;gpus=1/cpus=32
    for (const auto& other : split(value(words, "or"), '/')) {
      h.alternatives.push_back(request(split(other, ';'), {.engine = "builtin"}));
    }
    h.weight_milli = milli_of(words, "weight", 1000);
    h.user = value(words, "user");
    if (const auto v = value(words, "priority"); !v.empty()) h.priority = std::stoi(v);
    h.retry.max_attempts = get("attempts", limits::kDefaultAttempts);
    h.retry.crash_limit = get("crash_limit", limits::kDefaultCrashLimit);
    h.max_running = get("max_running", 0);
    h.nodes = get("nodes", 1);
    h.open = flag("open");
    h.fail_fast = flag("fail_fast");
    if (flag("speculate")) h.speculation = {true, 2000, 1};
    for (const auto& rule : split(value(words, "rule"), ',')) {  // class[:type]:attempts
      const Words parts = split(rule, ':');
      h.retry.rules.push_back({class_of(parts[0]), parts.size() > 2 ? parts[1] : "", number(parts.back())});
    }
    if (const auto v = value(words, "not_before"); !v.empty()) h.not_before = {now_.wall.ms + millis(v)};
    if (const auto v = value(words, "deadline"); !v.empty()) h.deadline = {now_.wall.ms + millis(v)};
    const auto when = value(words, "when");
    h.when = when == "finished" ? When::all_finished : when == "any" ? When::any_succeeded : When::all_succeeded;
    for (const auto& word : split(value(words, "after"), ',')) {  // 7, 7/3 or 7each
      Dependency d{.job = {number(word)}};
      d.each = word.ends_with("each");
      if (word.find('/') != std::string::npos) d.index = task_of(word).index();
      h.after.push_back(d);
    }
    e.parents = disk_.parents(h);
    return e;
  }

  void end() {
    const bool ok = arg(2) == "ok";
    const auto run = static_cast<std::uint64_t>(millis(value("run", "100ms"))) * 1000;
    step(AttemptEnded{.worker = who(),
                      .fence = fence(),
                      .ok = ok,
                      .permanent = has("permanent"),
                      .failure = ok ? FailureClass::none : class_of(arg(3)),
                      .run_us = run,
                      .exception = value("exception")});
  }

  // "wall -2h": the wall clock is put back, and no time passes.
  void jump() { now_.wall.ms += arg(0)[0] == '-' ? -millis(arg(0).substr(1)) : millis(arg(0)); }

  void tick() {
    const std::int64_t ms = millis(arg(0));
    for (std::int64_t left = ms; left > 0;) {  // workers that are there say so in between
      const std::int64_t part = std::min<std::int64_t>(left, 10'000);
      left -= part;
      now_.mono.us += part * 1000;
      now_.wall.ms += part;
      if (!has("silent")) {
        for (const WorkerNo w : online_) farm_->step(WorkerAlive{w}, now_, effects_);
      }
      step(Tick{});
    }
  }

  void pause(bool on) {
    if (arg(0) == "farm") return step(PauseFarm{on});
    if (arg(0).find('/') != std::string::npos) return step(PauseTask{task_of(arg(0)), on, has("requeue")});
    step(PauseJob{{number(arg(0))}, on, has("freeze")});
  }

  void explain() {
    const bool task = arg(0).find('/') != std::string::npos;
    const auto e = task ? farm_->explain(task_of(arg(0)).job(), task_of(arg(0)).index(), now_)
                        : farm_->explain({number(arg(0))}, Dependency::kAll, now_);
    if (!e) return say("none");
    said(*e);
  }

  void said(const Explanation& e) {
    say(e.state + ": " + e.summary);
    const auto reason = [&](const Reason& r) {
      return r.code + " " + std::to_string(r.have) + "/" + std::to_string(r.need) +
             (r.until.ms > 0 ? " in " + std::to_string(r.until.ms - now_.wall.ms) + " ms" : "") + ": " + r.text;
    };
    for (const Reason& r : e.waits) say("  " + reason(r));
    for (const WorkerFit& w : e.workers) {
      say("  w" + std::to_string(w.worker.value) +
          (w.now     ? " now"
           : w.could ? " could"
                     : " never") +
          (w.alternative > 0 ? ", alternative " + std::to_string(w.alternative) : ""));
      for (const Reason& r : w.why) say("    " + reason(r));
    }
    say("  workers " + std::to_string(e.workers_in_all) + ", could " + std::to_string(e.workers_could) + ", now " +
        std::to_string(e.workers_now) + "; tasks before " + std::to_string(e.tasks_before) +
        (e.next_change.ms > 0 ? "; changes in " + std::to_string(e.next_change.ms - now_.wall.ms) + " ms" : ""));
  }

  void policy() {
    if (args_.empty()) return say(std::string(farm_->policy()));
    if (const auto v = value("aging"); !v.empty()) {  // a server's option: it starts anew with it
      options_.aging = Millis{millis(v)};
      return restart();
    }
    const auto set = farm_->set_policy(arg(0), now_, &effects_);
    if (!set.ok()) return say("refused " + std::string(code(set.error().cls)) + ": " + set.error().message);
    farm_->check_invariants();
    turn();
  }

  void policies() {
    for (const PolicyView& p : farm_->policies(now_)) {
      say(p.name + (p.active ? " (active)" : "") + ": assigned " + std::to_string(p.assigned) + ", completed " +
          std::to_string(p.completed) + ", failed " + std::to_string(p.failed) + ", in force " +
          std::to_string(p.active_for.count() / 1'000'000) + " s");
    }
  }

  void users() {
    for (const UserView& u : farm_->users()) {
      say((u.user.empty() ? "anonymous" : u.user) + ": queued " + std::to_string(u.queued) + ", held " +
          std::to_string(u.running) + ", cores " + std::to_string(u.cpus_milli / 1000) + ", usage " +
          std::to_string(static_cast<int>(u.usage + 0.5)) + ", share " +
          std::to_string(static_cast<int>(u.share * 100 + 0.5)) + " %");
    }
  }

  void restart() {
    options_.incarnation += 1;
    online_.clear();
    farm_ = disk_.load(options_, now_);
    farm_->check_invariants();
    step(Tick{});
  }

  void show() {
    if (arg(0) == "farm") {
      const FarmView v = farm_->view();
      say(std::string(v.paused ? "paused, " : "") + "jobs " + std::to_string(v.live_jobs) + ", queued " +
          std::to_string(v.queued_tasks) + ", held " + std::to_string(v.active_tasks));
    } else if (arg(0) == "job") {
      const auto j = farm_->job({number(arg(1))});
      if (!j) return say("none");
      say(std::string(name(j->state)) + " " + counts(j->counts) + " of " + std::to_string(j->count) + ": waiting " +
          std::to_string(j->waiting) + ", held " + std::to_string(j->assigned + j->running) + ", delayed " +
          std::to_string(j->delayed) + ", paused " + std::to_string(j->paused) + ", blocked " +
          std::to_string(j->blocked) + (j->open ? ", open" : "") + (j->is_paused ? ", job paused" : ""));
    } else if (arg(0) == "task") {
      const auto t = farm_->task(task_of(arg(1)));
      if (!t) return say("none");
      say(std::string(name(t->state)) + " #" + std::to_string(t->attempt) + ", failures " +
          std::to_string(t->failures) + ", crashes " + std::to_string(t->crashes) +
          (t->worker.value > 0 ? ", on w" + std::to_string(t->worker.value) : ""));
    } else if (arg(0) == "worker") {
      const auto w = farm_->worker({number(arg(1))});
      if (!w) return say("none");
      say(std::string(w->connected ? "connected" : "disconnected") + ", running " + std::to_string(w->running) +
          ", backlog " + std::to_string(w->backlog) + ", failed in a row " + std::to_string(w->failed_in_a_row) +
          (w->quarantined ? ", quarantined" : ""));
    } else {
      throw std::runtime_error("show what?");
    }
  }

  FarmOptions options_;
  Disk disk_;
  Now now_{{1'000'000}, {1'700'000'000'000}};
  Prng prng_{1};
  std::unique_ptr<Farm> farm_;
  Effects effects_;
  std::map<std::pair<WorkerNo, TaskId>, Fence> held_;
  std::map<std::pair<WorkerNo, TaskId>, std::uint32_t> alternatives_;
  std::set<WorkerNo> online_;
  std::string command_, out_;
  Words args_;
};

void run_file(const std::filesystem::path& path) {
  std::ifstream in(path);
  ASSERT_TRUE(in) << path;
  const bool bless = std::getenv("GRANGE_BLESS") != nullptr;
  Scenario scenario;
  std::string blessed, block, answer, line;
  int no = 0;
  const auto finish = [&](const std::string& expected) {
    blessed += block + "----\n" + answer + "\n";
    if (!bless) {
      EXPECT_EQ(answer, expected) << path.filename().string() << ", before line " << no << ":\n" << block;
    }
    block.clear();
    answer.clear();
  };
  bool expecting = false;
  std::string expected;
  while (std::getline(in, line)) {
    no += 1;
    if (expecting) {
      if (!line.empty()) {
        expected += line + "\n";
        continue;
      }
      finish(expected);
      expecting = false;
      expected.clear();
    } else if (line == "----") {
      expecting = true;
    } else if (line.empty() || line.starts_with("#")) {
      ASSERT_TRUE(answer.empty()) << path << ":" << no << ": ---- is missing";
      blessed += line + (line.empty() && blessed.ends_with("\n\n") ? "" : "\n");
    } else {
      block += line + "\n";
      answer += scenario.run(line);
    }
  }
  if (expecting || !answer.empty()) finish(expected);
  if (bless) std::ofstream(path) << blessed.substr(0, blessed.find_last_not_of('\n') + 2);
}

TEST(Scenarios, SayWhatTheySaid) {
  std::set<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(GRANGE_SCENARIOS)) {
    if (entry.path().extension() == ".txt") files.insert(entry.path());
  }
  ASSERT_FALSE(files.empty());
  for (const auto& path : files) {
    SCOPED_TRACE(path.filename().string());
    run_file(path);
  }
}

}  // namespace
}  // namespace grange::core
