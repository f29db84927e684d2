#include "cli/term.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace grange::cli {
namespace {

TEST(Table, AlignsColumnsAndCutsTheWidest) {
  Table table({"JOB", "NAME", "DONE"});
  table.align_right(2);
  table.row({"7", "short", "1/1"});
  table.row({"12", "a name that is far too long for the line", "10/100"});
  EXPECT_EQ(table.text(0, false),
            "JOB  NAME                                        DONE\n"
            "7    short                                        1/1\n"
            "12   a name that is far too long for the line  10/100\n");
  EXPECT_EQ(table.text(28, false),
            "JOB  NAME               DONE\n"
            "7    short               1/1\n"
            "12   a name that is…  10/100\n");
}

TEST(Printable, TakesOutWhatATerminalObeys) {
  EXPECT_EQ(printable("a\x1b[2Jb\x07\tc\nd"), "a?[2Jb?\tc d");
  EXPECT_EQ(printable("\xc2\x9b"
                      "2J \xc2\xa0 gr\xc3\xb6\xc3\x9f"
                      "e"),
            "?2J \xc2\xa0 gr\xc3\xb6\xc3\x9f"
            "e");
}

TEST(Table, CountsCharactersNotBytes) {
  Table table({"NAME", "X"});
  table.row({"größe", "1"});
  table.row({"abcde", "2"});
  EXPECT_EQ(table.text(0, false), "NAME   X\ngröße  1\nabcde  2\n");
}

TEST(Table, ColoursOnlyWhenAsked) {
  Table table({"STATUS"});
  table.colour_by_status(0);
  table.row({"failed"});
  EXPECT_EQ(table.text(0, false).find('\x1b'), std::string::npos);
  EXPECT_NE(table.text(0, true).find("\x1b[31mfailed\x1b[0m"), std::string::npos);
}

// A job's name comes from anyone: it must not move the cursor of whoever lists jobs.
TEST(Table, ShowsNoControlCharacters) {
  Table table({"NAME"});
  table.row({"a\x1b[2Jb\nc"});
  EXPECT_EQ(table.text(0, false), "NAME\na?[2Jb c\n");
}

TEST(Shorten, KeepsWholeCharacters) {
  EXPECT_EQ(shorten("abc", 3), "abc");
  EXPECT_EQ(shorten("abcd", 3), "ab…");
  EXPECT_EQ(shorten("äöüß", 3), "äö…");
  EXPECT_EQ(shorten("abc", 0), "");
}

TEST(Human, Durations) {
  const std::pair<double, const char*> cases[] = {{0.0123, "12 ms"},   {0.4, "0.4 s"},      {12.3, "12 s"},
                                                  {59.6, "1 min"},     {200, "3 min 20 s"}, {7500, "2 h 5 min"},
                                                  {356400, "4 d 3 h"}, {-1, "0 ms"}};
  for (const auto& [seconds, text] : cases) EXPECT_EQ(human_duration(seconds), text);
}

TEST(Human, BytesAndCounts) {
  EXPECT_EQ(human_bytes(512), "512 B");
  EXPECT_EQ(human_bytes(1536), "1.5 KiB");
  EXPECT_EQ(human_bytes(64ull << 30), "64 GiB");
  EXPECT_EQ(human_count(0), "0");
  EXPECT_EQ(human_count(999), "999");
  EXPECT_EQ(human_count(1'000'000), "1,000,000");
}

TEST(Human, TimesAgo) {
  const std::int64_t t = parse_iso_ms("2026-01-02T03:04:05.678Z");
  EXPECT_EQ(t, 1767323045678);
  EXPECT_EQ(ago("2026-01-02T03:04:05.678Z", t + 5000), "5 s ago");
  EXPECT_EQ(ago("2026-01-02T03:04:05.678Z", t + 600'000), "10 min ago");
  EXPECT_EQ(ago("2026-01-02T03:04:05.678Z", t - 600'000), "just now") << "clocks differ";
  EXPECT_EQ(ago("", t), "-");
}

TEST(Progress, FitsItsLine) {
  const std::string text = ProgressLine::text(45, 2, 100, 3.2, 80);
  EXPECT_NE(text.find("45/100, 2 failed, 3.2 s"), std::string::npos) << text;
  EXPECT_EQ(std::count(text.begin(), text.end(), '#'), 18) << "45 % of 40";
  EXPECT_EQ(ProgressLine::text(1, 0, 2, 1, 16), "1/2, 1.0 s") << "no room for a bar";
  EXPECT_LE(columns(ProgressLine::text(7, 0, 9, 1, 40)), 40u);
}

}  // namespace
}  // namespace grange::cli
