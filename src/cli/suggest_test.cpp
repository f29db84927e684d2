#include "cli/suggest.hpp"

#include <gtest/gtest.h>

namespace grange::cli {
namespace {

const std::vector<std::string> kKnown = {"up",   "server", "worker", "run",     "submit",
                                         "jobs", "wait",   "logs",   "results", "cancel"};

TEST(Nearest, FindsWhatWasMeant) {
  EXPECT_EQ(nearest("job", kKnown), "jobs");
  EXPECT_EQ(nearest("sumbit", kKnown), "submit");
  EXPECT_EQ(nearest("wiat", kKnown), "wait");
  EXPECT_EQ(nearest("res", kKnown), "results");
  EXPECT_EQ(nearest("cancle", kKnown), "cancel");
}

TEST(Nearest, SaysNothingRatherThanNonsense) {
  EXPECT_EQ(nearest("frobnicate", kKnown), "");
  EXPECT_EQ(nearest("xyz", kKnown), "");
  EXPECT_EQ(nearest("", {}), "");
}

}  // namespace
}  // namespace grange::cli
