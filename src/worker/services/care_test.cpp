// When services are started, ended and started again: told as stories, then driven at random against what must hold.
#include "worker/services/care.hpp"

#include <gtest/gtest.h>

#include <map>

#include "base/prng.hpp"
#include "worker/services/care_spec.hpp"

namespace grange::worker {
namespace {

using What = CareEvent::What;
using Do = CareAction::What;

constexpr Instant at(double seconds) {
  return {1'000'000 + static_cast<std::int64_t>(seconds * 1e6)};
}

CareRule rule(std::string name, std::vector<std::size_t> after = {}, std::uint32_t restarts = 10) {
  CareRule out;
  out.name = std::move(name);
  out.after = std::move(after);
  out.restarts = restarts;
  return out;
}

std::size_t count(const std::vector<CareAction>& all, Do what, std::size_t service = 0) {
  return static_cast<std::size_t>(std::count(all.begin(), all.end(), CareAction{what, service}));
}

TEST(Care, StartsInTheOrderOfAfter) {
  Care care({rule("web", {1}), rule("db")});
  EXPECT_TRUE(care.step({What::start, 0}, at(0)).empty());
  EXPECT_EQ(care.seen(0).state, CareState::starting);
  EXPECT_NE(care.seen(0).note.find("db"), std::string::npos);
  EXPECT_EQ(count(care.step({What::start, 1}, at(0)), Do::spawn, 1), 1u);
  EXPECT_EQ(count(care.tick(at(0.3)), Do::look, 1), 1u);
  const auto then = care.step({What::healthy, 1}, at(0.4));
  EXPECT_EQ(count(then, Do::spawn, 0), 1u);
  EXPECT_EQ(care.seen(1).state, CareState::ready);
}

TEST(Care, ACrashIsRepairedWithGrowingPauses) {
  Care care({rule("a")});
  ASSERT_EQ(count(care.step({What::start, 0}, at(0)), Do::spawn), 1u);
  double now = 0;
  for (const double pause : {1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0}) {
    care.step({What::exited, 0, "It ended with exit code 1."}, at(now));
    EXPECT_EQ(care.seen(0).state, CareState::backing_off);
    EXPECT_EQ(care.next_wake(), at(now + pause));
    EXPECT_TRUE(care.tick(at(now + pause - 0.001)).empty());
    now += pause;
    EXPECT_EQ(count(care.tick(at(now)), Do::spawn), 1u);
  }
  EXPECT_EQ(care.seen(0).restarts, 8u);
  EXPECT_EQ(care.seen(0).last_error, "It ended with exit code 1.");
}

TEST(Care, TooManyCrashesAreAFailureUntilAPersonStartsIt) {
  Care care({rule("a", {}, 2)});
  care.step({What::start, 0}, at(0));
  care.step({What::exited, 0, "one"}, at(1));
  care.tick(at(2));
  care.step({What::exited, 0, "two"}, at(3));
  care.tick(at(5));
  care.step({What::exited, 0, "three"}, at(6));
  EXPECT_EQ(care.seen(0).state, CareState::failed);
  EXPECT_EQ(care.seen(0).last_error, "three");
  EXPECT_EQ(care.next_wake(), Instant::never());
  EXPECT_EQ(count(care.step({What::start, 0}, at(7)), Do::spawn), 1u);
  EXPECT_EQ(care.seen(0).restarts, 0u);
}

TEST(Care, OldCrashesAreForgotten) {
  Care care({rule("a", {}, 2)});
  care.step({What::start, 0}, at(0));
  for (int i = 0; i < 20; ++i) {
    const double now = i * 400;
    care.step({What::exited, 0, "now and then"}, at(now));
    ASSERT_EQ(care.seen(0).state, CareState::backing_off) << i;
    care.tick(at(now + 60));
  }
}

TEST(Care, OneThatDoesNotBecomeReadyIsEnded) {
  Care care({rule("a")});
  care.step({What::start, 0}, at(0));
  EXPECT_EQ(count(care.tick(at(0.25)), Do::look), 1u);
  care.step({What::sick, 0, "nobody there"}, at(0.3));
  const auto then = care.tick(at(120));
  EXPECT_EQ(count(then, Do::end), 1u);
  EXPECT_EQ(count(care.tick(at(130)), Do::kill), 1u);
  care.step({What::exited, 0, "It was ended by signal 9 (SIGKILL)."}, at(130.1));
  EXPECT_EQ(care.seen(0).state, CareState::backing_off);
  EXPECT_EQ(care.seen(0).last_error, "It was not ready within 120 s. nobody there");
}

TEST(Care, ASickOneHasTimeToRecover) {
  Care care({rule("a")});
  care.step({What::start, 0}, at(0));
  const auto look = [&](double when, bool well) {
    EXPECT_EQ(count(care.tick(at(when)), Do::look), 1u) << when;
    care.step({well ? What::healthy : What::sick, 0, "no answer"}, at(when));
  };
  look(1, true);
  look(6, false);
  look(7, false);
  EXPECT_EQ(care.seen(0).state, CareState::ready);
  look(8, false);
  EXPECT_EQ(care.seen(0).state, CareState::unhealthy);
  look(30, true);
  EXPECT_EQ(care.seen(0).state, CareState::ready);
  for (const double when : {35.0, 36.0, 37.0}) look(when, false);
  for (double when = 38; when < 97; when += 1) look(when, false);
  EXPECT_EQ(count(care.tick(at(97)), Do::end), 1u);
  care.step({What::exited, 0, "ended"}, at(98));
  EXPECT_EQ(care.seen(0).state, CareState::backing_off);
  EXPECT_EQ(care.seen(0).last_error, "It gave no good answer for 60 s. no answer");
}

TEST(Care, StopIsPoliteThenNot) {
  Care care({rule("a")});
  care.step({What::start, 0}, at(0));
  EXPECT_EQ(count(care.step({What::stop, 0}, at(1)), Do::end), 1u);
  EXPECT_TRUE(care.step({What::stop, 0}, at(2)).empty());
  EXPECT_EQ(count(care.tick(at(11)), Do::kill), 1u);
  EXPECT_TRUE(care.tick(at(12)).empty());
  EXPECT_TRUE(care.seen(0).alive);
  care.step({What::exited, 0, "gone"}, at(12));
  EXPECT_EQ(care.seen(0).state, CareState::stopped);
  EXPECT_TRUE(care.all_gone());
  EXPECT_TRUE(care.step({What::stop, 0}, at(13)).empty());
}

TEST(Care, ARestartIsNoCrash) {
  Care care({rule("a", {}, 0)});
  care.step({What::start, 0}, at(0));
  care.tick(at(0.3));
  care.step({What::healthy, 0}, at(0.4));
  EXPECT_TRUE(care.step({What::start, 0}, at(0.5)).empty());
  EXPECT_EQ(count(care.step({What::restart, 0}, at(1)), Do::end), 1u);
  EXPECT_EQ(care.seen(0).state, CareState::starting);
  EXPECT_EQ(count(care.step({What::exited, 0, "ended"}, at(1.5)), Do::spawn), 1u);
  EXPECT_EQ(care.seen(0).restarts, 0u);
  EXPECT_EQ(care.seen(0).last_error, "");
}

TEST(Care, StartedAgainWhileItEnds) {
  Care care({rule("a")});
  care.step({What::start, 0}, at(0));
  care.step({What::stop, 0}, at(1));
  EXPECT_TRUE(care.step({What::start, 0}, at(2)).empty());
  EXPECT_EQ(count(care.step({What::exited, 0, "gone"}, at(3)), Do::spawn), 1u);
}

TEST(Care, TooMuchMemoryIsACrash) {
  Care care({rule("a")});
  care.step({What::start, 0}, at(0));
  EXPECT_EQ(count(care.step({What::too_big, 0, "It used 9 MiB."}, at(1)), Do::end), 1u);
  EXPECT_TRUE(care.step({What::too_big, 0, "again"}, at(2)).empty());
  care.step({What::exited, 0, "ended"}, at(3));
  EXPECT_EQ(care.seen(0).last_error, "It used 9 MiB.");
  EXPECT_EQ(care.seen(0).restarts, 1u);
}

TEST(Care, WhatIsNeededMustRun) {
  Care care({rule("web", {1}), rule("db")});
  EXPECT_FALSE(care.may_start(0).ok());
  EXPECT_TRUE(care.may_start(1).ok());
  care.step({What::start, 1}, at(0));
  EXPECT_TRUE(care.may_start(0).ok());
}

// A world that answers as it likes, and what must hold whatever happens.
TEST(CareProperty, HoldsUnderAnything) {
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    Prng prng(seed);
    const std::size_t n = 1 + prng.below(4);
    std::vector<CareRule> rules;
    for (std::size_t i = 0; i < n; ++i) {
      std::vector<std::size_t> after;
      if (i > 0 && prng.below(2) == 0) after.push_back(prng.below(i));
      rules.push_back(rule("s" + std::to_string(i), after, static_cast<std::uint32_t>(prng.below(5))));
      if (prng.below(4) == 0) rules.back().hang_timeout = Micros{0};
    }
    Care care(rules);
    struct World {
      bool alive = false, asked = false, looked = false, wanted = false;
      std::vector<Instant> born;  // since a person's last word
    };
    std::vector<World> world(n);
    Instant now = at(0);
    const auto check = [&](const std::vector<CareAction>& actions) {
      for (const CareAction& action : actions) {
        World& one = world[action.service];
        switch (action.what) {
          case Do::spawn: {
            ASSERT_FALSE(one.alive) << "two processes, seed " << seed;
            ASSERT_TRUE(one.wanted) << "nobody wants it, seed " << seed;
            for (const std::size_t other : rules[action.service].after)
              ASSERT_EQ(care.seen(other).state, CareState::ready) << "seed " << seed;
            one.alive = true;
            one.asked = one.looked = false;
            std::erase_if(one.born, [&](Instant then) { return now - then >= kCareWindow; });
            one.born.push_back(now);
            // Its first start, and as many again as it may have; backing off at least a second between two.
            ASSERT_LE(one.born.size(), rules[action.service].restarts + 1u) << "seed " << seed;
            break;
          }
          case Do::end:
            ASSERT_TRUE(one.alive && !one.asked) << "seed " << seed;
            one.asked = true;
            break;
          case Do::kill:
            ASSERT_TRUE(one.alive && one.asked) << "seed " << seed;
            break;
          case Do::look:
            ASSERT_TRUE(one.alive && !one.asked && !one.looked) << "seed " << seed;
            one.looked = true;
            break;
        }
      }
    };
    for (int step = 0; step < 300; ++step) {
      const std::size_t i = prng.below(n);
      World& one = world[i];
      const auto tell = [&](What what, const char* why = "") { check(care.step({what, i, why}, now)); };
      switch (prng.below(12)) {
        case 0:
          if (!one.wanted || !one.alive || one.asked || prng.below(2) == 0) {
            // A start of one that runs changes nothing; of any other, all its tries are new.
            if (!(one.alive && !one.asked)) one.born.clear();
            one.wanted = true;
            tell(What::start);
          }
          break;
        case 1:
          one.wanted = false;
          tell(What::stop);
          break;
        case 2:
          one.wanted = true;
          one.born.clear();
          tell(What::restart);
          break;
        case 3:
        case 4:
          if (one.alive) {
            one.alive = one.looked = false;
            tell(What::exited, "it crashed");
          }
          break;
        case 5:
        case 6:
        case 7:
          if (one.looked) {
            one.looked = false;
            tell(What::healthy);
          }
          break;
        case 8:
          if (one.looked) {
            one.looked = false;
            tell(What::sick, "no answer");
          }
          break;
        case 9:
          tell(What::too_big, "big");
          break;
        default: {
          const Instant next = care.next_wake();
          if (next != Instant::never() && prng.below(3) != 0) {
            now = std::max(now, next);
            const auto actions = care.tick(now);
            check(actions);
            // Time that was waited for has come: never a wake that changes nothing for ever.
            ASSERT_TRUE(care.next_wake() > now || !actions.empty()) << "seed " << seed;
          } else {
            now = now + Micros{static_cast<std::int64_t>(prng.below(20'000'000))};
            check(care.tick(now));
          }
        }
      }
      for (std::size_t k = 0; k < n; ++k) {
        const Care::Seen seen = care.seen(k);
        ASSERT_EQ(seen.alive, world[k].alive) << "seed " << seed;
        if (seen.state == CareState::failed) {
          ASSERT_FALSE(seen.alive) << "seed " << seed;
          world[k].wanted = false;
        }
        ASSERT_EQ(seen.state == CareState::stopped || seen.state == CareState::failed, !world[k].wanted)
            << "seed " << seed << " service " << k << " step " << step;
        ASSERT_TRUE(seen.restarts == 0 || !seen.last_error.empty()) << "seed " << seed;
      }
      if (::testing::Test::HasFatalFailure()) return;
    }
    // Everything can be stopped, within the times that were set.
    for (std::size_t i = 0; i < n; ++i) {
      world[i].wanted = false;
      check(care.step({What::stop, i}, now));
    }
    now = now + Micros{11'000'000};
    check(care.tick(now));
    for (std::size_t i = 0; i < n; ++i) {
      if (world[i].alive) check(care.step({What::exited, i, "killed"}, now));
      world[i].alive = false;
    }
    ASSERT_TRUE(care.all_gone());
    ASSERT_EQ(care.next_wake(), Instant::never());
  }
}

// -------------------------------------------------------------------------------------------------- what is written

CareSpec spec(std::string name, std::vector<std::string> after = {}) {
  CareSpec out;
  out.name = std::move(name);
  out.kind = "ollama";
  out.url = "http://127.0.0.1:11434/";
  out.command = {"ollama", "serve"};
  out.after = std::move(after);
  return out;
}

TEST(CareSpecs, AreFilledInAndChecked) {
  const auto good = checked_care({spec("a", {"b"}), spec("b")});
  ASSERT_TRUE(good.ok()) << good.error().message;
  EXPECT_EQ((*good)[0].url, "http://127.0.0.1:11434");
  EXPECT_EQ((*good)[0].health, "/api/version");
  EXPECT_EQ(care_rules(*good)[0].after, std::vector<std::size_t>{1});
  const auto refused = [](auto change) {
    CareSpec one = spec("a");
    change(one);
    return !checked_care({one, spec("b")}).ok();
  };
  EXPECT_FALSE(refused([](CareSpec&) {}));
  EXPECT_TRUE(refused([](CareSpec& one) { one.name = "b"; }));
  EXPECT_TRUE(refused([](CareSpec& one) { one.name = "a/b"; }));
  EXPECT_TRUE(refused([](CareSpec& one) { one.name = "files"; }));
  EXPECT_TRUE(refused([](CareSpec& one) { one.kind = "replicate"; }));
  EXPECT_TRUE(refused([](CareSpec& one) { one.kind = "nothing"; }));
  EXPECT_TRUE(refused([](CareSpec& one) { one.url = "ftp://x"; }));
  EXPECT_TRUE(refused([](CareSpec& one) { one.command.clear(); }));
  EXPECT_TRUE(refused([](CareSpec& one) { one.command.emplace_back("a\0b", 3); }));
  EXPECT_TRUE(refused([](CareSpec& one) { one.env["GRANGE_TOKEN"] = "x"; }));
  EXPECT_TRUE(refused([](CareSpec& one) { one.env["A=B"] = "x"; }));
  EXPECT_TRUE(refused([](CareSpec& one) { one.after = {"nobody"}; }));
  EXPECT_TRUE(refused([](CareSpec& one) { one.after = {"a"}; }));
  EXPECT_TRUE(refused([](CareSpec& one) { one.health = "no-slash"; }));
  EXPECT_FALSE(checked_care({spec("a", {"b"}), spec("b", {"c"}), spec("c", {"a"})}).ok());
  CareSpec other = spec("proxy");
  other.kind = "other";
  other.url = "http://127.0.0.1:7000/v1";
  EXPECT_EQ(checked_care({other})->front().url, "http://127.0.0.1:7000/v1");
  EXPECT_EQ(checked_care({other})->front().health, "/");
}

}  // namespace
}  // namespace grange::worker
