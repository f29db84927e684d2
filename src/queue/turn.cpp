#include <algorithm>

#include "queue/turn_impl.hpp"

namespace grange::queue {

Turn::Turn(TurnOptions options, std::function<void(Now)> flush)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(flush))) {}
Turn::~Turn() = default;

Result<> Turn::load(store::Store& store, Now now) {
  Impl& t = *impl_;
  auto loaded = store.load();
  if (!loaded.ok()) return std::move(loaded).error();
  std::unique_ptr<store::Reader> readers[3];  // one a thread and use
  for (auto& reader : readers) {
    auto opened = store.reader();
    if (!opened.ok()) return std::move(opened).error();
    reader = std::move(*opened);
  }
  t.reader = std::move(readers[0]);
  t.pages = std::make_unique<PageCache>(std::move(readers[1]));
  t.inputs = std::make_unique<Inputs>(std::move(readers[2]));
  t.incarnation = loaded->incarnation;
  t.server_id = loaded->server_id;
  t.last_job = loaded->last_job.value;
  t.farm = std::make_unique<core::Farm>(core::FarmOptions{.lease = t.options.lease,
                                                          .incarnation = t.incarnation,
                                                          .seed = t.options.seed,
                                                          .policy = t.options.policy,
                                                          .aging = t.options.aging});
  core::Farm& farm = *t.farm;
  farm.load_farm(loaded->farm);
  for (const auto& user : loaded->users) farm.load_user(user);
  for (const auto& job : loaded->jobs) {
    farm.load_job(job.job, job.header, job.progress, job.open, job.skipped);
    t.inputs->added(job.job, job.header);
  }
  for (const auto& task : loaded->tasks) farm.load_task(task, now);
  for (const auto& w : loaded->workers) {
    t.worker_numbers[w.id] = w.worker;
    t.last_worker = std::max(t.last_worker, w.worker.value);
    if (w.connected) farm.load_expected(w.worker);
    farm.load_quarantine(w.quarantine, now);
    if (w.paused) farm.load_paused(w.worker);
  }
  farm.loaded(now);
  return {};
}

void Turn::take(Call call, Now now) {
  std::visit([&](auto& c) { impl_->on(c, now); }, call);
  impl_->events.fetch_add(1, std::memory_order_relaxed);
}

void Turn::turn(Now now, bool late) {
  Impl& t = *impl_;
  // After the calls: a heartbeat that waited here still counts.
  if (late) (void)t.step(core::Overslept{}, now);
  if (t.farm->next_wake() <= now.mono) (void)t.step(core::Tick{}, now);
  const core::Plan plan = t.farm->plan(now, t.prng);
  if (!plan.empty()) t.farm->apply(plan, now, t.batch.effects);
}

bool Turn::has_batch() const {
  return impl_->has_batch();
}
bool Turn::large() const {
  return impl_->batch.effects.records.size() > limits::kCommitBatch;
}
std::unique_ptr<Batch> Turn::seal(Now now) {
  return impl_->seal(now);
}
Instant Turn::next_wake() const {
  return impl_->farm->next_wake();
}

void Turn::committed(Batch& batch) {
  const std::lock_guard lock(impl_->mutex);
  impl_->committed_jobs = std::max(impl_->committed_jobs, batch.last_job);
  auto& ends = impl_->committed_ends;
  ends.insert(ends.end(), batch.ended.begin(), batch.ended.end());
  auto& extends = impl_->committed_extends;
  extends.insert(extends.end(), batch.extends.begin(), batch.extends.end());
}

std::uint64_t Turn::incarnation() const {
  return impl_->incarnation;
}
const std::string& Turn::server_id() const {
  return impl_->server_id;
}
const core::Farm& Turn::farm() const {
  return *impl_->farm;
}
QueueCounters Turn::counters() const {
  QueueCounters c;
  c.events = impl_->events.load();
  c.batches = impl_->batches.load();
  c.tasks_ended = impl_->tasks_ended.load();
  c.assigned = impl_->assigned.load();
  const std::lock_guard lock(impl_->mutex);
  c.submitted = impl_->submitted;
  c.completed = impl_->completed;
  c.failed = impl_->failed;
  c.waits = impl_->waits;
  return c;
}

std::unique_ptr<Batch> Turn::Impl::seal(Now now) {
  if (!has_batch()) return nullptr;
  catch_up();
  farm->finish_batch(now, batch.effects);
  for (const auto& job : batch.effects.jobs) {
    if (!ended(job.state)) continue;
    ended_uncommitted[job.job] = job;
    batch.ended.push_back(job.job);
  }
  batch.last_job = {last_job};
  auto sealed = std::make_unique<Batch>(std::move(batch));
  batch = {};
  batches.fetch_add(1, std::memory_order_relaxed);
  return sealed;
}

void Turn::Impl::catch_up() {
  JobNo jobs;
  std::vector<JobNo> ends;
  std::vector<std::string> extends;
  {
    const std::lock_guard lock(mutex);
    jobs = committed_jobs;
    ends.swap(committed_ends);
    extends.swap(committed_extends);
  }
  for (; !uncommitted_order.empty() && uncommitted_order.front().first <= jobs; uncommitted_order.pop_front()) {
    const auto it = uncommitted.find(uncommitted_order.front().second);
    if (it != uncommitted.end() && it->second.job <= jobs) uncommitted.erase(it);
  }
  for (const JobNo no : ends) ended_uncommitted.erase(no);
  for (const std::string& key : extends) uncommitted_extends.erase(key);
}

void Turn::Impl::flush(Now now) {
  flush_now(now);
  catch_up();
}

// -------------------------------------------------------------------------------------------------------- workers

void Turn::Impl::on(HelloCall& call, Now now) {
  auto [it, fresh] = worker_numbers.try_emplace(call.body.id);
  if (fresh) it->second = WorkerNo{++last_worker};
  const WorkerNo no = it->second;
  const std::uint64_t session = ++last_session;
  sessions[no] = session;
  const auto body = keep(std::move(call.body));
  auto stepped = step(core::WorkerHello{no, std::move(call.capacity), call.window, std::move(call.held), body}, now);
  if (!call.resumable) not_resumable[no] = session;
  answer(call.done, Result<HelloCall::Answer>(HelloCall::Answer{no, std::move(stepped.refused), session}));
}

void Turn::Impl::on(ReportCall& call, Now now) {
  const WorkerNo w = call.worker;
  (void)step(core::WorkerAlive{w}, now);
  if (call.window != 0) (void)step(core::WorkerWindow{w, call.window}, now);
  if (call.offer) {
    const auto body = keep(std::move(call.offer->body));
    const auto stepped = step(core::WorkerChanged{w, std::move(call.offer->capacity), body}, now);
    if (!stepped.result.ok()) batch.bodies.pop_back();
  }
  for (const Fence& fence : call.started) (void)step(core::AttemptStarted{w, fence}, now);
  for (const Fence& fence : call.paused) (void)step(core::AttemptPaused{w, fence, true}, now);
  for (const Fence& fence : call.resumed) (void)step(core::AttemptPaused{w, fence, false}, now);
  for (auto& [fence, body] : call.checkpoints) {
    (void)step(core::CheckpointTaken{w, fence, keep(std::move(body))}, now);
  }
  for (ResultReport& r : call.results) {
    BodyRef body = core::kNoBody;
    auto& b = r.body;
    if (!r.ok) {
      b.stage = r.stage;
      if (b.exception.empty()) b.exception = r.exception;
    }
    if (!r.ok || !b.value.empty() || !b.value_sha256.empty() || !b.files.empty() || !b.message.empty() ||
        b.exit_code != 0) {
      body = keep(std::move(b));
    }
    (void)step(
        core::AttemptEnded{w, r.fence, r.ok, r.permanent, r.failure, r.run_us, body, r.stage, std::move(r.exception)},
        now);
  }
  for (const Fence& fence : call.preempted) (void)step(core::AttemptPreempted{w, fence}, now);
  for (const Fence& fence : call.returned) (void)step(core::AttemptReturned{w, fence}, now);
}

void Turn::Impl::on(AliveCall& call, Now now) {
  (void)step(core::WorkerAlive{call.worker}, now);
}

void Turn::Impl::on(GoneCall& call, Now now) {
  const auto it = sessions.find(call.worker);
  if (it == sessions.end() || it->second != call.session) return;  // a newer session took its place
  const auto plain = not_resumable.find(call.worker);
  const bool vanished = !call.for_good && plain != not_resumable.end() && plain->second == call.session;
  (void)step(core::WorkerGone{call.worker, call.for_good || vanished, vanished}, now);
}

void Turn::Impl::on(DrainCall& call, Now now) {
  (void)step(core::WorkerDrain{call.worker}, now);
}

void Turn::Impl::on(ReleaseWorkerCall& call, Now now) {
  answer(call.done, step(core::WorkerRelease{call.worker}, now).result);
}

void Turn::Impl::on(PauseWorkerCall& call, Now now) {
  answer(call.done, step(core::WorkerPause{call.worker, call.pause}, now).result);
}

void Turn::Impl::on(ForgetWorkerCall& call, Now now) {
  answer(call.done, step(core::WorkerForget{call.worker}, now).result);
}

void Turn::Impl::on(UnsentCall& call, Now now) {
  if (call.refused.empty()) {
    (void)step(core::AttemptReturned{call.worker, call.fence, true}, now);
    return;
  }
  core::ResultBody body;
  body.message = std::move(call.refused);
  body.stage = core::Stage::download;
  (void)step(core::AttemptEnded{.worker = call.worker,
                                .fence = call.fence,
                                .ok = false,
                                .permanent = true,
                                .failure = core::FailureClass::refused,
                                .body = keep(std::move(body)),
                                .stage = core::Stage::download,
                                .unsent = true},
             now);
}

void Turn::Impl::on(InspectCall& call, Now now) {
  call.look(*farm, now);
}
void Turn::Impl::on(MaintainCall& call, Now) {
  batch.upkeep.push_back(std::move(call.work));
}

}  // namespace grange::queue
