#include "wire/sse.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace grange::wire {
namespace {

std::vector<SseEvent> read(const std::string& bytes, std::size_t piece) {
  std::vector<SseEvent> events;
  SseParser parser([&](const SseEvent& event) { events.push_back(event); });
  for (std::size_t at = 0; at < bytes.size(); at += piece) parser.feed(std::string_view(bytes).substr(at, piece));
  return events;
}

// However the network cuts it, and whichever line ends it uses.
TEST(Sse, ReadsTheSameInAllPiecesAndLineEnds) {
  const std::string text =
      ": hello\n\nevent: log\nid: 12\ndata: {\"a\":1}\n\ndata: one\ndata:two\ndata\n\nevent: empty\n\nretry: 5\nevent: "
      "end\ndata: x\n\ndata: unfinished\n";
  for (const std::string end : {"\n", "\r\n", "\r"}) {
    std::string bytes;
    for (const char c : text) bytes += c == '\n' ? end : std::string(1, c);
    for (std::size_t piece = 1; piece < 20; ++piece) {
      const auto events = read(bytes, piece);
      ASSERT_EQ(events.size(), 3u) << "piece " << piece;
      EXPECT_EQ(events[0].type, "log");
      EXPECT_EQ(events[0].data, "{\"a\":1}");
      EXPECT_EQ(events[0].id, "12");
      EXPECT_EQ(events[1].type, "message");
      EXPECT_EQ(events[1].data, "one\ntwo\n");
      EXPECT_EQ(events[1].id, "12") << "an id lasts until the next";
      EXPECT_EQ(events[2].type, "end");
      EXPECT_EQ(events[2].data, "x");
    }
  }
}

TEST(Sse, GivesTheLastEventAtTheEndAndFieldsThatAreNotTheStandards) {
  std::vector<std::string> seen;
  SseParser parser([&](const SseEvent& event) { seen.push_back(event.data); }, 100,
                   [&](std::string_view name, std::string_view value) {
                     seen.push_back(std::string(name) + "=" + std::string(value));
                   });
  parser.feed("error: {}\n\ndata: a\n\ndata: b");
  EXPECT_EQ(seen, (std::vector<std::string>{"error={}", "a"}));
  parser.finish();
  EXPECT_EQ(seen, (std::vector<std::string>{"error={}", "a", "b"}));
}

TEST(Sse, StopsAtALineOrAnEventBeyondTheLimit) {
  for (const bool one_line : {true, false}) {
    for (std::size_t piece = 1; piece < 20; ++piece) {
      std::size_t events = 0;
      SseParser parser([&](const SseEvent&) { ++events; }, 16);
      std::string bytes = "data: fits\n\n";
      for (int i = 0; i < 5; ++i) bytes += one_line ? "data:abcd" : "data:abcd\n";
      bytes += "\n\ndata: late\n\n";
      for (std::size_t at = 0; at < bytes.size(); at += piece) parser.feed(std::string_view(bytes).substr(at, piece));
      parser.finish();
      EXPECT_TRUE(parser.full());
      EXPECT_EQ(events, 1u);
    }
  }
}

}  // namespace
}  // namespace grange::wire
