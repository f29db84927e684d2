// What needs no socket: rules of rights, events, following, routes, the documentation.
#include <gtest/gtest.h>

#include <set>

#include "base/prng.hpp"
#include "grange/v1/wire.pb.h"
#include "server/api/routes.hpp"
#include "server/api/views.hpp"
#include "server/authorize.hpp"
#include "server/events.hpp"
#include "server/follow.hpp"
#include "server/frame_gate.hpp"
#include "server/text.hpp"
#include "server/web.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {
namespace {

bool ruled(const std::vector<MessageRule>& rules, std::string_view message) {
  return std::any_of(rules.begin(), rules.end(), [&](const MessageRule& rule) { return rule.message == message; });
}

TEST(Views, WorkersAreCalledAsPeopleKnowThem) {
  const auto name = [](WorkerNo worker) { return worker.value == 3 ? std::string("attic") : std::string(); };
  EXPECT_EQ(name_workers("It runs on worker 3.", name), "It runs on worker attic.");
  EXPECT_EQ(name_workers("Worker 3: all taken. The nearest, worker 3: no", name),
            "Worker attic: all taken. The nearest, worker attic: no");
  EXPECT_EQ(name_workers("the largest worker, 3, has 4", name), "the largest worker, attic, has 4");
  for (const char* as_it_is : {"on worker 4", "User 'worker 3' runs 3 tasks", "of 3 workers 3 can", "worker", "worker ",
                               "coworker 3", "", "worker 99999999999999999999"})
    EXPECT_EQ(name_workers(as_it_is, name), as_it_is);
}

TEST(Authorize, EveryFrameAndRequestHasARule) {
  const auto* frame = ::grange::v1::Frame::descriptor();
  for (int i = 0; i < frame->oneof_decl(0)->field_count(); ++i) {
    EXPECT_TRUE(ruled(frame_rules(), frame->oneof_decl(0)->field(i)->name())) << frame->oneof_decl(0)->field(i)->name();
  }
  const auto* request = ::grange::v1::Request::descriptor();
  for (int i = 0; i < request->oneof_decl(0)->field_count(); ++i) {
    EXPECT_TRUE(ruled(frame_rules(), "request." + request->oneof_decl(0)->field(i)->name()))
        << request->oneof_decl(0)->field(i)->name();
  }
  for (const auto& [type, kind] : wire::json_types()) EXPECT_TRUE(ruled(json_rules(), type)) << type;
  EXPECT_FALSE(authorize_message(json_rules(), {"local", PrincipalKind::local}, "made_up", {"message"}).ok());
}

TEST(Authorize, AnonymousSeesOnlyWhatIsOpen) {
  const Principal nobody{"anonymous", PrincipalKind::anonymous};
  std::set<std::string> open;
  for (const Route& route : routes()) {
    if (authorize(nobody, route.action, {"route"}).ok()) open.insert(std::string(route.pattern));
    EXPECT_TRUE(authorize({"t", PrincipalKind::token}, route.action, {"route"}).ok());
  }
  EXPECT_EQ(open, (std::set<std::string>{"/", "/admin", "/assets/{file}", "/compute", "/docs", "/health", "/image",
                                         "/openapi.json", "/ready"}));
  for (const MessageRule& rule : json_rules())
    EXPECT_FALSE(authorize(nobody, rule.action, {"message"}).ok()) << rule.message;
}

TEST(Authorize, TokenIsComparedWhole) {
  const Authenticator keeper("0123456789abcdef");
  net::HttpRequest head;
  EXPECT_EQ(keeper.identify(head)->kind, PrincipalKind::anonymous);
  head.headers["authorization"] = "Bearer 0123456789abcdef";
  EXPECT_EQ(keeper.identify(head)->kind, PrincipalKind::token);
  for (const char* wrong :
       {"Bearer 0123456789abcdeF", "Bearer 0123456789abcde", "Bearer ", "Basic abc", "0123456789abcdef"}) {
    head.headers["authorization"] = wrong;
    EXPECT_EQ(keeper.identify(head).error().cls, ErrorClass::unauthenticated) << wrong;
  }
  EXPECT_EQ(Authenticator("").identify({})->kind, PrincipalKind::local);
}

TEST(Routes, MatchAndParameters) {
  EXPECT_EQ(match_route("GET", "/api/jobs/7/tasks").params.at("id"), "7");
  const Match cancel = match_route("POST", "/api/jobs/job-1/tasks/3/cancel");
  ASSERT_NE(cancel.route, nullptr);
  EXPECT_EQ(cancel.params.at("index"), "3");
  EXPECT_EQ(match_route("GET", "/api/jobs/").route, match_route("GET", "/api/jobs").route);
  EXPECT_EQ(match_route("PATCH", "/api/jobs").allow, "POST, GET");
  for (const char* none : {"/api/nothing", "/api/jobs/7/tasks/3", "//", "/api//jobs", ""})
    EXPECT_EQ(match_route("GET", none).route, nullptr) << none;
}

TEST(Routes, EachStandsInTheDocument) {
  auto document = wire::parse_json(openapi_json());
  ASSERT_TRUE(document.ok());
  const auto& root = document->as_object();
  const auto& schemas = root.at("components").as_object().at("schemas").as_object();
  std::set<std::string> seen;
  for (const Route& route : routes()) {
    std::string method(route.method);
    for (char& c : method) c = static_cast<char>(c + 32);
    ASSERT_TRUE(root.at("paths").as_object().contains(route.pattern)) << route.pattern;
    ASSERT_TRUE(root.at("paths").as_object().at(route.pattern).as_object().contains(method)) << route.pattern;
    EXPECT_TRUE(seen.insert(std::string(route.method) + std::string(route.pattern)).second)
        << "twice: " << route.pattern;
    for (std::string name : {std::string(route.request), std::string(route.response)}) {
      if (name.ends_with("[]")) name.resize(name.size() - 2);
      if (name.empty() || name == "bytes" || name == "html" || name == "text" || name == "sse") continue;
      EXPECT_TRUE(schemas.contains(name)) << name;
    }
  }
}

TEST(Pages, HaveNoOutsideAsset) {
  for (const std::string& text :
       {std::string(no_web_html()), std::string(docs_style()), docs_html(), std::string(docs_script())}) {
    EXPECT_EQ(text.find("http://"), std::string::npos);
    EXPECT_EQ(text.find("https://"), std::string::npos);
    EXPECT_EQ(text.find("innerHTML"), std::string::npos);
    EXPECT_EQ(text.find(" style="), std::string::npos) << "forbidden by our own Content-Security-Policy";
  }
}

struct Heard {
  std::vector<std::uint64_t> facts, gaps;
  std::size_t room = SIZE_MAX;
  Events::Sink sink() {
    return {.fact =
                [this](const Fact& fact) {
                  facts.push_back(fact.number);
                  return --room > 0;
                },
            .gap =
                [this](std::uint64_t next) {
                  gaps.push_back(next);
                  return --room > 0;
                }};
  }
};

TEST(Events, ReplayThenLiveInOrder) {
  Events events(100);
  Heard heard;
  for (int i = 0; i < 5; ++i) events.publish(Topic::jobs, {1}, "1", "t", "{}", {});
  events.follow({.jobs = true}, 102, heard.sink());
  events.publish(Topic::workers, {}, "", "t", "{}", {});
  events.publish(Topic::jobs, {1}, "1", "t", "{}", {});
  EXPECT_EQ(heard.facts, (std::vector<std::uint64_t>{102, 103, 104, 106}));
  EXPECT_TRUE(heard.gaps.empty());
}

TEST(Events, SlowFollowerCatchesUpOrHearsOfTheGap) {
  Events events(0, 10);
  Heard slow;
  slow.room = 2;
  const auto id = *events.follow({.jobs = true}, std::nullopt, slow.sink());
  for (int i = 0; i < 8; ++i) events.publish(Topic::jobs, {1}, "1", "t", "{}", {});
  EXPECT_EQ(slow.facts.size(), 2u);
  slow.room = SIZE_MAX;
  events.writable(id);
  EXPECT_EQ(slow.facts.size(), 8u);
  slow.room = 1;
  for (int i = 0; i < 50; ++i) events.publish(Topic::jobs, {1}, "1", "t", "{}", {});
  slow.room = SIZE_MAX;
  events.writable(id);
  EXPECT_EQ(slow.gaps, (std::vector<std::uint64_t>{58}));
  events.publish(Topic::jobs, {1}, "1", "t", "{}", {});
  EXPECT_EQ(slow.facts.back(), 58u);
  for (std::size_t i = 1; i < slow.facts.size(); ++i) EXPECT_LT(slow.facts[i - 1], slow.facts[i]);
}

TEST(Events, NumbersOfAnEarlierStartAreAGap) {
  Events events(2ull << 32);
  Heard heard;
  events.follow({.jobs = true}, (1ull << 32) + 7, heard.sink());
  EXPECT_EQ(heard.gaps, (std::vector<std::uint64_t>{2ull << 32}));
}

TEST(Events, TopicsAreRead) {
  std::string bad;
  const auto one = Topics::parse({"job:7"}, bad);
  ASSERT_TRUE(one);
  EXPECT_TRUE(one->wants({.topic = Topic::jobs, .job = {7}, .job_id = "mine"}));
  EXPECT_TRUE(one->wants({.topic = Topic::tasks, .job = {7}, .job_id = "mine"}));
  EXPECT_FALSE(one->wants({.topic = Topic::jobs, .job = {8}, .job_id = "8"}));
  EXPECT_FALSE(Topics::parse({"jobs", "nonsense"}, bad));
  EXPECT_EQ(bad, "nonsense");
}

// A follower with any mixture of live outcomes, sweeps and slowness is sent each outcome exactly once, and then it is
// finished.
TEST(Follow, EachOutcomeOnceWhateverTheWeather) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    Prng prng(seed);
    const std::uint32_t count = 1 + static_cast<std::uint32_t>(prng.below(60));
    const std::uint32_t handed_out =
        static_cast<std::uint32_t>(prng.below(count + 1));  // the rest is cancelled with the job
    std::vector<bool> stored(count, false);
    std::vector<int> sent(count, 0);
    std::vector<std::uint32_t> open;
    for (std::uint32_t i = 0; i < handed_out; ++i) open.push_back(i);
    Follow follow(count, prng.below(2) == 0);
    std::int64_t cursor = -1;  // -1: no sweep is under way
    bool ended = false;
    for (int step = 0; step < 5000 && !follow.finished(); ++step) {
      const bool room = prng.below(3) != 0;
      const std::uint64_t what = prng.below(4);
      if (what < 2 && !open.empty()) {
        const std::size_t pick = prng.below(open.size());
        const std::uint32_t index = open[pick];
        open.erase(open.begin() + static_cast<std::ptrdiff_t>(pick));
        stored[index] = true;
        if (follow.take(index, 1, true, true, room)) ++sent[index];
      } else if (open.empty() && !ended) {
        ended = true;
        follow.job_ended();
      } else if (cursor >= 0) {
        std::uint32_t reached = static_cast<std::uint32_t>(cursor);
        std::uint32_t taken = 0;
        for (; reached < count && taken < 3; ++reached) {
          if (!stored[reached]) continue;
          ++taken;
          if (follow.take(reached, 1, true, false, room)) ++sent[reached];
        }
        if (!room) {
          follow.pause_sweep();
          cursor = -1;
        } else if (const auto next = reached < count ? follow.sweep_on(reached) : std::nullopt) {
          cursor = *next;
        } else {
          follow.end_sweep();
          cursor = -1;
        }
      } else {
        if (const auto from = follow.begin_sweep()) cursor = *from;
      }
    }
    ASSERT_TRUE(follow.finished()) << "seed " << seed;
    for (std::uint32_t i = 0; i < count; ++i) EXPECT_EQ(sent[i], stored[i] ? 1 : 0) << "seed " << seed << " task " << i;
    std::uint32_t cancelled = 0;
    while (const auto range = follow.next_unsent(7)) {
      for (std::uint32_t i = range->first; i < range->second; ++i) EXPECT_FALSE(stored[i]);
      cancelled += range->second - range->first;
      follow.has(range->first, range->second);
    }
    EXPECT_EQ(cancelled, count - handed_out) << "seed " << seed;
  }
}

// Tasks fail, are taken up again and end a second time, all inside a running job. Whatever the order of live news and
// looks at the store, the last outcome of each task is what was sent last, and none is sent twice.
TEST(Follow, ASecondOutcomeIsToldToo) {
  for (std::uint64_t seed = 1; seed <= 500; ++seed) {
    Prng prng(seed);
    const auto below = [&](std::uint64_t n) { return static_cast<std::uint32_t>(prng.below(n)); };
    std::uint32_t count = 1 + below(12);
    struct Row {
      Attempt attempt = 0;  // 0: no outcome
      bool completed = false;
    };
    std::vector<Row> stored(count), sent(count);
    std::vector<Attempt> newest(count, 0);
    Follow follow(count, false);
    if (below(2) == 0) {  // a follower that came back, and has the first outcome of task 0
      stored[0] = sent[0] = {.attempt = 1, .completed = false};
      newest[0] = 1;
      follow.has(0, 1);
    }
    const auto say = [&](std::uint32_t i, const Row& row, bool live, bool room) {
      if (!follow.take(i, row.attempt, row.completed, live, room)) return;
      EXPECT_GT(row.attempt, sent[i].attempt) << "seed " << seed << " task " << i;
      sent[i] = row;
    };
    std::int64_t cursor = -1;
    std::vector<Row> page;  // read, and not looked at yet
    std::uint32_t page_from = 0;
    bool ended = false, have_page = false;
    for (int step = 0; step < 20'000 && !follow.finished(); ++step) {
      const bool room = below(3) != 0;
      const std::uint32_t i = below(count);
      switch (below(6)) {
        case 0:
        case 1:
          if (stored[i].attempt != 0 || ended) break;
          stored[i] = {.attempt = ++newest[i], .completed = below(2) == 0 || newest[i] > 4};
          say(i, stored[i], true, room);
          break;
        case 2:  // a retry
          if (!ended && stored[i].attempt != 0 && !stored[i].completed) stored[i] = {};
          break;
        case 3: {
          bool all = !ended;
          for (const Row& row : stored) all = all && row.attempt != 0;
          if (all && step > 200) {
            ended = true;
            follow.job_ended();
          } else if (!ended && count < 14 && below(20) == 0) {
            ++count;
            stored.emplace_back();
            sent.emplace_back();
            newest.push_back(0);
            follow.grow(count);
          }
          break;
        }
        default:
          if (have_page) {
            for (std::uint32_t at = page_from; at < page.size(); ++at) {
              if (page[at].attempt != 0) say(at, page[at], false, room);
            }
            have_page = false;
            cursor = -1;
            if (room) {
              follow.end_sweep();
            } else {
              follow.pause_sweep();
            }
          } else if (cursor >= 0) {
            page = stored;
            page_from = static_cast<std::uint32_t>(cursor);
            have_page = true;
          } else if (const auto from = follow.begin_sweep()) {
            cursor = *from;
          }
          break;
      }
    }
    ASSERT_TRUE(follow.finished()) << "seed " << seed;
    for (std::uint32_t i = 0; i < count; ++i) EXPECT_EQ(sent[i].attempt, stored[i].attempt) << "seed " << seed;
  }
}

TEST(PeerLog, AFewLinesThenOneNowAndThen) {
  PeerLog log;
  int taken = 0;
  for (int i = 0; i < 1000; ++i) taken += log.take({1'000'000}) ? 1 : 0;
  EXPECT_EQ(taken, 5);
  EXPECT_EQ(log.left_out(), 995u);
  EXPECT_FALSE(log.take({2'000'000}));
  EXPECT_TRUE(log.take({11'000'000}));
  EXPECT_FALSE(log.take({11'000'000}));
}

TEST(Text, WhatPeersSayIsMadeFitForTheLog) {
  EXPECT_EQ(for_log("plain \xe2\x82\xac"), "plain \xe2\x82\xac");
  EXPECT_EQ(for_log("a\nb\x1b[2J\x7f"), "a\\x0ab\\x1b[2J\\x7f");
  EXPECT_EQ(for_log("\xff\xc2"), "\\xff\\xc2");
  EXPECT_EQ(for_log("\xc2\x9b"
                    "2J"),
            "\\xc2\\x9b2J");
  EXPECT_EQ(for_log(std::string(1000, 'x')).size(), 203u);
}

TEST(Text, Conversions) {
  EXPECT_EQ(iso_time({1'735'689'600'125}), "2025-01-01T00:00:00.125Z");
  EXPECT_EQ(to_base64("any bytes\xff"), "YW55IGJ5dGVz/w==");
  EXPECT_EQ(from_hex("00fF"), std::string("\0\xff", 2));
  EXPECT_FALSE(from_hex("0"));
  EXPECT_FALSE(from_hex("0g"));
  EXPECT_TRUE(is_utf8("\xe2\x82\xac"));
  for (const char* bad : {"\xff", "\xc0\xaf", "\xed\xa0\x80", "\xe2\x82", "\xf5\x80\x80\x80"})
    EXPECT_FALSE(is_utf8(bad));
  EXPECT_EQ(cut_utf8("a\xe2\x82\xac", 3), "a");
  EXPECT_FALSE(to_number("99999999999999999999"));
  EXPECT_FALSE(to_number("-1"));
  EXPECT_FALSE(to_number("1a"));
}

}  // namespace
}  // namespace grange::server
