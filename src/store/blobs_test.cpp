#include "store/blobs.hpp"

#include <sys/stat.h>
#include <utime.h>

#include <fstream>
#include <thread>

#include "store/model_for_test.hpp"

namespace grange::store {
namespace {

using testing::Scratch;

void write_part(BlobStore& blobs, const std::string& sha, std::string_view bytes) {
  std::ofstream(blobs.part_path(sha), std::ios::app | std::ios::binary) << bytes;
}
void make_old(const std::string& path) {
  const utimbuf old{1000, 1000};
  ASSERT_EQ(::utime(path.c_str(), &old), 0);
}

TEST(Blobs, HashIsSha256) {
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_TRUE(is_sha256(sha256_hex("")));
  EXPECT_FALSE(is_sha256("../../../../etc/passwd"));
  EXPECT_FALSE(is_sha256(std::string(64, 'A')));
}

TEST(Blobs, PutGetRemove) {
  const Scratch scratch;
  auto blobs = *BlobStore::open(scratch.path());
  const std::string bytes = "some\0bytes" + std::string(300'000, 'x');
  const std::string sha = *blobs->put(bytes);
  EXPECT_EQ(sha, sha256_hex(bytes));
  EXPECT_EQ(*blobs->put(bytes), sha);
  EXPECT_EQ(blobs->size(sha), bytes.size());
  EXPECT_EQ(*blobs->get(sha), bytes);
  EXPECT_EQ(*(*BlobStore::open(scratch.path()))->get(sha), bytes) << "a new start finds it";
  ASSERT_TRUE(blobs->remove(sha).ok());
  ASSERT_TRUE(blobs->remove(sha).ok());
  EXPECT_EQ(blobs->size(sha), std::nullopt);
  EXPECT_EQ(blobs->get(sha).error().cls, ErrorClass::not_found);
  EXPECT_EQ(blobs->get("../lock").error().cls, ErrorClass::invalid_argument);
}

TEST(Blobs, DamageIsFound) {
  const Scratch scratch;
  auto blobs = *BlobStore::open(scratch.path());
  const std::string sha = *blobs->put("hello");
  std::ofstream(blobs->path(sha)) << "hellO";
  EXPECT_EQ(blobs->get(sha).error().cls, ErrorClass::storage_damaged);
}

TEST(Blobs, AnUploadGoesOnWhereItStopped) {
  const Scratch scratch;
  const std::string sha = sha256_hex("hello world");
  {
    auto blobs = *BlobStore::open(scratch.path());
    EXPECT_EQ(blobs->received(sha), 0u);
    EXPECT_EQ(blobs->finish(sha).error().cls, ErrorClass::not_found);
    write_part(*blobs, sha, "hello");
  }
  auto blobs = *BlobStore::open(scratch.path());
  EXPECT_EQ(blobs->received(sha), 5u);
  EXPECT_EQ(blobs->size(sha), std::nullopt);
  write_part(*blobs, sha, " world");
  ASSERT_TRUE(blobs->finish(sha).ok());
  EXPECT_EQ(blobs->received(sha), 0u);
  EXPECT_EQ(*blobs->get(sha), "hello world");
  EXPECT_TRUE(blobs->finish(sha).ok()) << "finished twice is finished";
}

TEST(Blobs, OtherBytesThanPromisedAreRefused) {
  const Scratch scratch;
  auto blobs = *BlobStore::open(scratch.path());
  const std::string sha = sha256_hex("promised");
  write_part(*blobs, sha, "other");
  const auto done = blobs->finish(sha);
  ASSERT_FALSE(done.ok());
  EXPECT_EQ(done.error().cls, ErrorClass::invalid_argument);
  EXPECT_EQ(blobs->received(sha), 0u) << "the next upload starts anew";
  EXPECT_EQ(blobs->size(sha), std::nullopt);
}

TEST(Blobs, SweepKeepsWhatIsUsedOrYoung) {
  const Scratch scratch;
  auto blobs = *BlobStore::open(scratch.path());
  const std::string used = *blobs->put("used"), unused = *blobs->put("unused"), young = *blobs->put("young"),
                    asked = *blobs->put("asked");
  const std::string part = sha256_hex("part"), young_part = sha256_hex("young part");
  write_part(*blobs, part, "x");
  write_part(*blobs, young_part, "x");
  for (const auto& sha : {used, unused, asked}) make_old(blobs->path(sha));
  make_old(blobs->part_path(part));
  EXPECT_TRUE(blobs->size(asked).has_value());  // who asks is about to use it
  const auto swept = blobs->sweep(Millis{3'600'000}, [&](const std::string& sha) { return sha == used; });
  ASSERT_TRUE(swept.ok());
  EXPECT_EQ(*swept, 1u);
  EXPECT_TRUE(blobs->size(used).has_value());
  EXPECT_TRUE(blobs->size(young).has_value());
  EXPECT_TRUE(blobs->size(asked).has_value());
  EXPECT_FALSE(blobs->size(unused).has_value());
  EXPECT_EQ(blobs->received(part), 0u);
  EXPECT_EQ(blobs->received(young_part), 1u);
}

TEST(Blobs, ManyThreadsPutTheSame) {
  const Scratch scratch;
  auto blobs = *BlobStore::open(scratch.path());
  std::vector<std::thread> threads;
  std::atomic<int> bad{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) {
        const std::string bytes = "blob " + std::to_string(i);
        const auto sha = blobs->put(bytes);
        if (!sha.ok() || *blobs->get(*sha) != bytes) ++bad;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(bad, 0);
  EXPECT_TRUE(std::filesystem::is_empty(scratch.path() + "/blobs/parts"));
}

}  // namespace
}  // namespace grange::store
