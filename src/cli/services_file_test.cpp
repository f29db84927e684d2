#include "cli/services_file.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "cli/exit.hpp"

namespace grange::cli {
namespace {

constexpr std::string_view kServicesText = R"(
[[service]]
name = "ollama"
kind = "ollama"
url = "http://127.0.0.1:11434"
command = ["ollama", "serve"]
env = { OLLAMA_NUM_PARALLEL = 4, OLLAMA_HOST = "127.0.0.1:11434" }
start_timeout = "90s"
hang_timeout = 0
restarts = 3
memory = "8GiB"

[[service]]
name = "page"
kind = "other"
url = "http://127.0.0.1:3000"
command = ["./serve"]
cwd = "page"
after = ["ollama"]
health = "/up"
)";

TEST(ServicesFile, IsRead) {
  const auto all = parse_services(kServicesText, "/srv/farm");
  ASSERT_TRUE(all.ok()) << all.error().message;
  ASSERT_EQ(all->size(), 2u);
  const worker::CareSpec& one = all->front();
  EXPECT_EQ(one.command, (std::vector<std::string>{"ollama", "serve"}));
  EXPECT_EQ(one.env.at("OLLAMA_NUM_PARALLEL"), "4");
  EXPECT_EQ(one.start_timeout, Millis{90'000});
  EXPECT_EQ(one.hang_timeout, Millis{0});
  EXPECT_EQ(one.restarts, 3u);
  EXPECT_EQ(one.memory, 8 * GiB);
  EXPECT_EQ(one.cwd, "/srv/farm");
  EXPECT_EQ(one.health, "/api/version");
  EXPECT_EQ(all->back().cwd, "/srv/farm/page");
  EXPECT_EQ(all->back().health, "/up");
}

TEST(ServicesFile, SaysWhatIsWrong) {
  const auto why = [](std::string text) {
    const auto read = parse_services(text, "/");
    return read.ok() ? std::string("fine") : read.error().message;
  };
  const std::string head = "[[service]]\nname=\"a\"\nkind=\"other\"\nurl=\"http://127.0.0.1:1\"\n";
  EXPECT_EQ(why(head + "command=[\"x\"]"), "fine");
  EXPECT_EQ(why(""), "fine");
  EXPECT_NE(why(head).find("\"service 1: command\" is missing"), std::string::npos);
  EXPECT_NE(why(head + "command=\"x\"").find("must be a list"), std::string::npos);
  EXPECT_NE(why(head + "command=[1]").find("list of strings"), std::string::npos);
  EXPECT_NE(why(head + "command=[\"x\"]\nrestart=1").find("Did you mean \"restarts\"?"), std::string::npos);
  EXPECT_NE(why(head + "command=[\"x\"]\nmemory=8").find("at least 1MiB"), std::string::npos);
  EXPECT_NE(why("[service]\nname=\"a\"").find("list"), std::string::npos);
  EXPECT_NE(why("services = 3").find("Did you mean \"service\"?"), std::string::npos);
  EXPECT_NE(why("name = ").find("line 1"), std::string::npos);
}

TEST(ServicesFile, OneThatOthersCanWriteIsRefused) {
  std::string name = (std::filesystem::temp_directory_path() / "grange-services-XXXXXX").string();
  ASSERT_NE(::mkdtemp(name.data()), nullptr);
  EXPECT_TRUE(read_services_file("", name).empty());
  const std::string file = name + "/services.toml";
  std::ofstream(file) << kServicesText;
  ::chmod(file.c_str(), 0666);
  EXPECT_THROW(read_services_file("", name), Exit);
  ::chmod(file.c_str(), 0644);
  EXPECT_EQ(read_services_file("", name).size(), 2u);
  EXPECT_EQ(read_services_file(file, "/nowhere").size(), 2u);
  EXPECT_THROW(read_services_file(name + "/none", name), Exit);
  std::filesystem::remove_all(name);
}

}  // namespace
}  // namespace grange::cli
