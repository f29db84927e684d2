#include "cli/job_file.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <filesystem>
#include <fstream>

namespace grange::cli {
namespace {

class JobFile : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "job_file_XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder); }
  void write(const std::string& name, const std::string& text) {
    std::ofstream(folder + "/" + name, std::ios::binary) << text;
  }
  std::string folder;
};

std::string error_of(const auto& result) {
  return result.ok() ? "no error" : result.error().message;
}

TEST_F(JobFile, TomlAndJsonGiveTheSame) {
  const char* toml = R"(
name = "sweep"
command = ["echo", "{}"]
args = ["a", 2, 2.5, ["x", true]]
priority = -3
timeout = "10m"
[env]
A = "1"
[retry]
max_attempts = 5
)";
  const char* text =
      R"({"name":"sweep","command":["echo","{}"],"args":["a",2,2.5,["x",true]],"priority":-3,"timeout":"10m","env":{"A":"1"},"retry":{"max_attempts":5}})";
  const auto from_toml = parse_job(toml, "job.toml"), from_json = parse_job(text, "job.json");
  ASSERT_TRUE(from_toml.ok()) << error_of(from_toml);
  ASSERT_TRUE(from_json.ok()) << error_of(from_json);
  EXPECT_EQ(*from_toml, *from_json);
  EXPECT_EQ(*parse_job(toml, "-"), *parse_job(text, "-")) << "stdin is known by what it holds";
}

TEST_F(JobFile, SaysWhereItIsWrong) {
  EXPECT_NE(error_of(parse_job("a = 1\nb = = 2\n", "job.toml")).find("line 2"), std::string::npos)
      << error_of(parse_job("a = 1\nb = = 2\n", "job.toml"));
  EXPECT_NE(error_of(parse_job("{\"a\": 1,\n\"b\": }", "job.json")).find("line 2"), std::string::npos)
      << error_of(parse_job("{\"a\": 1,\n\"b\": }", "job.json"));
  EXPECT_FALSE(parse_job("", "job.toml").ok());
  EXPECT_FALSE(parse_job("[1, 2]", "job.json").ok());
  EXPECT_FALSE(parse_job("{\"a\": 1", "job.json").ok());
  EXPECT_FALSE(parse_job("{\"a\": 1} x", "job.json").ok());
}

TEST_F(JobFile, UnknownKeysGetTheNearest) {
  EXPECT_TRUE(check_keys({{"command", "x"}, {"args_file", "f"}}).ok());
  EXPECT_NE(error_of(check_keys({{"comand", "x"}})).find("\"command\""), std::string::npos);
  EXPECT_FALSE(check_keys({{"frobnicate", 1}}).ok());
}

TEST_F(JobFile, ArgsFileIsOneALine) {
  write("lines.txt", "one\ntwo words\r\n\nlast");
  json::object job{{"args_file", "lines.txt"}};
  const auto read = read_args_file(job, folder);
  ASSERT_TRUE(read.ok()) << error_of(read);
  EXPECT_FALSE(job.contains("args_file"));
  EXPECT_EQ(job["args"], json::value({"one", "two words", "", "last"}));
  json::object missing{{"args_file", "none.txt"}};
  EXPECT_NE(error_of(read_args_file(missing, folder)).find("none.txt"), std::string::npos);
  json::object both{{"args_file", "lines.txt"}, {"args", json::array{}}};
  EXPECT_FALSE(read_args_file(both, folder).ok());
  write("empty.txt", "");
  json::object empty{{"args_file", "empty.txt"}};
  EXPECT_FALSE(read_args_file(empty, folder).ok());
}

TEST_F(JobFile, FilesIn) {
  write("a.txt", "abc");
  json::object job{
      {"files_in", json::array{"a.txt", json::object{{"path", "in/b.txt"}, {"source", "a.txt"}}, folder + "/a.txt"}}};
  const auto files = files_in(job, folder);
  ASSERT_TRUE(files.ok()) << error_of(files);
  ASSERT_EQ(files->size(), 3u);
  EXPECT_EQ((*files)[0].path, "a.txt");
  EXPECT_EQ((*files)[1].path, "in/b.txt");
  EXPECT_EQ((*files)[2].path, "a.txt") << "a place outside the folder keeps only its name";
  EXPECT_EQ(*file_sha256((*files)[0].source), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  for (const json::value& wrong :
       {json::value("none.txt"), json::value("."), json::value(1),
        json::value({{"path", "../up"}, {"source", "a.txt"}}), json::value({{"source", "a.txt"}})}) {
    json::object bad{{"files_in", json::array{wrong}}};
    EXPECT_FALSE(files_in(bad, folder).ok()) << json::serialize(wrong);
  }
}

TEST_F(JobFile, SafePaths) {
  for (const char* path : {"a", "a/b.txt", ".hidden", "a..b"}) EXPECT_TRUE(safe_path(path)) << path;
  for (const char* path : {"", "/etc/passwd", "..", "a/../../b", "../x", "a/"}) EXPECT_FALSE(safe_path(path)) << path;
}

}  // namespace
}  // namespace grange::cli
