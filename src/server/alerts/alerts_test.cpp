#include "server/alerts/alerts.hpp"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace grange::server {
namespace {

using What = AlertChange::What;

class Bench {
 public:
  AlertState state;
  std::int64_t second = 1000;
  std::vector<AlertChange> see(const AlertLook& look) {
    return step(state, look, {{second++ * 1'000'000}, {1'700'000'000'000 + second * 1000}});
  }
  std::vector<AlertChange> see_for(int seconds, const AlertLook& look) {
    std::vector<AlertChange> all;
    for (int i = 0; i < seconds; ++i) {
      for (AlertChange& one : see(look)) all.push_back(std::move(one));
    }
    return all;
  }
  WallMs wall() const { return {1'700'000'000'000 + second * 1000}; }
  AlertChoice& choice(AlertKind kind) { return state.choices[static_cast<std::size_t>(kind)]; }
};

Sighting lost(const std::string& worker) {
  return {.kind = AlertKind::worker_lost, .subject = worker, .title = worker + " was lost", .worker_id = worker};
}
Sighting hot(double degrees) {
  return {.kind = AlertKind::machine_hot, .subject = "w", .value = degrees};
}

TEST(Alerts, OpenOnceAndEndByThemselves) {
  Bench bench;
  const auto opened = bench.see({lost("a")});
  ASSERT_EQ(opened.size(), 1u);
  EXPECT_EQ(opened[0].what, What::opened);
  EXPECT_TRUE(opened[0].tell);
  EXPECT_EQ(opened[0].alert.id, 1u);
  EXPECT_TRUE(bench.see_for(3600, {lost("a")}).empty()) << "it is not repeated";
  EXPECT_TRUE(bench.see_for(30, {}).empty()) << "it may come back";
  const auto ended = bench.see({});
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].what, What::ended);
  EXPECT_GT(ended[0].alert.ended, ended[0].alert.began);
  EXPECT_TRUE(bench.state.open.empty());
  ASSERT_EQ(bench.state.recent.size(), 1u);
  EXPECT_EQ(bench.see({lost("a")}).at(0).alert.id, 2u);
}

TEST(Alerts, OneThatComesAndGoesStaysOneAlert) {
  Bench bench;
  EXPECT_EQ(bench.see({lost("a")}).size(), 1u);
  for (int i = 0; i < 50; ++i) {
    EXPECT_TRUE(bench.see_for(25, {}).empty());
    EXPECT_TRUE(bench.see_for(3, {lost("a")}).empty());
  }
  EXPECT_EQ(bench.state.open.size(), 1u);
}

TEST(Alerts, AThresholdIsMetFromItOnOrBelowIt) {
  Bench bench;
  bench.choice(AlertKind::machine_hot).holds = Millis{0};
  EXPECT_TRUE(bench.see({hot(89.9)}).empty());
  EXPECT_EQ(bench.see({hot(90)}).size(), 1u);
  bench.choice(AlertKind::disk_low).holds = Millis{0};
  EXPECT_TRUE(bench.see({hot(90), {.kind = AlertKind::disk_low, .value = 10}}).empty());
  EXPECT_EQ(bench.see({hot(90), {.kind = AlertKind::disk_low, .value = 9.9}}).size(), 1u);
}

TEST(Alerts, WhatDoesNotHoldLongEnoughNeverOpens) {
  Bench bench;
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(bench.see_for(60, {hot(100)}).empty()) << "for_s is 60";
    EXPECT_TRUE(bench.see({hot(50)}).empty());
  }
  EXPECT_TRUE(bench.see_for(60, {hot(100)}).empty());
  EXPECT_EQ(bench.see({hot(100)}).size(), 1u);
}

TEST(Alerts, ARuleThatIsOffEndsItsAlertsAtOnce) {
  Bench bench;
  EXPECT_EQ(bench.see({lost("a"), lost("b")}).size(), 2u);
  bench.choice(AlertKind::worker_lost).enabled = false;
  const auto ended = bench.see({lost("a"), lost("b")});
  ASSERT_EQ(ended.size(), 2u);
  EXPECT_EQ(ended[0].what, What::ended);
  EXPECT_TRUE(bench.see_for(100, {lost("a")}).empty());
}

TEST(Alerts, ASilenceIsAboutOneSubjectOrAKind) {
  Bench bench;
  const auto first = bench.see({lost("a")});
  ASSERT_TRUE(silence(bench.state, first.at(0).alert.id, Millis{100'000}, false, bench.wall()).ok());
  EXPECT_GT(bench.state.silenced_until(first[0].alert, bench.wall()), bench.wall());
  bench.see_for(31, {});  // it ends, and comes again
  const auto again = bench.see({lost("a"), lost("b")});
  ASSERT_EQ(again.size(), 2u);
  EXPECT_FALSE(again[0].tell) << "the silence is the subject's, not the alert's";
  EXPECT_TRUE(again[1].tell) << "b is not silenced";
  const auto told = bench.see_for(100, {lost("a"), lost("b")});
  ASSERT_EQ(told.size(), 1u) << "told when the silence is over";
  EXPECT_EQ(told[0].what, What::changed);
  EXPECT_TRUE(told[0].tell);
  EXPECT_EQ(told[0].alert.subject, "a");

  ASSERT_TRUE(silence(bench.state, told[0].alert.id, Millis{1000'000}, true, bench.wall()).ok());
  EXPECT_FALSE(bench.see({lost("a"), lost("b"), lost("c")}).at(0).tell);
  const auto over = bench.see_for(31, {});
  ASSERT_EQ(over.size(), 3u);
  EXPECT_TRUE(over[0].tell) << "who heard that it opened hears that it is over";
  EXPECT_FALSE(over[2].tell) << "nobody heard of c";
  ASSERT_TRUE(silence(bench.state, over[0].alert.id, Millis{0}, true, bench.wall()).ok());
  EXPECT_TRUE(bench.see({lost("d")}).at(0).tell);
  EXPECT_FALSE(silence(bench.state, 999, Millis{1}, false, bench.wall()).ok());
}

TEST(Alerts, ThereAreNotMoreThanThereMayBe) {
  Bench bench;
  AlertLook look;
  for (std::size_t i = 0; i < kAlertsOpen + 5; ++i) look.push_back(lost(std::to_string(i)));
  EXPECT_EQ(bench.see(look).size(), kAlertsOpen);
  EXPECT_EQ(bench.state.left_out, 5u);
  EXPECT_TRUE(bench.see(look).empty());
  EXPECT_EQ(bench.state.left_out, 5u) << "the same ones are counted once";
  bench.see_for(32, {});
  EXPECT_EQ(bench.state.recent.size(), kAlertsRecent);
}

TEST(Alerts, ASilenceThatCannotBeKeptGoesBackToWhatItWas) {
  Bench bench;
  const Alert alert = bench.see({lost("a")}).at(0).alert;
  for (const bool whole_kind : {false, true}) {
    const WallMs before = silence_of(bench.state, alert, whole_kind);
    EXPECT_EQ(before, WallMs{});
    ASSERT_TRUE(silence(bench.state, alert.id, Millis{60'000}, whole_kind, bench.wall()).ok());
    EXPECT_GT(silence_of(bench.state, alert, whole_kind), bench.wall());
    EXPECT_GT(bench.state.silenced_until(alert, bench.wall()), bench.wall());
    set_silence(bench.state, alert, whole_kind, before);
    EXPECT_EQ(bench.state.silenced_until(alert, bench.wall()), WallMs{});
  }
  EXPECT_TRUE(bench.state.silent_subjects.empty());
}

// Whatever happens: never two open of one kind and subject, nothing opens that did not hold for its time, opening and
// ending alternate, and an alert is told at most once each way.
TEST(Alerts, HoldWhateverIsSeen) {
  for (std::uint32_t seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed);
    Bench bench;
    bench.choice(AlertKind::worker_lost).holds = Millis{static_cast<std::int64_t>(random() % 5) * 1000};
    bench.choice(AlertKind::machine_hot).holds = Millis{static_cast<std::int64_t>(random() % 9) * 1000};
    std::map<AlertState::Key, std::uint64_t> open;
    std::map<AlertState::Key, int> held;  // seconds in a row, as a person would count them
    std::map<std::uint64_t, int> told_opened, told_ended;
    for (int second = 0; second < 2000; ++second) {
      AlertLook look;
      std::set<AlertState::Key> bad;
      for (const char* worker : {"a", "b", "c"}) {
        if (random() % 8 < 5 && second % 200 < 120) {
          look.push_back(lost(worker));
          bad.insert({AlertKind::worker_lost, worker});
        }
      }
      const double degrees = 80 + static_cast<double>(random() % 30);
      look.push_back(hot(degrees));
      look.push_back(hot(20));  // a second word about the same is not heard, or the first was none
      if (degrees >= 90) bad.insert({AlertKind::machine_hot, "w"});
      for (auto& [key, n] : held) {
        if (!bad.contains(key)) n = 0;
      }
      for (const auto& key : bad) ++held[key];
      if (random() % 50 == 0 && bench.state.last_id > 0) {
        (void)silence(bench.state, 1 + random() % bench.state.last_id,
                      Millis{static_cast<std::int64_t>(random() % 100) * 1000}, random() % 4 == 0, bench.wall());
      }
      for (const AlertChange& change : bench.see(look)) {
        const AlertState::Key key{change.alert.kind, change.alert.subject};
        if (change.what == What::opened) {
          ASSERT_TRUE(open.emplace(key, change.alert.id).second) << "seed " << seed;
          const Millis holds = bench.state.rule(change.alert.kind).holds;
          ASSERT_GT(held[key] * 1000, holds.count()) << "seed " << seed;
        } else if (change.what == What::ended) {
          ASSERT_EQ(open.at(key), change.alert.id) << "seed " << seed;
          open.erase(key);
        }
        if (!change.tell) continue;
        auto& told = change.what == What::ended ? told_ended : told_opened;
        ASSERT_EQ(++told[change.alert.id], 1) << "seed " << seed;
        if (change.what == What::ended) {
          ASSERT_EQ(told_opened[change.alert.id], 1) << "seed " << seed;
        }
      }
      ASSERT_EQ(open.size(), bench.state.open.size());
    }
    EXPECT_GT(bench.state.last_id, 3u);
  }
}

TEST(Alerts, ARestartFindsRulesSilencesAndAlerts) {
  Bench bench;
  bench.choice(AlertKind::worker_lost) = {.severity = Severity::error};
  bench.choice(AlertKind::job_waits) = without_standard(
      AlertKind::job_waits, {.enabled = true, .threshold = 30, .holds = Millis{1500}, .severity = Severity::warn});
  EXPECT_FALSE(bench.choice(AlertKind::job_waits).enabled) << "as it comes, so it is no choice";
  const auto opened = bench.see({lost("a"), lost("b\"\xc3\xa9")});
  (void)silence(bench.state, 1, Millis{60'000}, false, bench.wall());
  (void)silence(bench.state, 2, Millis{90'000}, true, bench.wall());
  AlertState again;
  for (std::size_t i = 0; i < kAlertKinds; ++i) {
    const auto kind = static_cast<AlertKind>(i);
    const std::string text = kept_rule(bench.state, kind, bench.wall());
    EXPECT_TRUE(text.empty() || restore_rule(again, name(kind), text)) << text;
  }
  EXPECT_EQ(again.choices, bench.state.choices);
  EXPECT_EQ(again.silent_kinds, bench.state.silent_kinds);
  EXPECT_EQ(again.silent_subjects, bench.state.silent_subjects);
  for (const AlertChange& one : opened) {
    EXPECT_TRUE(restore_alert(again, one.alert.id, name(one.alert.kind), one.alert.subject, kept_alert(one.alert),
                              one.alert.began, one.alert.ended));
  }
  ASSERT_EQ(again.open.size(), 2u);
  EXPECT_EQ(again.last_id, 2u);
  const Alert& found = again.open.begin()->second.alert;
  EXPECT_EQ(found.title, "a was lost");
  EXPECT_EQ(found.severity, Severity::error);
  EXPECT_TRUE(found.told);
  bench.state = again;
  EXPECT_TRUE(bench.see_for(10, {lost("a"), lost("b\"\xc3\xa9")}).empty()) << "told before the restart";
  EXPECT_EQ(bench.see_for(31, {}).size(), 2u);

  for (const char* text : {"", "[]", "{", R"({"threshold":"x","for_ms":null,"silent_subjects":7})"})
    (void)restore_rule(again, "job_waits", text);
  EXPECT_FALSE(restore_rule(again, "nothing", "{}"));
  EXPECT_FALSE(restore_alert(again, 9, "nothing", "", "{}", {1}, {0}));
  EXPECT_FALSE(restore_alert(again, 9, "job_waits", "", "no", {1}, {0}));
  EXPECT_EQ(again.last_id, 9u) << "a number is never given twice";
}

TEST(Alerts, EveryKindHasARuleThatAPersonCanRead) {
  std::set<std::string_view> names;
  for (std::size_t i = 0; i < kAlertKinds; ++i) {
    const auto kind = static_cast<AlertKind>(i);
    const AlertKindInfo& about = info(kind);
    EXPECT_TRUE(names.insert(about.name).second);
    EXPECT_EQ(alert_kind(about.name), kind);
    EXPECT_TRUE(about.help.ends_with('.')) << about.name;
    EXPECT_TRUE(!about.unit.empty() || about.standard.threshold == 0) << about.name;
    EXPECT_GE(about.standard.threshold, about.least) << about.name;
    EXPECT_LE(about.standard.threshold, about.most) << about.name;
  }
  EXPECT_FALSE(alert_kind("none"));
  EXPECT_FALSE(severity("bad"));
  EXPECT_EQ(severity(name(Severity::info)), Severity::info);
}

}  // namespace
}  // namespace grange::server
