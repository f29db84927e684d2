#include "worker/executor_protocol.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>

namespace grange::worker::executor {
namespace {

std::string le(std::uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i));
  return out;
}
std::string framed(char type, const std::string& payload) {
  return le(payload.size() + 1, 4) + type + payload;
}
std::string result_message() {
  return framed(1, le(7, 8) + le(2, 4) + '\1' + le(3, 4) + "abc" + le(2, 4) + "no" + le(5, 4) + "trace" + le(10, 4) +
                       "ValueError");
}

TEST(ExecutorProtocol, ReadsAResultInAnyPieces) {
  const std::string bytes = result_message() + framed(3, le(7, 8) + le(2, 4) + "hello");
  for (std::size_t piece = 1; piece <= bytes.size(); ++piece) {
    Reader reader;
    std::vector<Message> got;
    for (std::size_t at = 0; at < bytes.size(); at += piece) {
      reader.feed(std::string_view(bytes).substr(at, piece));
      for (;;) {
        auto next = reader.next();
        ASSERT_TRUE(next);
        if (!next->has_value()) break;
        got.push_back(std::move(**next));
      }
    }
    ASSERT_EQ(got.size(), 2u);
    const auto& ended = std::get<Ended>(got[0]);
    EXPECT_EQ(ended.task.packed, 7u);
    EXPECT_EQ(ended.attempt, 2u);
    EXPECT_EQ(ended.status, Status::exception);
    EXPECT_EQ(ended.value + ended.message + ended.traceback, "abcnotrace");
    EXPECT_EQ(ended.exception, "ValueError");
    EXPECT_EQ(std::get<Log>(got[1]).text, "hello");
  }
}

TEST(ExecutorProtocol, NonsenseIsAnError) {
  for (const std::string& bad : {framed(9, "x"), framed(1, "short"), le(0, 4), le(0xffffffff, 4),
                                 framed(1, le(7, 8) + le(2, 4) + '\1' + le(99, 4))}) {
    Reader reader;
    reader.feed(bad);
    EXPECT_FALSE(reader.next());
  }
}

TEST(ExecutorProtocol, TotalOnAnyInput) {
  EXPECT_TRUE(rc::check("any bytes", [](const std::string& bytes) {
    Reader reader;
    reader.feed(bytes);
    for (int i = 0; i < 100; ++i) {
      const auto next = reader.next();
      if (!next || !next.value().has_value()) return;
    }
  }));
}

TEST(ExecutorProtocol, RunMessage) {
  RunMessage m;
  m.task = TaskId{5};
  m.attempt = 1;
  m.encoding = 3;
  const std::string sha(32, 's');
  m.sha = sha;
  m.args = "[1]";
  m.job_id = "5";
  EXPECT_EQ(run(m), framed(2, le(5, 8) + le(1, 4) + '\3' + std::string(1, '\0') + sha + le(3, 4) + "[1]" + le(0, 4) +
                                  le(1, 2) + "5" + le(0, 4) + le(0, 4)));
  m.inputs = {{2, "pickle"}, {1, "raw"}};
  m.env = {"A=1"};
  EXPECT_EQ(run(m), framed(2, le(5, 8) + le(1, 4) + '\3' + std::string(1, '\0') + sha + le(3, 4) + "[1]" + le(0, 4) +
                                  le(1, 2) + "5" + le(2, 4) + '\2' + le(6, 4) + "pickle" + '\1' + le(3, 4) + "raw" +
                                  le(1, 4) + le(3, 4) + "A=1"));
  EXPECT_EQ(code(sha, "xyz"), framed(1, sha + "xyz"));
  EXPECT_EQ(leave(), framed(3, ""));
}

}  // namespace
}  // namespace grange::worker::executor
