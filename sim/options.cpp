#include "options.hpp"

#include "core/farm.hpp"

namespace grange::sim {

std::string_view name(Fault fault) {
  constexpr std::array<std::string_view, kFaults> kNames{
      "server_crash", "crash_in_commit", "power_loss",     "io_error",    "disk_full",   "server_stall",
      "worker_crash", "worker_pause",    "worker_slow",    "worker_lies", "cut",         "half_open",
      "one_way",      "stall",           "reconnect",      "retry_storm", "cancel_race", "wall_jump",
      "version_skew", "config_change",   "capacity_change"};
  return kNames[static_cast<std::size_t>(fault)];
}

Options Options::draw(std::uint64_t seed) {
  Dice d(seed, 1);
  Options o;
  o.seed = seed;
  const auto policies = core::policy_names();
  o.policy = std::string(policies[d.below(policies.size())]);
  o.lease = Millis{d.between(6, 30) * 1000};
  o.heartbeat = Millis{o.lease.count() / 3};
  o.aging = d.chance(0.2) ? Millis{d.between(5, 60) * 1000} : Millis{0};
  o.page_size = 512 << d.below(4);
  o.workers = static_cast<std::uint32_t>(d.between(1, 6));
  o.clients = static_cast<std::uint32_t>(d.between(1, 3));
  o.users = static_cast<std::uint32_t>(d.between(1, 3));
  o.ops = static_cast<std::uint32_t>(d.between(6, 30));
  o.tasks_most = d.chance(0.15) ? 60 : static_cast<std::uint32_t>(d.between(1, 12));
  o.slots_most = static_cast<std::uint32_t>(d.between(1, 6));
  o.run_mean = ms(d.between(50, 8000));
  o.faulty = ms(d.between(120'000, 420'000));
  o.commit_mean = ms(d.chance(0.2) ? d.between(50, 800) : d.between(1, 30));
  o.delay_mean = ms(d.chance(0.2) ? d.between(50, 900) : d.between(1, 40));
  o.fails = d.chance(0.6) ? d.unit() * 0.4 : 0;
  o.crashes_worker = d.chance(0.2) ? d.unit() * 0.1 : 0;
  for (bool* feature : {&o.graphs, &o.gangs, &o.speculation, &o.alternatives, &o.deadlines, &o.quotas, &o.pauses,
                        &o.open_jobs, &o.retries, &o.cancels, &o.command, &o.unsatisfiable, &o.checkpoints})
    *feature = d.chance(0.4);
  const bool calm = d.chance(0.08);  // a run without any fault shows what faults may hide
  for (std::size_t i = 0; i < kFaults; ++i) {
    const bool on = d.chance(0.35);
    const auto mean = ms(d.between(10'000, 150'000));
    if (on && !calm) o.every[i] = mean;
  }
  if (o.has(Fault::worker_lies)) o.liars = 1;
  // Crashes cost the most time to simulate: seldom enough that the rest gets its share.
  for (const Fault f : {Fault::server_crash, Fault::crash_in_commit, Fault::config_change, Fault::power_loss}) {
    auto& every = o.every[static_cast<std::size_t>(f)];
    if (every.count() > 0) every = std::max(every * 2, ms(90'000));
  }
  return o;
}

std::string Options::text() const {
  std::string out = fmt::format(
      "seed {}: policy {}, lease {} ms, aging {} ms, page {}; {} workers (+{} liars) of up to {} slots, {} clients, {} "
      "users, {} operations, "
      "up to {} tasks of about {} ms; commit about {} us, network about {} us; tasks fail {:.2f}, kill {:.2f}; faults "
      "for {} s\n  with:",
      seed, policy, lease.count(), aging.count(), page_size, workers, liars, slots_most, clients, users, ops,
      tasks_most, run_mean.count() / 1000, commit_mean.count(), delay_mean.count(), fails, crashes_worker,
      faulty.count() / 1'000'000);
  const std::pair<bool, const char*> features[] = {
      {graphs, "graphs"},          {gangs, "gangs"},     {speculation, "speculation"}, {alternatives, "alternatives"},
      {deadlines, "deadlines"},    {quotas, "quotas"},   {pauses, "pauses"},           {open_jobs, "open jobs"},
      {retries, "retries"},        {cancels, "cancels"}, {command, "commands"},        {unsatisfiable, "unsatisfiable"},
      {checkpoints, "checkpoints"}};
  for (const auto& [on, what] : features) {
    if (on) out += fmt::format(" {}", what);
  }
  out += "\n  faults:";
  for (std::size_t i = 0; i < kFaults; ++i) {
    if (every[i].count() > 0) out += fmt::format(" {}/{}s", name(static_cast<Fault>(i)), every[i].count() / 1'000'000);
  }
  return out;
}

}  // namespace grange::sim
