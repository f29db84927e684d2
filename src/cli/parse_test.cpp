#include "cli/parse.hpp"

#include <gtest/gtest.h>

namespace grange::cli {
namespace {

TEST(ParseDuration, KnowsWhatPeopleWrite) {
  const std::pair<const char*, std::int64_t> cases[] = {{"90", 90'000},      {"0.25", 250},        {"90s", 90'000},
                                                        {"10m", 600'000},    {"1.5h", 5'400'000},  {"250ms", 250},
                                                        {"7d", 604'800'000}, {"1h30m", 5'400'000}, {"0", 0}};
  for (const auto& [text, ms] : cases) {
    const auto parsed = parse_duration(text);
    ASSERT_TRUE(parsed.ok()) << text;
    EXPECT_EQ(parsed->count(), ms) << text;
  }
}

TEST(ParseDuration, RefusesTheRest) {
  for (const char* text :
       {"", "s", "-5", "5x", "1h 30m", "10 m", "1.2.3", "5s5", "inf", "nan", "1e400", "99999999999999999999d"}) {
    const auto parsed = parse_duration(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_EQ(parsed.error().cls, ErrorClass::invalid_argument);
    EXPECT_NE(parsed.error().message.find("10m"), std::string::npos) << "says what to write";
  }
}

TEST(ParseSize, KnowsBothKindsOfUnits) {
  const std::pair<const char*, Bytes> cases[] = {
      {"4096", 4096},   {"512MiB", 512 * MiB}, {"2G", 2 * GiB}, {"1.5GiB", 3 * GiB / 2},
      {"10kB", 10'000}, {"2 GiB", 2 * GiB},    {"7B", 7}};
  for (const auto& [text, bytes] : cases) {
    const auto parsed = parse_size(text);
    ASSERT_TRUE(parsed.ok()) << text;
    EXPECT_EQ(*parsed, bytes) << text;
  }
  for (const char* text : {"", "GiB", "-1", "1X", "1GiBs", "1 2", "1Gibi", "99999999999T"})
    EXPECT_FALSE(parse_size(text).ok()) << text;
}

TEST(ParseMemory, ABareSmallNumberIsAMistake) {
  EXPECT_NE(parse_memory("2").error().message.find("did you mean 2GiB?"), std::string::npos);
  EXPECT_NE(parse_memory("0.5").error().message.find("GiB?"), std::string::npos);
  EXPECT_NE(parse_memory("4096").error().message.find("4096MiB?"), std::string::npos);
  for (const char* text : {"2GiB", "0", "4096B", "1048576", "1K"}) EXPECT_TRUE(parse_memory(text).ok()) << text;
  EXPECT_FALSE(parse_memory("two").ok());
}

TEST(ParseSetting, CutsAtTheFirstEqualsSign) {
  const auto parsed = parse_setting("A=b=c");
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->first, "A");
  EXPECT_EQ(parsed->second, "b=c");
  EXPECT_TRUE(parse_setting("A=").ok());
  EXPECT_FALSE(parse_setting("A").ok());
  EXPECT_FALSE(parse_setting("=x").ok());
}

TEST(ParseTask, JobOrTask) {
  EXPECT_FALSE(parse_task("7")->index.has_value());
  EXPECT_EQ(parse_task("job-123/4")->job, "job-123");
  EXPECT_EQ(parse_task("job-123/4")->index, 4u);
  for (const char* text : {"", "/3", "7/", "7/x", "7/-1", "7/3/1", "7/4294967296"})
    EXPECT_FALSE(parse_task(text).ok()) << text;
}

using Words = std::vector<std::string>;

std::optional<Words> command_of(const Words& words) {
  const auto cut = find_run_command(words);
  if (!cut) return std::nullopt;
  return Words(words.begin() + static_cast<std::ptrdiff_t>(cut->second), words.end());
}

TEST(FindRunCommand, TakesTheCommandAsItStands) {
  EXPECT_EQ(command_of({"run", "--", "ls", "-l", "--json"}), (Words{"ls", "-l", "--json"}));
  EXPECT_EQ(command_of({"run", "ls", "-l", "--cpus", "2"}), (Words{"ls", "-l", "--cpus", "2"}));
  EXPECT_EQ(command_of({"--url", "run", "run", "--cpus", "2", "-e", "A=1", "ls"}), (Words{"ls"}));
  EXPECT_EQ(command_of({"run", "--in", "a", "--out", "b", "cp", "a", "b"}), (Words{"cp", "a", "b"}));
  EXPECT_EQ(command_of({"run", "--detach", "--", "--", "x"}), (Words{"--", "x"}));
  EXPECT_EQ(command_of({"run", "--", "[a,b]", "{}", ""}), (Words{"[a,b]", "{}", ""}));
  EXPECT_EQ(command_of({"run"}), Words{});
  EXPECT_EQ(command_of({"run", "--help"}), Words{});
  EXPECT_EQ(command_of({"submit", "run"}), std::nullopt);
  EXPECT_EQ(command_of({"jobs", "--", "run"}), std::nullopt);
}

}  // namespace
}  // namespace grange::cli
