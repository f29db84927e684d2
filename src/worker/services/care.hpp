// When services are started, looked at, ended and started again. Pure: (state, event, time) -> what to do. Whoever
// holds it has the processes, and does what it says.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "base/units.hpp"

namespace grange::worker {

enum class CareState : std::uint8_t { stopped, starting, ready, unhealthy, backing_off, failed };
std::string_view name(CareState state);

struct CareRule {  // of one service
  std::string name;
  std::vector<std::size_t> after;  // must be ready before it is started
  Micros start_timeout{std::chrono::seconds(120)};
  Micros stop_timeout{std::chrono::seconds(10)};  // between the polite and the hard end
  Micros hang_timeout{std::chrono::seconds(60)};  // without an answer to a look, before it is started again; 0: never
  std::uint32_t restarts = 10;                    // within kCareWindow
};

inline constexpr Micros kCareWindow{std::chrono::seconds(600)};
inline constexpr Micros kCareBackoff{std::chrono::seconds(1)}, kCareBackoffMost{std::chrono::seconds(60)};

struct CareEvent {
  enum class What : std::uint8_t {
    start,
    stop,
    restart,  // a person wants it
    exited,   // its process is gone, or could not be made; why
    healthy,
    sick,     // how a look ended
    too_big,  // it uses more memory than it may; why
  };
  What what;
  std::size_t service;
  std::string why = {};
};

struct CareAction {
  enum class What : std::uint8_t {
    spawn,  // make its process; `exited` follows, sooner or later
    end,    // ask it to end
    kill,
    look,  // ask it how it is; `healthy` or `sick` follows, unless it exits
  };
  What what;
  std::size_t service;
  friend bool operator==(const CareAction&, const CareAction&) = default;
};

class Care {
 public:
  explicit Care(std::vector<CareRule> rules);

  std::vector<CareAction> step(const CareEvent& event, Instant now);
  std::vector<CareAction> tick(Instant now);  // at next_wake(), or whenever
  Instant next_wake() const;                  // never: not before an event
  // Nobody can start it now: what must be ready before it is stopped or has failed. Says so.
  Result<> may_start(std::size_t service) const;

  struct Seen {
    CareState state = CareState::stopped;
    bool alive = false;          // it has a process
    bool ending = false;         // which was asked to end
    std::uint32_t restarts = 0;  // since a person last started it
    std::string last_error = {};
    std::string note = {};  // for people: what it waits for
  };
  Seen seen(std::size_t service) const;
  bool all_gone() const;  // no process is left
  const std::vector<CareRule>& rules() const { return rules_; }

 private:
  struct One {
    CareState state = CareState::stopped;
    bool wanted = false, alive = false, ending = false, killed = false, looking = false;
    std::uint32_t restarts = 0;
    int sick = 0;                // looks in a row
    std::deque<Instant> recent;  // restarts
    Instant look_at{}, start_by{}, kill_at{}, back_at{}, sick_since{};
    std::string last_error, sick_why;
    bool judged = false;  // last_error says already why it was ended
  };
  using Actions = std::vector<CareAction>;

  void wish(One& one, std::size_t i, CareEvent::What what, Instant now, Actions& out);
  void gone(One& one, const std::string& why, Instant now);
  void looked(One& one, bool well, const std::string& why, Instant now);
  void end(One& one, std::size_t i, Instant now, Actions& out);
  void fall(One& one, std::size_t i, std::string why, Instant now, Actions& out);
  void settle(Instant now, Actions& out);
  bool ready_before(const One& one) const;

  std::vector<CareRule> rules_;
  std::vector<One> all_;
};

}  // namespace grange::worker
