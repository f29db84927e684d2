// gemm, memory and disk.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <vector>

#include "base/prng.hpp"
#include "compute/disk.hpp"
#include "compute/gemm.hpp"
#include "compute/memory.hpp"

namespace grange::compute {
namespace {

template <class T>
void agrees_with_the_definition(std::size_t n, unsigned threads) {
  Prng prng(n);
  std::vector<T> a(n * n), b(n * n), c(n * n, T{7});
  for (auto* matrix : {&a, &b}) {
    for (T& value : *matrix) value = static_cast<T>(static_cast<int>(prng.below(17)) - 8);  // exact in either precision
  }
  Control control;
  multiply(a.data(), b.data(), c.data(), n, threads, control);
  for (std::size_t i = 0; i < n; ++i) {
    std::vector<T> row(n);
    for (std::size_t k = 0; k < n; ++k) {
      for (std::size_t j = 0; j < n; ++j) row[j] += a[i * n + k] * b[k * n + j];
    }
    for (std::size_t j = 0; j < n; ++j) ASSERT_EQ(c[i * n + j], row[j]) << n << " at " << i << ", " << j;
  }
}

TEST(Gemm, AgreesWithTheDefinition) {
  for (const std::size_t n : {1, 2, 3, 7, 8, 23, 24, 25, 48, 65, 241}) {
    agrees_with_the_definition<double>(n, static_cast<unsigned>(1 + n % 3));
    agrees_with_the_definition<float>(n, static_cast<unsigned>(1 + n % 3));
  }
}

TEST(Gemm, MeasuresAndChecksItself) {
  for (const bool single : {false, true}) {
    Control control;
    GemmOptions options;
    options.n = 300;
    options.single = single;
    options.threads = 2;
    const auto result = gemm(options, control);
    ASSERT_TRUE(result) << result.error().message;
    EXPECT_GT(result->gflops, 0);
    EXPECT_FALSE(result->wrong()) << result->worst_error;
  }
  GemmResult broken;
  broken.worst_error = std::nan("");
  EXPECT_TRUE(broken.wrong());
}

TEST(Gemm, Limits) {
  Control control;
  GemmOptions options;
  options.n = kGemmLargest + 1;
  EXPECT_FALSE(gemm(options, control));
  options.n = 1000;
  options.memory = 20 * MiB;
  EXPECT_FALSE(gemm(options, control)) << "it needs 24 MB";
  options.memory = 0;
  options.threads = 0;
  EXPECT_FALSE(gemm(options, control));
}

TEST(Gemm, Stops) {
  Control* at = nullptr;
  Control control([&](const Control::Progress&) { at->stop(); }, Micros{0});
  at = &control;
  GemmOptions options;
  options.n = 500;
  options.repeats = 1000;
  const auto result = gemm(options, control);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().cls, ErrorClass::cancelled);
}

TEST(Memory, MovesWhatItSaysAndChecksIt) {
  for (const unsigned threads : {1u, 3u}) {
    Control control;
    MemoryOptions options;
    options.n = 6 * MiB + 24;
    options.threads = threads;
    options.repeats = threads == 1 ? 3 : 10;
    const auto result = memory_speed(options, control);
    ASSERT_TRUE(result) << result.error().message;
    for (const double speed : result->gb_per_s) EXPECT_GT(speed, 0);
    EXPECT_TRUE(result->right);
  }
}

TEST(Memory, LimitsAndStop) {
  Control control;
  MemoryOptions options;
  options.n = 100;
  EXPECT_FALSE(memory_speed(options, control));
  options.n = kMemoryLargest + 1;
  EXPECT_FALSE(memory_speed(options, control));
  options.n = 8 * MiB;
  options.memory = MiB;
  EXPECT_FALSE(memory_speed(options, control));
  options.memory = 0;
  control.stop();
  const auto result = memory_speed(options, control);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().cls, ErrorClass::cancelled);
}

struct Disk : testing::Test {
  Disk() {
    std::string path = testing::TempDir() + "grange_disk_XXXXXX";
    folder = mkdtemp(path.data());
  }
  ~Disk() override { std::filesystem::remove_all(folder); }
  std::string folder;
};

TEST_F(Disk, WritesReadsAndLeavesNothing) {
  Control* at = nullptr;
  bool seen = false;
  Control control([&](const Control::Progress&) { seen = seen || !std::filesystem::is_empty(folder); }, Micros{0});
  at = &control;
  DiskOptions options;
  options.folder = folder;
  options.n = 3 * MiB + 5;
  options.leave_free = 0;
  const auto result = disk_speed(options, *at);
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->n, 4 * MiB) << "whole blocks";
  EXPECT_TRUE(result->right);
  EXPECT_GT(result->write_mb_per_s, 0);
  EXPECT_GT(result->read_mb_per_s, 0);
  EXPECT_FALSE(seen) << "the file has no name even while it is there";
  EXPECT_TRUE(std::filesystem::is_empty(folder));
}

TEST_F(Disk, StopsAndLeavesNothing) {
  Control* at = nullptr;
  Control control([&](const Control::Progress&) { at->stop(); }, Micros{0});
  at = &control;
  DiskOptions options;
  options.folder = folder;
  options.n = 64 * MiB;
  options.leave_free = 0;
  const auto result = disk_speed(options, control);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().cls, ErrorClass::cancelled);
  EXPECT_TRUE(std::filesystem::is_empty(folder));
}

TEST_F(Disk, Refusals) {
  Control control;
  DiskOptions options;
  options.folder = folder;
  options.n = kDiskLargest + 1;
  EXPECT_FALSE(disk_speed(options, control));
  options.n = MiB;
  options.leave_free = std::uint64_t{1} << 60;
  const auto full = disk_speed(options, control);
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().cls, ErrorClass::storage_full);
  options.leave_free = 0;
  options.folder = folder + "/none";
  const auto none = disk_speed(options, control);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().cls, ErrorClass::io);
}

}  // namespace
}  // namespace grange::compute
