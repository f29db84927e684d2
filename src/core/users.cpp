// What each user has, may have, and is owed.
#include <algorithm>

#include "core/fair.hpp"
#include "core/state.hpp"

namespace grange::core {

std::vector<UserView> Farm::users() const {
  s_->settle();
  double held = 0;
  std::vector<std::pair<const User*, double>> all;
  for (const auto& [name, user] : s_->users) {
    if (!user->limited && user->jobs == 0) continue;
    const Load& l = user->load;
    const double mine = l.tasks == 0 ? 0
                                     : fair::weight_of({.cpus_milli = static_cast<std::uint32_t>(l.cpus_milli),
                                                        .gpus_milli = static_cast<std::uint32_t>(l.gpus_milli),
                                                        .memory = l.memory,
                                                        .engine = {}});
    held += mine;
    all.emplace_back(user.get(), mine);
  }
  std::vector<UserView> out;
  for (const auto& [user, mine] : all) {
    out.push_back({.user = user->name,
                   .limits = user->limits,
                   .queued = user->queued,
                   .running = static_cast<std::uint32_t>(user->load.tasks),
                   .cpus_milli = static_cast<std::uint32_t>(user->load.cpus_milli),
                   .gpus_milli = static_cast<std::uint32_t>(user->load.gpus_milli),
                   .jobs = user->jobs,
                   .usage = user->used,
                   .share = held > 0 ? mine / held : 0});
  }
  return out;
}

}  // namespace grange::core
