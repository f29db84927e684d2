#include "cli/top_text.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/utf8.hpp"

namespace grange::cli::top {
namespace {

using Words = std::vector<std::string>;

TEST(TopText, NothingHostilePasses) {
  EXPECT_EQ(clean("a\x1b[31mb\x07\x7f", true), "a?[31mb??");
  EXPECT_EQ(clean("\xc2\x9b"
                  "31m",
                  true),
            "?31m")
      << "the one-character form of ESC [";
  EXPECT_EQ(clean("\x9b"
                  "31m\xff\xc0\xaf",
                  true),
            "?31m???")
      << "not UTF-8";
  EXPECT_EQ(clean("a\xe2\x80\xae"
                  "b",
                  true),
            "a?b")
      << "right-to-left override";
  EXPECT_EQ(clean("a\xe2\x80\x8b"
                  "b\xef\xbb\xbf",
                  true),
            "ab")
      << "without a width";
  EXPECT_EQ(clean("one\ntwo\tthree", true), "one two three");
  EXPECT_EQ(clean("e\xcc\x81\xcc\x81\xcc\x81\xcc\x81", true), "e\xcc\x81\xcc\x81") << "accents are not piled up";
  EXPECT_EQ(clean("caf\xc3\xa9 \xe6\x97\xa5", false), "caf? ?");
  std::string all;
  for (int c = 0; c < 256; ++c) all += static_cast<char>(c);
  for (const bool utf8 : {true, false}) {
    const std::string once = clean(all, utf8);
    EXPECT_EQ(clean(once, utf8), once);
    EXPECT_TRUE(is_utf8(once));
    EXPECT_TRUE(std::none_of(once.begin(), once.end(), [](unsigned char c) { return c < 0x20 || c == 0x7F; }));
  }
}

TEST(TopText, CountsCells) {
  EXPECT_EQ(width("abc"), 3);
  EXPECT_EQ(width("日本"), 4);
  EXPECT_EQ(width("e\xcc\x81"), 1);
  EXPECT_EQ(width("🚀"), 2);
  EXPECT_EQ(cut("日本語", 5, true), "日本…");
  EXPECT_EQ(cut("日本語", 4, true), "日…");
  EXPECT_EQ(cut("日本語", 6, true), "日本語");
  EXPECT_EQ(cut("abcdef", 4, false), "abc~");
  EXPECT_EQ(cut("abc", 0, true), "");
  for (const std::string& line : wrap("ein langer Satz mit 日本語 und einemsehrlangenWortdasnichtpasst", 12))
    EXPECT_LE(width(line), 12) << line;
  EXPECT_EQ(wrap("one two three", 8), (Words{"one two", "three"}));
  EXPECT_EQ(wrap("", 8), Words{""});
}

TEST(TopText, LogLinesLoseTheirEscapes) {
  EXPECT_EQ(plain_line("\x1b[1;31mred\x1b[0m end"), "red end");
  EXPECT_EQ(plain_line("\x1b]0;title\x07text"), "text");
  EXPECT_EQ(plain_line("\x1b]8;;http://x\x1b\\link"), "link");
  EXPECT_EQ(plain_line("10%\r20%\r100%"), "100%");
  EXPECT_EQ(plain_line("dos\r"), "dos");
  EXPECT_EQ(plain_line("a\tb"), "a   b");
  EXPECT_EQ(plain_line("cut \x1b["), "cut ");
}

TEST(TopText, SmallBars) {
  EXPECT_EQ(spark({0, 1, 2, 4}, 6, true), "  ▁▃▅█");
  EXPECT_EQ(spark({0, 4}, 4, false), "  _#");
  EXPECT_EQ(spark({1, 2, 3}, 2, false, 3), "+#");
  EXPECT_EQ(bar(0.5, 4, false), "##..");
  EXPECT_EQ(bar(7, 3, false), "###");
}

TEST(TopText, AFrameKeepsItsWidth) {
  Frame frame(6, 2, true);
  frame.put(4, 0, "日本");
  EXPECT_EQ(frame.line(0), "    …");
  frame.put(0, 1, "日本");
  frame.put(1, 1, "x");
  EXPECT_EQ(frame.line(1), " x本") << "half of a wide character is none";
  frame.put(-1, 0, "x");
  frame.put(0, 5, "x");
  for (int y = 0; y < 2; ++y) EXPECT_LE(width(frame.line(y)), 6);
}

}  // namespace
}  // namespace grange::cli::top
