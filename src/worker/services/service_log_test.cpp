// The output of services: kept in bounds, and shown as text whatever it is.
#include "worker/services/service_log.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "base/prng.hpp"
#include "base/utf8.hpp"
#include "net/net_testing.hpp"

namespace grange::worker {
namespace {

using net::testing::contents;
using net::testing::Scratch;

TEST(CleanText, LeavesTextAndDropsWhatTerminalsObey) {
  EXPECT_EQ(clean_text("plain\tä€𝄞\n"), "plain\tä€𝄞\n");
  EXPECT_EQ(clean_text("\x1b[31mred\x1b[0m"), "red");
  EXPECT_EQ(clean_text("\x1b]0;title\a!\x1b]52;c;AAAA\x1b\\?"), "!?");
  EXPECT_EQ(clean_text("10%\r20%\r\ndone\n"), "10%\n20%\ndone\n");
  EXPECT_EQ(clean_text(std::string_view("a\0b\x07\x7f", 5)), "ab");
  EXPECT_EQ(clean_text("\xff\xc3("), "\xEF\xBF\xBD\xEF\xBF\xBD(");
  EXPECT_EQ(clean_text("x\xC2\x9B"
                       "31m"),
            "x31m");  // CSI of one byte
  EXPECT_EQ(clean_text("\xed\xa0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(clean_text("\x1b"), "");
}

TEST(CleanText, IsTextWhateverComes) {
  Prng prng(7);
  for (int i = 0; i < 3000; ++i) {
    std::string bytes(prng.below(200), '\0');
    for (char& c : bytes) {
      const auto kind = prng.below(4);
      c = static_cast<char>(kind == 0 ? 0x1b : kind == 1 ? "[];m\r\n\a\\"[prng.below(8)] : prng.below(256));
    }
    const std::string text = clean_text(bytes);
    ASSERT_TRUE(is_utf8(text));
    for (const char c : text) ASSERT_TRUE(static_cast<unsigned char>(c) >= 0x20 || c == '\n' || c == '\t');
    ASSERT_EQ(text.find('\x7f'), std::string::npos);
    ASSERT_EQ(clean_text(text), text);
  }
}

TEST(LastLines, OfTheEnd) {
  EXPECT_EQ(last_lines("a\nb\nc\n", 2, 100), "b\nc\n");
  EXPECT_EQ(last_lines("a\nb\nc", 2, 100), "b\nc");
  EXPECT_EQ(last_lines("a\nb\n", 9, 100), "a\nb\n");
  EXPECT_EQ(last_lines("\n\n", 1, 100), "\n");
  EXPECT_EQ(last_lines("", 5, 100), "");
  EXPECT_EQ(last_lines("aaaa\nbb\ncc\n", 9, 7), "bb\ncc\n");
  EXPECT_EQ(last_lines("ä€€", 1, 4), "€");  // never inside a character
}

TEST(ServiceLogs, TurnOverAndStayInBounds) {
  Scratch scratch;
  ServiceLog log(scratch.file("a.log"), 1000);
  for (int i = 0; i < 100; ++i)
    ASSERT_TRUE(log.append("line " + std::to_string(i) + " of many, of fifty bytes or so ...\n"));
  EXPECT_LE(std::filesystem::file_size(scratch.file("a.log")), 1000u);
  EXPECT_LE(std::filesystem::file_size(scratch.file("a.log.1")), 1000u);
  const auto tail = log.tail(30, 0);  // over both files
  EXPECT_TRUE(tail.text.ends_with("line 99 of many, of fifty bytes or so ...\n"));
  EXPECT_TRUE(tail.text.starts_with("line 70 "));
  EXPECT_EQ(log.tail(3, 0).text.find("line 96"), std::string::npos);
}

TEST(ServiceLogs, GoOnWhereTheyWere) {
  Scratch scratch;
  ServiceLog log(scratch.file("a.log"), 1000);
  ASSERT_TRUE(log.append("one\ntwo\nhal"));
  const auto first = log.tail(100, 0);
  EXPECT_EQ(first.text, "one\ntwo\n");
  EXPECT_EQ(log.tail(100, first.end).text, "");
  ASSERT_TRUE(log.append("f\nthree\n"));
  const auto second = log.tail(100, first.end);
  EXPECT_EQ(second.text, "half\nthree\n");
  // What was said before it was opened once more counts; a place that never was is the beginning.
  ServiceLog again(scratch.file("a.log"), 1000);
  EXPECT_EQ(again.tail(100, second.end).text, "");
  ASSERT_TRUE(again.line("ours"));
  EXPECT_EQ(again.tail(100, second.end).text, "ours\n");
  EXPECT_EQ(again.tail(1, 99'999).text, "ours\n");
  ASSERT_TRUE(again.append("no end"));
  ASSERT_TRUE(again.line("-- ours"));
  EXPECT_EQ(again.tail(2, 0).text, "no end\n-- ours\n");
}

TEST(ServiceLogs, FollowedOverManyTurns) {
  Scratch scratch;
  ServiceLog log(scratch.file("a.log"), 500);
  Prng prng(3);
  std::string all, heard;
  std::uint64_t end = 0;
  for (int i = 0; i < 500; ++i) {
    const std::string piece = std::string(prng.below(60), static_cast<char>('a' + i % 26)) + "\n";
    all += piece;
    ASSERT_TRUE(log.append(piece));
    if (prng.below(4) != 0) continue;
    const auto more = log.tail(kLogLines, end);
    heard += more.text;
    end = more.end;
  }
  heard += log.tail(kLogLines, end).text;
  EXPECT_EQ(heard, all);
}

TEST(ServiceLogs, NeverFollowALink) {
  Scratch scratch;
  ASSERT_EQ(::symlink(scratch.file("elsewhere").c_str(), scratch.file("a.log").c_str()), 0);
  ServiceLog log(scratch.file("a.log"));
  EXPECT_FALSE(log.append("secret"));
  EXPECT_EQ(log.tail(10, 0).text, "");
  EXPECT_FALSE(std::filesystem::exists(scratch.file("elsewhere")));
}

TEST(ServiceLogs, OneAnswerIsBounded) {
  Scratch scratch;
  ServiceLog log(scratch.file("a.log"), 8 * MiB);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(log.append(std::string(1 * MiB, 'x') + "\n"));
  std::string many;
  for (int i = 0; i < 20'000; ++i) many += "y\n";
  ASSERT_TRUE(log.append(many));
  EXPECT_EQ(log.tail(1'000'000, 0).text.size(), 2 * kLogLines);
  ServiceLog bad(scratch.file("b.log"), 8 * MiB);
  ASSERT_TRUE(bad.append(std::string(3 * MiB, '\xff') + "\n"));
  const auto tail = bad.tail(10, 0);
  EXPECT_LE(tail.text.size(), kLogText);
  EXPECT_TRUE(is_utf8(tail.text));
}

}  // namespace
}  // namespace grange::worker
