#include "queue/local.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "core/farm.hpp"
#include "queue/pages.hpp"

namespace grange::queue {
namespace {

using core::Bodies;
using core::Body;
using core::Event;

// Work for the engine's thread, in order of arrival.
struct Cancel {
  JobNo job;
  std::optional<std::uint32_t> index;
  std::string reason;
  std::function<void(Result<std::uint32_t>)> done;
};
struct Retry {
  JobNo job;
  std::function<void(Result<std::uint32_t>)> done;
};
struct Alive {
  WorkerNo worker;
};
struct Gone {
  WorkerNo worker;
  std::uint64_t session = 0;
  bool for_good = false;
};
struct Drain {
  WorkerNo worker;
};
struct SetPolicy {
  std::string name;
  std::function<void(Result<>)> done;
};
struct ForgetAll {
  std::function<void(Result<>)> done;
};
struct Inspect {
  std::function<void(const core::Farm&)> look;
};
struct Maintain {
  std::function<void(store::Store&)> work;
};
using Call = std::variant<SubmitCall, HelloCall, ReportCall, Cancel, Retry, Alive, Gone, Drain, SetPolicy, ForgetAll,
                          Inspect, Maintain>;

// One transaction, and what waits for it.
struct Batch {
  core::Effects effects;
  Bodies bodies;
  std::vector<std::function<void()>> answers;              // in the order of their calls
  std::vector<std::function<void(store::Store&)>> upkeep;  // after the commit, on the commit thread
  std::vector<std::string> names;                          // keys and ids that are in the store once this is

  bool empty() const { return effects.empty() && answers.empty() && upkeep.empty(); }
};

class Engine final : public LocalQueue {
 public:
  Engine(store::Store& store, const Clock& clock, LocalOptions options, Deliver deliver)
      : store_(store),
        clock_(clock),
        options_(std::move(options)),
        deliver_(std::move(deliver)),
        prng_(options_.seed) {}
  ~Engine() override { stop(); }

  Result<> load() {
    auto loaded = store_.load();
    if (!loaded.ok()) return std::move(loaded).error();
    auto reader = store_.reader();
    if (!reader.ok()) return std::move(reader).error();
    auto second = store_.reader();
    if (!second.ok()) return std::move(second).error();
    reader_ = std::move(*reader);
    pages_ = std::make_unique<PageCache>(std::move(*second));
    incarnation_ = loaded->incarnation;
    server_id_ = loaded->server_id;
    last_job_ = loaded->last_job.value;
    farm_ = std::make_unique<core::Farm>(core::FarmOptions{
        .lease = options_.lease, .incarnation = incarnation_, .seed = options_.seed, .policy = options_.policy});
    const Now now = clock_.now();
    for (const auto& job : loaded->jobs) farm_->load_job(job.job, job.header, job.progress, job.open, job.skipped);
    for (const auto& task : loaded->tasks) farm_->load_task(task, now);
    for (const auto& w : loaded->workers) {
      worker_numbers_[w.id] = w.worker;
      last_worker_ = std::max(last_worker_, w.worker.value);
      if (w.connected) farm_->load_expected(w.worker);
    }
    farm_->loaded(now);
    return {};
  }

  void run() {
    engine_ = std::thread([this] { engine_loop(); });
    committer_ = std::thread([this] { commit_loop(); });
  }

  // ------------------------------------------------------------------------------------------------ the port

  void submit(SubmitCall call) override {
    Bytes bytes = call.body.spec.size() + 4 * KiB;
    for (const auto& page : call.body.pages) bytes += page.bytes.size() + page.sizes.size() * sizeof(std::uint32_t);
    if (auto room = room_for(bytes * 2); !room.ok()) return call.done(std::move(room).error());
    put(std::move(call));
  }
  void hello(HelloCall call) override { put(std::move(call)); }
  void report(ReportCall call) override { put(std::move(call)); }
  void alive(WorkerNo worker) override { put(Alive{worker}); }
  void gone(WorkerNo worker, std::uint64_t session, bool for_good) override { put(Gone{worker, session, for_good}); }
  void drain(WorkerNo worker) override { put(Drain{worker}); }
  void cancel(JobNo job, std::optional<std::uint32_t> index, std::string reason,
              std::function<void(Result<std::uint32_t>)> done) override {
    put(Cancel{job, index, std::move(reason), std::move(done)});
  }
  void retry(JobNo job, std::function<void(Result<std::uint32_t>)> done) override { put(Retry{job, std::move(done)}); }
  void set_policy(std::string name, std::function<void(Result<>)> done) override {
    put(SetPolicy{std::move(name), std::move(done)});
  }
  void forget_all(std::function<void(Result<>)> done) override { put(ForgetAll{std::move(done)}); }
  void inspect(std::function<void(const core::Farm&)> look) override { put(Inspect{std::move(look)}); }
  void maintain(std::function<void(store::Store&)> work) override { put(Maintain{std::move(work)}); }
  Result<> room_for(Bytes bytes) const override {
    if (storage_full_.load(std::memory_order_relaxed)) {
      return Error{
          ErrorClass::storage_full,
          "The data folder's disk is full; new work is refused until there is room. What was accepted is safe.",
          {}};
    }
    return store_.room_for(bytes);
  }
  std::uint64_t incarnation() const override { return incarnation_; }
  std::string server_id() const override { return server_id_; }

  QueueCounters counters() const override {
    return {.events = events_.load(),
            .batches = batches_.load(),
            .commits = commits_.load(),
            .commit_us = commit_us_.load(),
            .tasks_ended = tasks_ended_.load(),
            .assigned = assigned_.load(),
            .storage_full = storage_full_.load()};
  }

  void stop() override {
    {
      const std::lock_guard lock(mutex_);
      if (closing_) return;
      closing_ = true;
    }
    wake_engine_.notify_all();
    if (engine_.joinable()) engine_.join();
    {
      const std::lock_guard lock(mutex_);
      no_more_batches_ = true;
    }
    wake_committer_.notify_all();
    if (committer_.joinable()) committer_.join();
  }

 private:
  void put(Call call) {
    {
      std::unique_lock lock(mutex_);
      const bool full = inbox_.size() >= limits::kInbox && std::holds_alternative<SubmitCall>(call);
      if (full) {
        lock.unlock();
        return refuse(std::move(call), {ErrorClass::rate_limited,
                                        "The server has more work waiting to be taken in than it may hold. Slow down.",
                                        {}});
      }
      if (!closing_) {
        inbox_.push_back(std::move(call));
        lock.unlock();
        wake_engine_.notify_one();
        return;
      }
    }
    refuse(std::move(call), {ErrorClass::unavailable, "The server is stopping. Try again when it is back.", {}});
  }

  static void refuse(Call call, const Error& why) {
    std::visit(
        [&](auto& c) {
          if constexpr (requires { c.done(why); }) {
            if (c.done) c.done(why);
          }
        },
        call);
  }

  // ------------------------------------------------------------------------------------------------ engine thread

  void engine_loop() {
    std::vector<Call> calls;
    for (;;) {
      bool closing = false;
      {
        std::unique_lock lock(mutex_);
        const auto due = [&] { return !inbox_.empty() || closing_ || (idle_ && has_batch()); };
        const Instant wake = farm_->next_wake();
        awake_by_ = wake;
        asleep_since_ = clock_.now().mono;
        if (wake == Instant::never()) {
          wake_engine_.wait(lock, due);
        } else {
          const Micros wait = wake - clock_.now().mono;
          // Rounded up: waking early would only spin until the time has come.
          wake_engine_.wait_for(lock, std::max(Micros{0}, wait) + Micros{500}, due);
        }
        calls.swap(inbox_);
        closing = closing_;
      }
      const Now now = clock_.now();
      if (overslept(now)) farm_->step(core::Overslept{}, now, batch_.effects);
      for (Call& call : calls) {
        std::visit([&](auto& c) { on(c, now); }, call);
        events_.fetch_add(1, std::memory_order_relaxed);
      }
      calls.clear();
      // After the calls: a heartbeat that waited here still counts.
      if (farm_->next_wake() <= now.mono) farm_->step(core::Tick{}, now, batch_.effects);
      const core::Plan plan = farm_->plan(now, prng_);
      if (!plan.empty()) farm_->apply(plan, now, batch_.effects);
      const bool large = batch_.effects.records.size() > limits::kCommitBatch;
      if (hand_over(now, closing || large) && closing) return;
    }
  }

  // This turn began long after it was due, or the one before took long: we were stopped, or the disk held us up.
  bool overslept(Now now) {
    const Micros grace = options_.lease / 3;
    const bool slow_turn = turn_began_.us != 0 && asleep_since_ - turn_began_ > grace;
    const bool late = awake_by_ != Instant::never() && now.mono > std::max(awake_by_, asleep_since_) + grace;
    turn_began_ = now.mono;
    return slow_turn || late;
  }

  bool has_batch() const { return !batch_.empty() || farm_->dirty(); }

  // Gives the batch to the committer if that is idle; else it grows until then. True: nothing is left here.
  bool hand_over(Now now, bool wait) {
    if (!has_batch()) return true;
    std::unique_lock lock(mutex_);
    if (wait) {
      committer_free_.wait(lock, [&] { return idle_; });
    } else if (!idle_) {
      return false;
    }
    farm_->finish_batch(now, batch_.effects);
    pending_ = std::make_unique<Batch>(std::move(batch_));
    batch_ = {};
    idle_ = false;
    lock.unlock();
    batches_.fetch_add(1, std::memory_order_relaxed);
    wake_committer_.notify_one();
    return true;
  }

  // Everything stepped so far is on disk when this returns. For the rare calls that must read it back.
  void flush(Now now) {
    hand_over(now, true);
    std::unique_lock lock(mutex_);
    committer_free_.wait(lock, [&] { return idle_; });
  }

  BodyRef keep(Body body) {
    batch_.bodies.push_back(std::move(body));
    return static_cast<BodyRef>(batch_.bodies.size() - 1);
  }

  template <class T>
  void answer(std::function<void(Result<T>)>& done, Result<T> result) {
    if (!done) return;
    batch_.answers.push_back(
        [done = std::move(done), result = std::move(result)]() mutable { done(std::move(result)); });
  }

  void on(SubmitCall& call, Now now) {
    using Answer = SubmitCall::Answer;
    core::JobBody& body = call.body;
    auto known = known_job(body);
    if (!known.ok()) return answer(call.done, Result<Answer>(std::move(known).error()));
    if (*known) return answer(call.done, Result<Answer>(std::move(**known)));

    const JobNo no{last_job_ + 1};
    std::vector<std::string> names;
    if (!body.key.empty()) names.push_back("k" + body.key);
    if (!body.id.empty()) names.push_back("i" + body.id);
    if (body.id.empty()) body.id = std::to_string(no.value);
    std::string id = body.id;
    const std::string digest = body.digest;
    pages_->added(no, body.pages);
    const auto body_ref = keep(std::move(body));
    auto stepped = farm_->step(core::SubmitJob{no, std::move(call.header), body_ref}, now, batch_.effects);
    if (!stepped.result.ok()) {
      pages_->ended(no);
      batch_.bodies.pop_back();
      return answer(call.done, Result<Answer>(std::move(stepped.result).error()));
    }
    last_job_ = no.value;
    for (auto& name : names) {
      uncommitted_[name] = {no, digest, id};
      batch_.names.push_back(std::move(name));
    }
    answer(call.done, Result<Answer>(Answer{no, std::move(id), false}));
  }

  // The job that this key stands for already: the same again, or a conflict. First among those not on disk yet, then on
  // disk.
  Result<std::optional<SubmitCall::Answer>> known_job(const core::JobBody& body) {
    const auto conflict = [](const char* what, const std::string& name) {
      return Error{ErrorClass::conflict,
                   "A job with the " + std::string(what) + " '" + name +
                       "' exists and is not the same. Choose another, or leave it out.",
                   {}};
    };
    if (body.key.empty() && body.id.empty()) return std::optional<SubmitCall::Answer>{};
    {
      const std::lock_guard lock(mutex_);
      for (const auto& name : committed_names_) uncommitted_.erase(name);
      committed_names_.clear();
    }
    if (!body.key.empty()) {
      if (const auto it = uncommitted_.find("k" + body.key); it != uncommitted_.end()) {
        if (it->second.digest != body.digest) return conflict("key", body.key);
        return std::optional(SubmitCall::Answer{it->second.job, it->second.id, true});
      }
      auto found = reader_->find_key(body.key);
      if (!found.ok()) return std::move(found).error();
      if (*found) {
        if ((*found)->second != body.digest) return conflict("key", body.key);
        auto row = reader_->job((*found)->first);
        if (!row.ok()) return std::move(row).error();
        GRANGE_ASSERT(row->has_value());
        return std::optional(SubmitCall::Answer{(*found)->first, (*row)->id, true});
      }
    }
    if (!body.id.empty()) {
      if (uncommitted_.contains("i" + body.id)) return conflict("id", body.id);
      auto found = reader_->find_job(body.id);
      if (!found.ok()) return std::move(found).error();
      if (*found) return conflict("id", body.id);
    }
    return std::optional<SubmitCall::Answer>{};
  }

  void on(HelloCall& call, Now now) {
    auto [it, fresh] = worker_numbers_.try_emplace(call.body.id);
    if (fresh) it->second = WorkerNo{++last_worker_};
    const WorkerNo no = it->second;
    const std::uint64_t session = ++last_session_;
    sessions_[no] = session;
    const auto body_ref = keep(std::move(call.body));
    auto stepped =
        farm_->step(core::WorkerHello{no, std::move(call.capacity), call.window, std::move(call.held), body_ref}, now,
                    batch_.effects);
    if (!call.resumable) not_resumable_[no] = session;
    answer(call.done, Result<HelloCall::Answer>(HelloCall::Answer{no, std::move(stepped.refused), session}));
  }

  void on(ReportCall& call, Now now) {
    auto& effects = batch_.effects;
    farm_->step(core::WorkerAlive{call.worker}, now, effects);
    if (call.window != 0) farm_->step(core::WorkerWindow{call.worker, call.window}, now, effects);
    for (const Fence& fence : call.started) farm_->step(core::AttemptStarted{call.worker, fence}, now, effects);
    for (auto& [fence, body] : call.checkpoints) {
      farm_->step(core::CheckpointTaken{call.worker, fence, keep(std::move(body))}, now, effects);
    }
    for (ResultReport& r : call.results) {
      BodyRef body = core::kNoBody;
      const auto& b = r.body;
      if (!r.ok || !b.value.empty() || !b.value_sha256.empty() || !b.files.empty() || !b.message.empty() ||
          b.exit_code != 0) {
        body = keep(std::move(r.body));
      }
      farm_->step(core::AttemptEnded{call.worker, r.fence, r.ok, r.permanent, r.failure, r.run_us, body}, now, effects);
    }
    for (const Fence& fence : call.returned) farm_->step(core::AttemptReturned{call.worker, fence}, now, effects);
  }

  void on(Alive& call, Now now) { farm_->step(core::WorkerAlive{call.worker}, now, batch_.effects); }
  void on(Gone& call, Now now) {
    const auto it = sessions_.find(call.worker);
    if (it == sessions_.end() || it->second != call.session) return;  // a newer session took its place
    const auto plain = not_resumable_.find(call.worker);
    const bool vanished = !call.for_good && plain != not_resumable_.end() && plain->second == call.session;
    farm_->step(core::WorkerGone{call.worker, call.for_good || vanished, vanished}, now, batch_.effects);
  }
  void on(Drain& call, Now now) { farm_->step(core::WorkerDrain{call.worker}, now, batch_.effects); }

  void on(Cancel& call, Now now) {
    auto stepped = call.index ? farm_->step(core::CancelTask{TaskId::of(call.job, *call.index)}, now, batch_.effects)
                              : farm_->step(core::CancelJob{call.job}, now, batch_.effects);
    if (stepped.result.ok()) return answer(call.done, Result<std::uint32_t>(stepped.count));
    Error error = std::move(stepped.result).error();
    if (auto row = reader_->job(call.job); row.ok() && *row && ended((*row)->state)) {
      error = {ErrorClass::invalid_state_transition,
               "Job " + (*row)->id + " has ended (" + std::string(core::name((*row)->state)) +
                   "); there is nothing to cancel.",
               {}};
    }
    answer(call.done, Result<std::uint32_t>(std::move(error)));
  }

  void on(Retry& call, Now now) {
    flush(now);
    core::RetryTasks event{call.job, {}, {}};
    const auto fail = [&](Error error) { answer(call.done, Result<std::uint32_t>(std::move(error))); };
    auto row = reader_->job(call.job);
    if (!row.ok()) return fail(std::move(row).error());
    if (!*row) return fail({ErrorClass::not_found, "There is no job " + std::to_string(call.job.value) + ".", {}});
    if ((*row)->state == core::JobState::completed) {
      return fail({ErrorClass::invalid_state_transition,
                   "Every task of job " + (*row)->id + " completed; there is nothing to retry.",
                   {}});
    }
    std::uint32_t from = 0;
    for (;;) {
      auto page = reader_->outcomes(call.job, from, limits::kPage, false);
      if (!page.ok()) return fail(std::move(page).error());
      for (const auto& o : *page) {
        if (o.end != core::TaskEnd::completed) event.tasks.push_back({o.task.index(), o.end, o.attempt});
      }
      if (page->size() < limits::kPage) break;
      from = page->back().task.index() + 1;
    }
    if (!farm_->job(call.job)) {
      auto header = reader_->header(call.job);
      if (!header.ok()) return fail(std::move(header).error());
      const auto& r = **row;
      event.ended = core::RetryTasks::Reopen{**header, {r.job, r.state, r.next_index, r.counts, r.started, {}}};
    }
    auto stepped = farm_->step(event, now, batch_.effects);
    if (!stepped.result.ok()) return fail(std::move(stepped.result).error());
    answer(call.done, Result<std::uint32_t>(stepped.count));
  }

  void on(SetPolicy& call, Now) {
    auto set = farm_->set_policy(call.name);
    answer(call.done, std::move(set));
  }

  void on(ForgetAll& call, Now now) {
    if (farm_->view().live_jobs > 0) {
      return answer(call.done,
                    Result<>(Error{ErrorClass::conflict, "Jobs are waiting or running. Cancel them, then clear.", {}}));
    }
    flush(now);
    batch_.upkeep.push_back([done = std::move(call.done)](store::Store& store) { done(store.forget_all()); });
    flush(now);  // nothing may be accepted between the look and the deed
  }

  void on(Inspect& call, Now) { call.look(*farm_); }
  void on(Maintain& call, Now) { batch_.upkeep.push_back(std::move(call.work)); }

  // ------------------------------------------------------------------------------------------------ commit thread

  void commit_loop() {
    for (;;) {
      std::unique_ptr<Batch> batch;
      {
        std::unique_lock lock(mutex_);
        wake_committer_.wait(lock, [&] { return pending_ || no_more_batches_; });
        if (!pending_) return;
        batch = std::move(pending_);
      }
      commit(*batch);
      // The engine may hand over the next batch from here on, while this one's answers go out; upkeep it must wait for.
      const bool upkeep = !batch->upkeep.empty();
      if (!upkeep) set_idle(*batch);
      release(*batch);
      if (upkeep) set_idle(*batch);
    }
  }

  void set_idle(Batch& batch) {
    {
      const std::lock_guard lock(mutex_);
      for (auto& name : batch.names) committed_names_.push_back(std::move(name));
      idle_ = true;
    }
    committer_free_.notify_all();
    wake_engine_.notify_one();
  }

  // Returns when the batch is on disk. A full disk, or one that fails, holds everything back until it works again:
  // nothing that was accepted is lost, nothing is promised before its time.
  void commit(const Batch& batch) {
    if (batch.effects.records.empty()) return;
    Millis wait{100};
    for (;;) {
      const Now before = clock_.now();
      auto done = store_.commit({batch.effects.records, batch.bodies});
      commit_us_.fetch_add(static_cast<std::uint64_t>((clock_.now().mono - before.mono).count()),
                           std::memory_order_relaxed);
      if (done.ok()) {
        commits_.fetch_add(1, std::memory_order_relaxed);
        storage_full_.store(false, std::memory_order_relaxed);
        return;
      }
      const ErrorClass why = done.error().cls;
      if (why != ErrorClass::storage_full && why != ErrorClass::io) {
        // Trying again cannot help, and going on would be a lie. A restart begins from what is on disk.
        spdlog::critical("The journal cannot be written; the server ends. What was acknowledged is on disk. {}",
                         done.error().message);
        spdlog::shutdown();
        std::_Exit(EXIT_FAILURE);
      }
      storage_full_.store(true, std::memory_order_relaxed);
      spdlog::error("The journal could not be written, trying again in {} ms: {}", wait.count(), done.error().message);
      std::this_thread::sleep_for(wait);
      wait = std::min(wait * 2, Millis{1000});
      const std::lock_guard lock(mutex_);
      if (!closing_) continue;
      if (given_up_at_.us == 0) given_up_at_ = before.mono + limits::kShutdown / 2;
      if (before.mono >= given_up_at_) {
        spdlog::critical(
            "The server stops without its last batch: nothing of it was acknowledged, so nothing that was promised is "
            "lost.");
        abandoned_ = true;
        return;
      }
    }
  }

  void release(Batch& batch) {
    if (abandoned_) return;
    core::Effects& effects = batch.effects;
    Delivery out;
    out.assign.reserve(effects.assign.size());
    for (const auto& a : effects.assign) {
      Assign assign;
      assign.worker = a.worker;
      assign.fence = a.fence;
      if (auto got = pages_->argument(a.fence.task, assign.args, assign.args_sha256); !got.ok()) {
        spdlog::error("The arguments of a task could not be read, it goes back to the queue: {}", got.error().message);
        ReportCall back;
        back.worker = a.worker;
        back.returned.push_back(a.fence);
        put(std::move(back));
        continue;
      }
      if (a.checkpoint) {
        if (auto saved = pages_->checkpoint(a.fence.task)) {
          assign.has_checkpoint = true;
          assign.checkpoint = std::move(saved->data);
          assign.checkpoint_sha256 = std::move(saved->data_sha256);
        }
      }
      out.assign.push_back(std::move(assign));
    }
    for (const auto& c : effects.cancel) out.cancel.push_back({c.worker, c.task, c.attempt});
    for (const auto& t : effects.take_back) out.take_back.push_back({t.worker, t.task, 0});
    for (const auto& a : effects.acks) out.acks.push_back({a.worker, a.task, a.attempt, a.accepted});
    for (const auto& f : effects.failed) {
      std::string message;
      if (const auto* body = result_body(batch, f.body)) message = body->message;
      out.failed.push_back({f.task, f.attempt, f.worker, f.failure, std::move(message), f.retry, f.retry_in});
    }
    std::uint64_t ended_count = 0;
    for (const auto& record : effects.records) {
      const auto* e = std::get_if<core::TaskEnded>(&record);
      if (e == nullptr) continue;
      ended_count += 1;
      std::shared_ptr<const core::ResultBody> body;
      if (auto* kept = result_body(batch, e->body)) body = std::make_shared<core::ResultBody>(std::move(*kept));
      out.ended.push_back({e->task, e->end, e->failure, e->attempt, e->worker, e->run_us, std::move(body)});
    }
    for (const auto& j : effects.jobs) {
      out.jobs.push_back({j.job, j.state, j.count, j.counts, j.running, j.cancelled_from});
      if (ended(j.state)) pages_->ended(j.job);
    }
    for (const auto& w : effects.workers)
      out.workers.push_back({w.worker, static_cast<WorkerChangeKind>(w.news), w.requeued});
    tasks_ended_.fetch_add(ended_count, std::memory_order_relaxed);
    assigned_.fetch_add(out.assign.size(), std::memory_order_relaxed);

    for (auto& answer : batch.answers) answer();
    deliver_(std::move(out));
    for (auto& work : batch.upkeep) work(store_);
  }

  static core::ResultBody* result_body(Batch& batch, BodyRef ref) {
    return ref == core::kNoBody ? nullptr : std::get_if<core::ResultBody>(&batch.bodies[ref]);
  }

  store::Store& store_;
  const Clock& clock_;
  const LocalOptions options_;
  const Deliver deliver_;
  std::uint64_t incarnation_ = 0;
  std::string server_id_;

  // engine thread
  std::unique_ptr<core::Farm> farm_;
  std::unique_ptr<store::Reader> reader_;
  Prng prng_;
  Batch batch_;
  std::uint32_t last_job_ = 0, last_worker_ = 0;
  Instant turn_began_{}, asleep_since_{}, awake_by_ = Instant::never();
  std::uint64_t last_session_ = 0;
  std::unordered_map<std::string, WorkerNo> worker_numbers_;
  std::unordered_map<WorkerNo, std::uint64_t> sessions_, not_resumable_;
  struct Uncommitted {
    JobNo job;
    std::string digest, id;
  };
  std::unordered_map<std::string, Uncommitted>
      uncommitted_;  // "k" + key, "i" + id of jobs that the reader may not see yet

  std::unique_ptr<PageCache> pages_;  // any thread

  std::mutex mutex_;
  std::condition_variable wake_engine_, wake_committer_, committer_free_;
  std::vector<Call> inbox_;
  bool closing_ = false, no_more_batches_ = false;
  bool idle_ = true;  // the committer has no batch that is not on disk
  std::unique_ptr<Batch> pending_;
  std::vector<std::string> committed_names_;
  bool abandoned_ = false;  // commit thread
  Instant given_up_at_{};   // likewise: when a stop no longer waits for the disk

  std::atomic<std::uint64_t> events_{0}, batches_{0}, commits_{0}, commit_us_{0}, tasks_ended_{0}, assigned_{0};
  std::atomic<bool> storage_full_{false};
  std::thread engine_, committer_;
};

}  // namespace

Result<std::unique_ptr<LocalQueue>> LocalQueue::start(store::Store& store, const Clock& clock, LocalOptions options,
                                                      Deliver deliver) {
  if (const auto names = core::policy_names(); std::find(names.begin(), names.end(), options.policy) == names.end()) {
    auto refused = core::Farm({}).set_policy(options.policy);
    return std::move(refused).error();
  }
  auto engine = std::make_unique<Engine>(store, clock, std::move(options), std::move(deliver));
  if (auto loaded = engine->load(); !loaded.ok()) return std::move(loaded).error();
  engine->run();
  return std::unique_ptr<LocalQueue>(std::move(engine));
}

}  // namespace grange::queue
