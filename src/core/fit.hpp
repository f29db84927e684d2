// Whether work fits a worker: in principle (a cache answers), in time, and into the room that is left.
#pragma once

#include <cstdint>
#include <vector>

#include "core/state.hpp"

namespace grange::core {

// A worker with room, as a plan fills it.
struct Spare {
  Worker* worker = nullptr;
  Load load;
  std::uint32_t held = 0;
  std::uint64_t last_used = 0;
  std::uint32_t version = 0;  // grows with each grant
  bool kept = false;          // for work of level `kept_level`
  int kept_level = 0;
  JobNo kept_for{};
  bool kept_firmly = false;         // against higher levels, too, where these find room elsewhere
  std::vector<std::uint32_t> gpus;  // of each hold that has some, once asked for
  bool gpus_known = false;

  static Spare of(Worker& w);
  bool has_window() const { return held < worker->window && !(worker->on_trial && held > 0); }
};

// New work may go there, if it fits.
bool takes_work(const Worker& w, Now now);
// It will still be there when work that lasts so long ends.
inline bool lives(const Worker& w, const Request& r, Now now) {
  return r.min_life.count() <= 0 || w.leaves_at == Instant::never() || w.leaves_at - now.mono >= r.min_life;
}
// There are free resources for it, this moment.
bool fits_now(const Farm::State& s, Spare& spare, const Request& r);
void take(Spare& spare, const Request& r, std::uint32_t n);

// How many more tasks of this request, each on so many nodes, the user's quotas allow. `note`: what this plan gave him.
// A gang counts once against starts a minute, and with each of its nodes against all else.
std::uint32_t quota_room(const User& user, const Request& r, std::uint32_t nodes, const UserNote& note, Now now);
double tokens(const Bucket& bucket, std::uint32_t per_minute, Now now);
// What came in since is put into the bucket: for who takes of it, or gives back.
void refill(Bucket& bucket, std::uint32_t per_minute, Now now);
inline bool whole(double tokens) {
  return tokens + 1e-9 >= 1;
}
// When the bucket holds a whole token beside those that are promised already.
Instant next_token(const Bucket& bucket, std::uint32_t per_minute, Now now, std::uint32_t promised = 0);

}  // namespace grange::core
