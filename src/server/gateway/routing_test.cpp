#include "server/gateway/routing.hpp"

#include <gtest/gtest.h>

#include <set>

namespace grange::server::gateway {
namespace {

using Why = Choice::Why;
constexpr Instant kNow{1'000'000'000};

pb::Model model(const std::string& name, const std::string& fit = "GOOD", bool loaded = false) {
  pb::Model out;
  out.set_name(name);
  out.set_kind("llm");
  out.set_fit(fit);
  out.set_loaded(loaded);
  return out;
}

pb::Service service(std::vector<pb::Model> models, const std::string& kind = "ollama", std::uint32_t parallel = 0) {
  pb::Service out;
  out.set_name(kind);
  out.set_kind(kind);
  out.set_state("ready");
  out.set_parallel(parallel);
  for (pb::Model& one : models) *out.add_models() = std::move(one);
  return out;
}

struct Routing : ::testing::Test {
  Board board;
  void add(std::uint32_t worker, const pb::Service& one) {
    ServiceList list;
    *list.Add() = one;
    board.set({worker}, "w" + std::to_string(worker), list);
  }
  Choice ask(Ask what = {.dialect = Dialect::openai, .model = "m"}, const std::vector<PlaceId>& but = {},
             Instant at = kNow) const {
    return board.choose(what, but, at);
  }
  // The worker that gets it; 0: nobody.
  std::uint32_t taken(Ask what = {.dialect = Dialect::openai, .model = "m"}, Instant at = kNow) {
    const Choice choice = ask(what, {}, at);
    if (choice.why != Why::chosen) return 0;
    board.took(choice.place->id, what, at);
    return choice.place->worker.value;
  }
};

TEST_F(Routing, LoadedThenGoodThenRiskThenUnknownAndNeverFail) {
  add(1, service({model("m", "FAIL")}));
  EXPECT_EQ(ask().why, Why::does_not_fit);
  add(2, service({model("m", "UNKNOWN")}));
  EXPECT_EQ(ask().place->worker.value, 2u);
  add(3, service({model("m", "RISK")}));
  EXPECT_EQ(ask().place->worker.value, 3u);
  add(4, service({model("m", "GOOD")}));
  EXPECT_EQ(ask().place->worker.value, 4u);
  add(5, service({model("m", "RISK", true)}));
  EXPECT_EQ(ask().place->worker.value, 5u) << "in memory beats all";
  add(6, service({model("other", "GOOD", true)}));
  EXPECT_EQ(ask().place->worker.value, 5u);
}

TEST_F(Routing, TheAskedContextDecidesTheFit) {
  pb::Model small = model("m"), large = model("m", "RISK");
  small.set_good_context(4096);
  small.set_max_context(8192);
  large.set_good_context(16'384);
  large.set_max_context(32'768);
  add(1, service({small}));
  add(2, service({large}));
  EXPECT_EQ(ask({.model = "m"}).place->worker.value, 1u);
  EXPECT_EQ(ask({.model = "m", .context = 8192}).place->worker.value, 2u) << "GOOD there, RISK here";
  EXPECT_EQ(ask({.model = "m", .context = 20'000}).place->worker.value, 2u);
  const Choice none = ask({.model = "m", .context = 40'000});
  EXPECT_EQ(none.why, Why::does_not_fit);
  EXPECT_EQ(none.largest, 32'768u);
  EXPECT_EQ(ask({.model = "m", .context = 40'000, .light = true}).why, Why::chosen) << "only a question about it";
}

TEST_F(Routing, FewestStreamsForWhatItWorksOnAtOnce) {
  add(1, service({model("m", "GOOD", true)}, "llamacpp", 2));
  add(2, service({model("m", "GOOD", true)}, "llamacpp", 6));
  std::map<std::uint32_t, int> got;
  for (int i = 0; i < 8; ++i) ++got[taken()];
  EXPECT_EQ(got[1], 2);
  EXPECT_EQ(got[2], 6);
  EXPECT_EQ(ask().why, Why::full);
  board.left(ask().place->id, false);
  EXPECT_EQ(ask().why, Why::chosen);
}

TEST_F(Routing, ALoadedOneIsNotBuriedWhileAnotherIsIdle) {
  add(1, service({model("m", "GOOD", true)}));
  add(2, service({model("m", "GOOD")}));
  for (std::uint32_t i = 0; i < kEasy; ++i) EXPECT_EQ(taken(), 1u);
  EXPECT_EQ(taken(), 2u) << "this many at once are better shared";
}

TEST_F(Routing, TiesGoToTheLeastRecentlyUsed) {
  for (std::uint32_t worker = 1; worker <= 3; ++worker) add(worker, service({model("m")}));
  std::set<std::uint32_t> seen;
  for (int i = 0; i < 3; ++i) {
    const std::uint32_t worker = taken();
    seen.insert(worker);
    for (const auto& [id, place] : board.places()) {
      if (place.worker.value == worker) board.left(id, false);
    }
  }
  EXPECT_EQ(seen.size(), 3u);
}

TEST_F(Routing, AConversationStaysUnlessThereIsACrowd) {
  add(1, service({model("m")}, "openai", 16));
  add(2, service({model("m")}, "openai", 16));
  const Ask talk{.dialect = Dialect::openai, .model = "m", .affinity = 77};
  const std::uint32_t home = taken(talk);
  EXPECT_EQ(taken(talk), home) << "though the other is idle";
  EXPECT_NE(taken(), home);
  Instant late = kNow + kAffinityKept + Micros{1};
  EXPECT_NE(ask(talk, {}, late).place->worker.value, home) << "long ago: the cache is cold";
  int stayed = 2;
  while (taken(talk) == home && stayed < 100) ++stayed;
  EXPECT_GE(stayed, 8);
  EXPECT_LE(stayed, 11) << "the guard against overload";
}

TEST_F(Routing, AConversationMovesToWhereTheModelIsLoaded) {
  add(1, service({model("m")}));
  add(2, service({model("m", "RISK")}));
  const Ask talk{.dialect = Dialect::openai, .model = "m", .affinity = 5};
  EXPECT_EQ(taken(talk), 1u);
  add(2, service({model("m", "RISK", true)}));
  EXPECT_EQ(taken(talk), 2u);
}

TEST_F(Routing, BondsAreBounded) {
  add(1, service({model("m")}));
  for (std::uint64_t i = 1; i <= kAffinities + 10; ++i) {
    const Ask talk{.dialect = Dialect::openai, .model = "m", .affinity = i};
    const Choice choice = ask(talk);
    board.took(choice.place->id, talk, kNow);
    board.left(choice.place->id, false);
  }
  EXPECT_EQ(ask().why, Why::chosen);
}

TEST_F(Routing, Dialects) {
  add(1, service({model("m")}, "llamacpp"));
  EXPECT_EQ(ask({.dialect = Dialect::ollama, .model = "m"}).why, Why::chosen) << "what is asked is translated";
  EXPECT_EQ(ask({.dialect = Dialect::openai, .model = "m"}).why, Why::chosen);
  add(2, service({model("m:latest")}));
  EXPECT_EQ(taken({.dialect = Dialect::ollama, .model = "m"}), 2u) << "who needs no translation comes first";
  EXPECT_EQ(taken({.dialect = Dialect::ollama, .model = "m:latest"}), 2u);
  add(1, service({model("m", "GOOD", true)}, "llamacpp"));
  EXPECT_EQ(ask({.dialect = Dialect::ollama, .model = "m"}).place->worker.value, 1u) << "unless it has it loaded";
  add(3, service({model("picture")}, "comfyui"));
  EXPECT_EQ(ask({.dialect = Dialect::openai, .model = "picture"}).why, Why::unknown);
  EXPECT_EQ(board.names(), (std::vector<std::string>{"m", "m:latest"}));
}

TEST_F(Routing, WhoCannotTakeItNow) {
  pb::Service one = service({model("m")});
  one.set_state("loading");
  add(1, one);
  EXPECT_EQ(ask().why, Why::loading);
  one.set_state("down");
  add(1, one);
  EXPECT_EQ(ask().why, Why::away);
  one.set_state("ready");
  add(1, one);
  const PlaceId place = ask().place->id;
  EXPECT_EQ(ask({.model = "m"}, {place}).why, Why::tried);
  board.cool(place, kNow + Micros{500}, false);
  EXPECT_EQ(ask().why, Why::full);
  board.cool(place, kNow + Micros{500}, true);
  EXPECT_EQ(ask().why, Why::loading);
  EXPECT_FALSE(board.cooled(kNow, kNow + Micros{499}));
  EXPECT_TRUE(board.cooled(kNow, kNow + Micros{500}));
  EXPECT_EQ(ask({.model = "m"}, {}, kNow + Micros{500}).why, Why::chosen);
  board.set_behind({1}, true);
  EXPECT_EQ(ask({.model = "m"}, {}, kNow + Micros{500}).why, Why::full);
  board.set_behind({1}, false);
  board.drain({1});
  EXPECT_EQ(ask({.model = "m"}, {}, kNow + Micros{500}).why, Why::away);
}

TEST_F(Routing, WhatAWorkerThatLeftHadIsAway) {
  add(1, service({model("m:latest")}));
  add(2, service({model("m")}));
  board.drop({1});
  EXPECT_EQ(ask().why, Why::chosen);
  board.drop({2});
  EXPECT_EQ(ask().why, Why::away);
  EXPECT_EQ(ask({.model = "n"}).why, Why::unknown) << "never seen";
  board.set_behind({1}, true);  // what is said of it late changes nothing
  board.drain({1});
  add(1, service({model("n")}));
  EXPECT_EQ(ask().why, Why::away) << "the second had it, too";
  board.forget("w2");
  EXPECT_EQ(ask().why, Why::unknown);
  EXPECT_EQ(ask({.model = "n"}).why, Why::chosen);
}

TEST_F(Routing, WhatTheStoreKnowsOfIsAway) {
  ServiceList list;
  *list.Add() = service({model("m")});
  *list.Add() = service({model("picture")}, "comfyui");
  add(1, service({model("n")}));
  board.remember("w1", list);  // it is here: what it has now counts
  EXPECT_EQ(ask().why, Why::unknown);
  board.remember("w2", list);
  EXPECT_EQ(ask().why, Why::away);
  EXPECT_EQ(ask({.model = "picture"}).why, Why::unknown);
  for (std::size_t i = 0; i < kAbsent; ++i) {
    ServiceList other;
    *other.Add() = service({model("x")});
    board.remember("more" + std::to_string(i), other);
  }
  EXPECT_EQ(ask().why, Why::unknown) << "the oldest is forgotten";
  EXPECT_EQ(ask({.model = "x"}).why, Why::away);
}

TEST_F(Routing, ANewManifestKeepsWhatRuns) {
  add(1, service({model("m")}, "openai", 2));
  EXPECT_EQ(taken(), 1u);
  add(1, service({model("m", "GOOD", true), model("n")}, "openai", 2));
  ASSERT_EQ(board.places().size(), 1u);
  EXPECT_EQ(board.places().begin()->second.active, 1u);
  add(1, service({model("n")}, "openai", 2));
  EXPECT_EQ(ask().why, Why::unknown);
  EXPECT_EQ(ask({.model = "n"}).why, Why::chosen);
}

TEST_F(Routing, AnythingMayStandInAManifest) {
  pb::Service bad = service({model(""), model(std::string(1000, 'x')), model("\xff\xfe"), model("m")}, "openai");
  ServiceList list;
  for (std::size_t i = 0; i < kServices + 20; ++i) {
    bad.set_name("s" + std::to_string(i));
    *list.Add() = bad;
  }
  bad.set_name("s0");
  *list.Add() = bad;
  board.set({9}, "w9", list);
  EXPECT_EQ(board.places().size(), kServices);
  EXPECT_EQ(board.names(), std::vector<std::string>{"m"});
  board.drop({9});
  board.drop({9});
  EXPECT_TRUE(board.places().empty());
  board.left(1, false);
  board.cool(1, kNow, true);
}

}  // namespace
}  // namespace grange::server::gateway
