#include "worker/services/care.hpp"

#include <algorithm>

namespace grange::worker {

namespace {

constexpr Micros kStartLook{250'000};
constexpr Micros kReadyLook{std::chrono::seconds(5)};
constexpr Micros kSickLook{std::chrono::seconds(1)};
constexpr int kSickLooks = 3;  // in a row, before it counts as unhealthy

std::string care_seconds(Micros time) {
  const auto ms = time.count() / 1000;
  return ms % 1000 == 0 ? std::to_string(ms / 1000) + " s" : std::to_string(ms) + " ms";
}

}  // namespace

std::string_view name(CareState state) {
  switch (state) {
    case CareState::stopped:
      return "stopped";
    case CareState::starting:
      return "starting";
    case CareState::ready:
      return "ready";
    case CareState::unhealthy:
      return "unhealthy";
    case CareState::backing_off:
      return "backing_off";
    case CareState::failed:
      break;
  }
  return "failed";
}

Care::Care(std::vector<CareRule> rules) : rules_(std::move(rules)), all_(rules_.size()) {
  for (const CareRule& rule : rules_) {
    for (const std::size_t other : rule.after) GRANGE_ASSERT(other < rules_.size());
  }
}

std::vector<CareAction> Care::step(const CareEvent& event, Instant now) {
  GRANGE_ASSERT(event.service < all_.size());
  Actions out;
  One& one = all_[event.service];
  switch (event.what) {
    case CareEvent::What::start:
    case CareEvent::What::stop:
    case CareEvent::What::restart:
      wish(one, event.service, event.what, now, out);
      break;
    case CareEvent::What::exited:
      gone(one, event.why, now);
      break;
    case CareEvent::What::healthy:
    case CareEvent::What::sick:
      looked(one, event.what == CareEvent::What::healthy, event.why, now);
      break;
    case CareEvent::What::too_big:
      if (one.alive && !one.ending) fall(one, event.service, event.why, now, out);
      break;
  }
  settle(now, out);
  return out;
}

std::vector<CareAction> Care::tick(Instant now) {
  Actions out;
  settle(now, out);
  return out;
}

void Care::wish(One& one, std::size_t i, CareEvent::What what, Instant now, Actions& out) {
  if (what == CareEvent::What::stop) {
    one.wanted = false;
    one.state = CareState::stopped;
    if (one.alive) end(one, i, now, out);
    return;
  }
  const bool runs = one.alive && !one.ending;
  one.wanted = true;
  if (what == CareEvent::What::start && runs) return;
  // A person has looked at it: it gets all its tries again.
  one.recent.clear();
  one.restarts = 0;
  one.last_error.clear();
  one.judged = false;
  one.state = CareState::starting;
  if (runs) end(one, i, now, out);
}

void Care::gone(One& one, const std::string& why, Instant now) {
  const bool asked = one.ending && !one.judged;
  one.alive = one.ending = one.killed = one.looking = false;
  one.sick = 0;
  if (!one.wanted) return;                                // stopped
  if (asked && one.state == CareState::starting) return;  // a person's restart
  if (!std::exchange(one.judged, false)) one.last_error = why;
  while (!one.recent.empty() && now - one.recent.front() >= kCareWindow) one.recent.pop_front();
  const CareRule& rule = rules_[static_cast<std::size_t>(&one - all_.data())];
  if (one.recent.size() >= rule.restarts) {
    one.wanted = false;
    one.state = CareState::failed;
    return;
  }
  const auto pause = std::min(kCareBackoff * (1 << std::min<std::size_t>(one.recent.size(), 10)), kCareBackoffMost);
  one.recent.push_back(now);
  ++one.restarts;
  one.state = CareState::backing_off;
  one.back_at = now + pause;
}

void Care::looked(One& one, bool well, const std::string& why, Instant now) {
  if (!std::exchange(one.looking, false) || !one.alive || one.ending) return;
  if (well) {
    one.sick = 0;
    one.state = CareState::ready;
    one.look_at = now + kReadyLook;
    return;
  }
  one.sick_why = why;
  one.look_at = now + (one.state == CareState::starting ? kStartLook : kSickLook);
  if (one.state != CareState::ready || ++one.sick < kSickLooks) return;
  one.state = CareState::unhealthy;
  one.sick_since = now;
}

void Care::end(One& one, std::size_t i, Instant now, Actions& out) {
  if (one.ending) return;
  one.ending = true;
  one.looking = false;
  one.kill_at = now + rules_[i].stop_timeout;
  out.push_back({CareAction::What::end, i});
}

void Care::fall(One& one, std::size_t i, std::string why, Instant now, Actions& out) {
  one.last_error = std::move(why);
  one.judged = true;
  if (one.state == CareState::ready) one.state = CareState::unhealthy;
  one.sick_since = now;
  end(one, i, now, out);
}

bool Care::ready_before(const One& one) const {
  const CareRule& rule = rules_[static_cast<std::size_t>(&one - all_.data())];
  return std::all_of(rule.after.begin(), rule.after.end(),
                     [&](std::size_t other) { return all_[other].state == CareState::ready; });
}

void Care::settle(Instant now, Actions& out) {
  for (std::size_t i = 0; i < all_.size(); ++i) {
    One& one = all_[i];
    const CareRule& rule = rules_[i];
    if (one.alive && one.ending) {
      if (one.killed || now < one.kill_at) continue;
      one.killed = true;
      out.push_back({CareAction::What::kill, i});
    } else if (one.alive) {
      if (one.state == CareState::starting && now >= one.start_by) {
        std::string why = "It was not ready within " + care_seconds(rule.start_timeout) + ".";
        if (!one.sick_why.empty()) why += " " + one.sick_why;
        fall(one, i, std::move(why), now, out);
      } else if (one.state == CareState::unhealthy && rule.hang_timeout.count() > 0 &&
                 now >= one.sick_since + rule.hang_timeout) {
        fall(one, i, "It gave no good answer for " + care_seconds(rule.hang_timeout) + ". " + one.sick_why, now, out);
      } else if (!one.looking && now >= one.look_at) {
        one.looking = true;
        out.push_back({CareAction::What::look, i});
      }
    } else if (one.wanted) {
      if (one.state == CareState::backing_off && now >= one.back_at) one.state = CareState::starting;
      if (one.state != CareState::starting || !ready_before(one)) continue;
      one.alive = true;
      one.judged = false;
      one.sick = 0;
      one.sick_why.clear();
      one.start_by = now + rule.start_timeout;
      one.look_at = now + kStartLook;
      out.push_back({CareAction::What::spawn, i});
    }
  }
}

Instant Care::next_wake() const {
  Instant next = Instant::never();
  const auto at = [&](Instant when) { next = std::min(next, when); };
  for (std::size_t i = 0; i < all_.size(); ++i) {
    const One& one = all_[i];
    if (one.alive && one.ending) {
      if (!one.killed) at(one.kill_at);
    } else if (one.alive) {
      if (!one.looking) at(one.look_at);
      if (one.state == CareState::starting) at(one.start_by);
      if (one.state == CareState::unhealthy && rules_[i].hang_timeout.count() > 0)
        at(one.sick_since + rules_[i].hang_timeout);
    } else if (one.wanted && one.state == CareState::backing_off) {
      at(one.back_at);
    }
  }
  return next;
}

Result<> Care::may_start(std::size_t service) const {
  for (const std::size_t other : rules_[service].after) {
    const CareState state = all_[other].state;
    if (state != CareState::stopped && state != CareState::failed) continue;
    return Error{ErrorClass::conflict, "\"" + rules_[service].name + "\" is started after \"" + rules_[other].name +
                                           "\", which " + (state == CareState::failed ? "has failed" : "is stopped") +
                                           ": start that first."};
  }
  return {};
}

Care::Seen Care::seen(std::size_t service) const {
  const One& one = all_[service];
  Seen out{one.state, one.alive, one.ending, one.restarts, one.last_error, {}};
  if (one.ending) {
    out.note = "It is ending.";
  } else if (one.state == CareState::starting && !one.alive) {
    for (const std::size_t other : rules_[service].after) {
      if (all_[other].state == CareState::ready) continue;
      out.note = "It waits for \"" + rules_[other].name + "\", which is " + std::string(name(all_[other].state)) + ".";
      break;
    }
  } else if (one.state == CareState::starting) {
    out.note = "It is starting.";
  } else if (one.state == CareState::unhealthy) {
    out.note = "It does not answer its health check. " + one.sick_why;
  } else if (one.state == CareState::backing_off) {
    out.note = "It went wrong, and is started again in a moment.";
  } else if (one.state == CareState::failed) {
    out.note = "It went wrong too often, and stays down until it is started with: grange services start";
  } else if (one.state == CareState::stopped) {
    out.note = "It was stopped; start it with: grange services start";
  }
  return out;
}

bool Care::all_gone() const {
  return std::none_of(all_.begin(), all_.end(), [](const One& one) { return one.alive; });
}

}  // namespace grange::worker
