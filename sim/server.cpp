#include "server.hpp"

#include "sessions.hpp"

namespace grange::sim {

Server::Server(World& world, Net& net, Auditor& auditor, const Options& options)
    : world_(world),
      net_(net),
      auditor_(auditor),
      options_(options),
      dice_(options.seed, 3),
      disk_("grange-sim", options.seed) {}

Server::~Server() {
  disk_.fault_at(1, testing::Fault::power_off);  // nothing need be written any more
  sessions_.reset();
  turn_.reset();
  reader_.reset();
  store_.reset();
}

void Server::boundary(std::string_view where) {
  if (die_in_ == 0 || --die_in_ != 0) return;
  world_.trace("server: dies {}", where);
  throw Died{};
}

void Server::guarded(const std::function<void()>& f) {
  try {
    f();
  } catch (const Died&) {
    die("");
  }
}

void Server::die(std::string_view why) {
  if (!why.empty()) world_.trace("server: dies {}", why);
  if (batch_ != nullptr || released_ != nullptr) GRANGE_MARK("crash_with_work_in_flight");
  if (released_ != nullptr) GRANGE_MARK("crash_between_commit_and_release");
  if (!doubt_.empty()) GRANGE_MARK("crash_in_commit");
  life_ += 1;
  net_.server_died(dice_.chance(0.2));
  auditor_.all_disturbed();
  disk_.fault_at(1, testing::Fault::power_off);
  sessions_.reset();
  turn_.reset();
  reader_.reset();
  store_.reset();
  inbox_.clear();
  batch_.reset();
  released_.reset();
  wake_ = Instant::never();
  awake_by_ = Instant::never();
  users_.clear();
  turn_began_ = {};
  stalled_until_ = {};
  die_in_ = 0;
  storage_full_ = false;
  if (power_) {
    world_.fault(static_cast<std::size_t>(Fault::power_loss));
    disk_.crash();
  } else {
    disk_.kill();
  }
  power_ = disk_kills_ = false;
  const std::uint64_t life = life_;
  world_.after(dice_.skewed(ms(3000)), [this, life] {
    if (life == life_ && !up()) start();
  });
}

void Server::start() {
  const auto again = [this](const Error& why) {
    world_.trace("server: cannot start: {}", why.message);
    if (why.cls == ErrorClass::storage_damaged) violated("S1", "the store is damaged after a restart: " + why.message);
    disk_.fault_at(1, testing::Fault::power_off);
    turn_.reset();
    reader_.reset();
    store_.reset();
    disk_kills_ ? disk_.crash() : disk_.kill();
    disk_kills_ = false;
    const std::uint64_t life = life_;
    world_.after(ms(1000), [this, life] {
      if (life == life_ && !up()) start();
    });
  };
  auto store = store::Store::open(
      {.directory = "/sim", .vfs = disk_.name(), .page_size = options_.page_size, .farm_only = true});
  if (!store) return again(store.error());
  store_ = std::move(*store);
  turn_ = std::make_unique<queue::Turn>(
      queue::TurnOptions{
          .policy = options_.policy, .lease = options_.lease, .aging = options_.aging, .seed = options_.seed + life_},
      [this](Now now) { flush(now); });
  if (auto loaded = turn_->load(*store_, world_.now()); !loaded) return again(loaded.error());
  auto reader = store_->reader();
  if (!reader) return again(reader.error());
  reader_ = std::move(*reader);
  if (disk_.fault_met()) disk_.clear_fault();
  restarts_ += life_ > 0 ? 1 : 0;
  started_at_ = world_.mono();
  opened();
  sessions_ = std::make_unique<Sessions>(*this);
  sessions_->listen();
  world_.trace("server: up, incarnation {}", turn_->incarnation());
  schedule(turn_->next_wake());
}

// What was promised must be there, and nothing that was not asked for.
void Server::opened() {
  // A batch in doubt may hold what only the core shows, as the farm's pause: both are asked before it is judged.
  const auto differs = [&](const Fold& fold) {
    if (std::string wrong = fold.differs(*reader_); !wrong.empty()) return wrong;
    const std::string core = fold.differs(turn_->farm());
    return core.empty() ? core : "the core: " + core;
  };
  std::string wrong = differs(fold_);
  if (!wrong.empty() && !doubt_.empty()) {
    Fold with = fold_;
    with.apply(doubt_);
    const std::string other = differs(with);
    if (other.empty()) {
      GRANGE_MARK("doubtful_commit_is_there");
      fold_ = std::move(with);
      wrong.clear();
    } else {
      wrong += "; with the batch in doubt: " + other;
    }
  } else if (!doubt_.empty()) {
    GRANGE_MARK("doubtful_commit_is_not_there");
  }
  doubt_.clear();
  if (!wrong.empty()) violated("S8", "after a restart: " + wrong);
  turn_->farm().check_invariants();
  auditor_.check_store(*reader_);
}

Result<> Server::room() const {
  if (storage_full_) return Error{ErrorClass::storage_full, "The disk is full."};
  return {};
}

void Server::put(queue::Call call) {
  if (!up()) return;
  inbox_.push_back(std::move(call));
  if (batch_ == nullptr || inbox_.size() == 1) schedule(world_.mono() + dice_.span(Micros{5}, Micros{400}));
}

void Server::schedule(Instant at) {
  if (at == Instant::never() || at >= wake_) return;
  wake_ = std::max(at, world_.mono());
  const std::uint64_t life = life_;
  world_.at(wake_, [this, life, due = wake_] {
    if (life != life_ || !up() || wake_ != due) return;
    wake_ = Instant::never();
    guarded([this] { engine(); });
  });
}

void Server::engine() {
  if (stalled_until_ > world_.mono()) return schedule(stalled_until_);
  std::vector<queue::Call> calls;
  calls.swap(inbox_);
  const Now now = world_.now();
  // As in queue/local.cpp: were we away, then what the workers said meanwhile is still unread.
  const Micros grace = std::chrono::duration_cast<Micros>(options_.lease) / 3;
  const bool slow = turn_began_.us != 0 && asleep_since_ - turn_began_ > grace;
  const bool late = slow || (awake_by_ != Instant::never() && now.mono > std::max(awake_by_, asleep_since_) + grace);
  if (late) GRANGE_MARK("engine_overslept");
  turn_began_ = now.mono;
  boundary("before its calls");
  for (queue::Call& call : calls) {
    turn_->take(std::move(call), now);
    boundary("between two calls");
  }
  turn_->turn(now, late);
  boundary("after a turn");
  if (++turns_ % 4 == 0) look_inside();
  seal();
  awake_by_ = turn_->next_wake();
  asleep_since_ = world_.mono();
  schedule(awake_by_);
  if (!inbox_.empty()) schedule(world_.mono());
}

// The inside, seen from the outside: one hold a task, and no worker beyond what it has (S5, S9).
void Server::look_inside() {
  const core::Farm& farm = turn_->farm();
  farm.check_invariants();
  for (const core::WorkerView& w : farm.workers()) {
    if (w.cpus_used_milli > w.capacity.cpus_milli)
      violated("S9", fmt::format("worker {} has {} milli-cpus and was given {}", w.worker.value, w.capacity.cpus_milli,
                                 w.cpus_used_milli));
  }
  // A quota may be lowered under what runs; then nothing is added to that.
  for (core::UserView& u : turn_->farm().users()) {
    core::UserView& last = users_[u.user];
    const std::uint32_t most = u.limits.max_running;
    const bool adopting = world_.mono() - started_at_ < std::chrono::duration_cast<Micros>(options_.lease) + ms(5000);
    if (most > 0 && u.running > most && last.limits == u.limits && u.running > last.running && !adopting)
      violated("S14", fmt::format("user {} may run {} tasks and was given {}", u.user, most, u.running));
    last = std::move(u);
  }
}

void Server::seal() {
  if (batch_ != nullptr || released_ != nullptr || !turn_->has_batch()) return;
  batch_ = turn_->seal(world_.now());
  if (batch_ == nullptr) return;
  boundary("after a batch was sealed");
  if (GRANGE_MUTANT("send_before_commit")) {
    std::vector<queue::Call> later;
    turn_->release(
        *batch_, *store_, [this](queue::Delivery d) { sessions_->deliver(std::move(d)); }, later);
    batch_->answers.clear();
    for (auto* list : {&batch_->effects.assign}) list->clear();
    batch_->effects.acks.clear();
  }
  sealed_ += 1;
  commit_in(batch_->effects.records.empty() ? Micros{10} : dice_.skewed(options_.commit_mean));
}

void Server::commit_in(Micros wait) {
  world_.after(wait, [this, life = life_, no = sealed_] {
    if (life == life_ && no == sealed_ && batch_ != nullptr) guarded([this] { commit(); });
  });
}

bool Server::write(queue::Batch& batch) {
  if (batch.effects.records.empty()) return true;
  auto done = store_->commit({batch.effects.records, batch.bodies});
  if (done) {
    fold_.apply(batch.effects.records);
    doubt_.clear();
    storage_full_ = false;
    return true;
  }
  doubt_ = batch.effects.records;
  if (disk_kills_ && disk_.fault_met()) throw Died{};
  const ErrorClass why = done.error().cls;
  if (why != ErrorClass::storage_full && why != ErrorClass::io)
    violated("S8", "a commit was refused: " + done.error().message);
  storage_full_ = true;
  if (why == ErrorClass::storage_full) GRANGE_MARK("commit_met_full_disk");
  if (why == ErrorClass::io) GRANGE_MARK("commit_met_io_error");
  world_.trace("server: a commit failed: {}", done.error().message);
  return false;
}

void Server::commit() {
  boundary("before a commit");
  if (!write(*batch_)) {
    auditor_.all_disturbed();
    return commit_in(ms(500));
  }
  released_ = std::move(batch_);
  boundary("after a commit");
  turn_->committed(*released_);
  boundary("before a release");
  world_.after(dice_.span(Micros{1}, Micros{300}), [this, life = life_, no = sealed_] {
    if (life == life_ && no == sealed_ && released_ != nullptr) guarded([this] { release(); });
  });
}

void Server::release() {
  std::vector<queue::Call> later;
  turn_->release(
      *released_, *store_, [this](queue::Delivery d) { sessions_->deliver(std::move(d)); }, later);
  released_.reset();
  boundary("after a release");
  for (queue::Call& call : later) put(std::move(call));
  seal();
  schedule(turn_->next_wake());
}

// All that was sealed is on disk, and let go, when this returns. The disk's faults that come here end at once.
void Server::flush(Now now) {
  GRANGE_MARK("flush_in_a_turn");
  std::vector<queue::Call> later;
  const auto out = [&](queue::Batch& batch) {
    turn_->release(
        batch, *store_, [this](queue::Delivery d) { sessions_->deliver(std::move(d)); }, later);
  };
  const auto through = [&](std::unique_ptr<queue::Batch> batch) {
    if (batch == nullptr) return;
    while (!write(*batch)) {
      disk_.clear_fault();
      disk_.set_capacity(UINT64_MAX);
    }
    turn_->committed(*batch);
    boundary("in a flush");
    out(*batch);
  };
  if (released_ != nullptr) {
    out(*released_);
    released_.reset();
  }
  through(std::move(batch_));
  through(turn_->seal(now));
  for (queue::Call& call : later) put(std::move(call));
}

// ---------------------------------------------------------------------------------------------------- faults

void Server::die_in_commit(std::uint64_t operation, bool power) {
  if (!up()) return;
  power_ = power;
  disk_kills_ = true;
  disk_.fault_at(operation, testing::Fault::power_off);
}

void Server::disk_error(std::uint64_t operation, bool lasting) {
  if (up()) disk_.fault_at(operation, lasting ? testing::Fault::io_always : testing::Fault::io_once);
}

void Server::disk_full(bool on) {
  disk_.set_capacity(on ? disk_.used() + dice_.below(8192) : UINT64_MAX);
}

void Server::stall(Micros how_long) {
  stalled_until_ = world_.mono() + how_long;
  auditor_.all_disturbed();
}

void Server::restart_with(std::string policy, Millis lease) {
  options_.policy = std::move(policy);
  options_.lease = lease;
  if (up()) die("to be started with other settings");
}

void Server::heal() {
  disk_.clear_fault();
  disk_.set_capacity(UINT64_MAX);
  stalled_until_ = {};
  die_in_ = 0;
  disk_kills_ = false;
}

}  // namespace grange::sim
