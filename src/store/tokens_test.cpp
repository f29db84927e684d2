// Tokens in the store.
#include "store/model_for_test.hpp"

namespace grange::store {
namespace {

using testing::Scratch;
using testing::take;

TEST(Tokens, AreKeptReplacedUsedAndDropped) {
  const Scratch scratch;
  {
    auto store = *Store::open({.directory = scratch.path()});
    ASSERT_TRUE(store->load().ok());
    ASSERT_TRUE(store
                    ->put_token({.name = "b",
                                 .role = "user",
                                 .sha256 = "h1",
                                 .created = {10},
                                 .created_by = "local",
                                 .expires = {20},
                                 .last_used = {}})
                    .ok());
    ASSERT_TRUE(store->put_token({.name = "a", .role = "worker", .sha256 = "h2", .created = {11}}).ok());
    ASSERT_TRUE(store->put_token({.name = "a", .role = "admin", .sha256 = "h3", .created = {12}}).ok());
    ASSERT_TRUE(store->used_tokens({{"b", {15}}, {"nobody", {16}}}).ok());
    ASSERT_TRUE(store->forget_all().ok());
  }
  auto store = *Store::open({.directory = scratch.path()});
  ASSERT_TRUE(store->load().ok());
  const auto reader = *store->reader();
  const auto rows = take(reader->tokens());
  ASSERT_EQ(rows.size(), 2u) << "clearing the database lets nobody out, and a use makes no row";
  EXPECT_EQ(rows[0].name, "a");
  EXPECT_EQ(rows[0].role, "admin");
  EXPECT_EQ(rows[0].sha256, "h3");
  EXPECT_EQ(rows[0].expires.ms, 0);
  EXPECT_EQ(rows[1].role, "user");
  EXPECT_EQ(rows[1].created.ms, 10);
  EXPECT_EQ(rows[1].created_by, "local");
  EXPECT_EQ(rows[1].expires.ms, 20);
  EXPECT_EQ(rows[1].last_used.ms, 15);
  EXPECT_TRUE(take(store->drop_token("a")));
  EXPECT_FALSE(take(store->drop_token("a")));
  EXPECT_EQ(take(reader->tokens()).size(), 1u);
}

}  // namespace
}  // namespace grange::store
