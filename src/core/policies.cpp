// Which policy is in force, and what each has done.
#include "core/state.hpp"

namespace grange::core {
namespace {

Micros in_force(const Farm::State& s, Now now) {
  return std::max(Micros{0}, now.mono - s.policy_since);
}

}  // namespace

Result<> Farm::set_policy(std::string_view name, Now now, Effects* effects) {
  auto made = policy::make(name);
  if (made == nullptr) {
    std::string known;
    for (const auto n : policy::names()) known += (known.empty() ? "" : ", ") + std::string(n);
    return Error{
        ErrorClass::invalid_argument, "There is no policy '" + std::string(name) + "'. Known are: " + known + ".", {}};
  }
  if (effects != nullptr) {
    s_->farm_kept.policy = name;
    s_->farm_kept.policy_over = s_->options.policy;
    effects->records.push_back(s_->farm_kept);
  }
  s_->clock = now.mono;
  s_->book->active_for += in_force(*s_, now);
  s_->policy_since = now.mono;
  s_->book = &s_->policy_books[std::string(name)];
  s_->policy = std::move(made);
  s_->reservations.clear();
  s_->reindex();
  return {};
}

std::string_view Farm::policy() const {
  return s_->policy->name();
}

std::vector<std::string_view> policy_names() {
  return policy::names();
}

std::vector<PolicyView> Farm::policies(Now now) const {
  std::vector<PolicyView> out;
  for (const auto name : policy::names()) {
    PolicyView v{.name = std::string(name), .active = name == s_->policy->name()};
    if (const auto it = s_->policy_books.find(name); it != s_->policy_books.end()) {
      v.assigned = it->second.assigned;
      v.completed = it->second.completed;
      v.failed = it->second.failed;
      v.active_for = it->second.active_for;
    }
    if (v.active) v.active_for += in_force(*s_, now);
    out.push_back(std::move(v));
  }
  return out;
}

}  // namespace grange::core
