#include "wire/session.hpp"

#include <gtest/gtest.h>

#include <memory>

#include "base/prng.hpp"

namespace grange::wire {
namespace {

pb::Frame take_back(std::uint64_t task) {
  pb::Frame frame;
  frame.mutable_orders()->add_take_back(task);
  return frame;
}

// Two ends and a wire that is cut at random: everything sent must be acted on once and in order.
TEST(Session, DeliversInOrderOnceWhateverIsCut) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    Prng prng(seed);
    Session a, b;
    std::deque<std::string> to_b, to_a;
    std::vector<std::uint64_t> heard;
    std::uint64_t said = 0;
    const auto pump = [&](bool all) {
      while (!to_b.empty() && (all || prng.below(3) != 0)) {
        pb::Frame frame;
        ASSERT_TRUE(decode(to_b.front(), frame).ok());
        to_b.pop_front();
        const auto verdict = b.arrived(frame);
        ASSERT_NE(verdict, Session::Verdict::gap);
        if (verdict == Session::Verdict::fresh && frame.has_orders()) heard.push_back(frame.orders().take_back(0));
        if (prng.below(2) == 0) {
          pb::Frame ack;
          ack.mutable_only_ack();
          to_a.push_back(b.unnumbered(ack));
        }
      }
      while (!to_a.empty() && (all || prng.below(3) != 0)) {
        pb::Frame frame;
        ASSERT_TRUE(decode(to_a.front(), frame).ok());
        to_a.pop_front();
        ASSERT_EQ(a.arrived(frame), Session::Verdict::fresh);
      }
    };
    const auto reconnect = [&] {
      to_a.clear();
      to_b.clear();
      std::vector<std::string> again;
      ASSERT_TRUE(a.resend(b.received(), again));
      for (auto& bytes : again) to_b.push_back(std::move(bytes));
    };
    for (int step = 0; step < 200; ++step) {
      switch (prng.below(4)) {
        case 0:
        case 1: {
          auto frame = take_back(said++);
          to_b.push_back(a.number(frame));
          break;
        }
        case 2:
          pump(false);
          break;
        default:
          if (prng.below(5) == 0) reconnect();
      }
    }
    reconnect();
    pump(true);
    ASSERT_EQ(heard.size(), said);
    for (std::uint64_t i = 0; i < said; ++i) ASSERT_EQ(heard[i], i);
  }
}

TEST(Session, RefusesAResumeThatCannotBeTrue) {
  Session a;
  auto frame = take_back(1);
  (void)a.number(frame);
  std::vector<std::string> out;
  EXPECT_FALSE(a.resend(2, out));
  EXPECT_TRUE(a.resend(1, out));
  EXPECT_FALSE(a.resend(0, out)) << "frame 1 was acknowledged and is gone";
}

TEST(Session, SeesAGapAndARepeat) {
  Session b;
  auto frame = take_back(1);
  frame.set_seq(2);
  EXPECT_EQ(b.arrived(frame), Session::Verdict::gap);
  frame.set_seq(1);
  EXPECT_EQ(b.arrived(frame), Session::Verdict::fresh);
  EXPECT_EQ(b.arrived(frame), Session::Verdict::repeat);
  EXPECT_EQ(b.received(), 1u);
}

TEST(Frames, AnyBytesGetAnAnswer) {
  Prng prng(7);
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes(prng.below(64), '\0');
    for (char& c : bytes) c = static_cast<char>(prng.next());
    pb::Frame frame;
    const auto result = decode(bytes, frame);
    if (!result.ok()) {
      EXPECT_FALSE(result.error().message.empty());
    }
  }
  pb::Frame frame;
  EXPECT_EQ(decode(std::string(limits::kFrame + 1, 'x'), frame).error().cls, ErrorClass::too_large);
  EXPECT_FALSE(decode("", frame).ok());
}

TEST(Frames, SessionIdsAreChecked) {
  EXPECT_TRUE(valid_session_id("abc-DEF_9"));
  EXPECT_FALSE(valid_session_id(""));
  EXPECT_FALSE(valid_session_id("a b"));
  EXPECT_FALSE(valid_session_id(std::string(65, 'a')));
}

}  // namespace
}  // namespace grange::wire
