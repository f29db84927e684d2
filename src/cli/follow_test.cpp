#include "cli/follow.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/json.hpp>

namespace grange::cli {
namespace {

TEST(ReadLog, BytesThatAreNotTextComeWhole) {
  std::string cursor;
  const LogChunk chunk =
      read_log(json::parse(R"({"cursor":17,"index":3,"stream":"stderr","text":"?","data_base64":"/wAKYQ=="})"), cursor);
  EXPECT_EQ(cursor, "17");
  EXPECT_EQ(chunk.index, 3u);
  EXPECT_EQ(chunk.stream, "stderr");
  EXPECT_EQ(chunk.bytes, std::string("\xff\0\na", 4));
}

TEST(ReadLog, CursorsMayBeText) {
  std::string cursor;
  read_log(json::parse(R"({"cursor":"a/1","index":0,"stream":"stdout","text":"x"})"), cursor);
  EXPECT_EQ(cursor, "a/1");
}

TEST(Base64, Decodes) {
  EXPECT_EQ(base64_decode(""), "");
  EXPECT_EQ(base64_decode("Zg=="), "f");
  EXPECT_EQ(base64_decode("Zm9vYmFy"), "foobar");
}

TEST(LogWriter, PrefixesWholeLinesOfEachTask) {
  testing::internal::CaptureStdout();
  LogWriter writer(true);
  const auto put = [&](std::uint32_t index, const char* text) {
    writer.write(nullptr, LogChunk{index, "stdout", text});
  };
  put(1, "a");
  put(2, "x\ny");
  put(1, "b\n");
  writer.flush();
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "[2] x\n[1] ab\n[2] y\n");
}

TEST(ToJson, IsPlain) {
  EXPECT_EQ(to_json(json::parse(R"({"a":[0.131,1,{}],"b\n":[],"c":null,"d":"x\"","e":1500.0,"f":{"g":true}})")),
            R"({"a":[0.131,1,{}],"b\n":[],"c":null,"d":"x\"","e":1500,"f":{"g":true}})");
}

TEST(Escape, KeepsPathsInOnePiece) {
  EXPECT_EQ(escape("a/b?c d&ü"), "a%2Fb%3Fc%20d%26%C3%BC");
}

}  // namespace
}  // namespace grange::cli
