#include "worker/load.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace grange::worker {
namespace {

TEST(Load, NetworkCountsWhatLeadsOut) {
  const auto counts = parse_net_dev(R"(Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 5000000   10    0    0    0     0          0         0 5000000      10    0    0    0     0       0          0
  eth0: 1000      10    0    0    0     0          0         0     2000     20    0    0    0     0       0          0
wlp3s0:3000 30 0 0 0 0 0 0 4000 40 0 0 0 0 0 0
docker0: 7777 1 0 0 0 0 0 0 7777 1 0 0 0 0 0 0
veth12ab: 7777 1 0 0 0 0 0 0 7777 1 0 0 0 0 0 0
)");
  ASSERT_TRUE(counts);
  EXPECT_EQ(counts->in, 4000u);
  EXPECT_EQ(counts->out, 6000u);
  EXPECT_FALSE(parse_net_dev(""));
  EXPECT_FALSE(parse_net_dev("    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n"));
  EXPECT_FALSE(parse_net_dev("eth0: 1 2\neth1: x 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n"));
}

TEST(Load, DisksAreCountedOnce) {
  const auto counts = parse_diskstats(R"(   7       0 loop0 10 0 999 0 0 0 0 0 0 0 0
   8       0 sda 10 0 4 5 20 0 8 9 0 1 2 0 0 0 0 0 0
   8       1 sda1 10 0 4 5 20 0 8 9 0 1 2 0 0 0 0 0 0
 259       0 nvme0n1 1 0 2 1 1 0 2 1 0 1 1
 259       1 nvme0n1p1 1 0 2 1 1 0 2 1 0 1 1
 253       0 dm-0 1 0 999 1 1 0 999 1 0 1 1
 179       0 mmcblk0 1 0 2 1 1 0 2 1 0 1 1
 179       1 mmcblk0p2 1 0 2 1 1 0 2 1 0 1 1
)");
  ASSERT_TRUE(counts);
  EXPECT_EQ(counts->in, 512u * (4 + 2 + 2));
  EXPECT_EQ(counts->out, 512u * (8 + 2 + 2));
  EXPECT_FALSE(parse_diskstats("8 0 sda 1 2\n"));
}

TEST(Load, GpusSayWhatTheyKnow) {
  const auto gpus = parse_nvidia_load("GPU-a, 87, 2048, 61\nGPU-b, [N/A], 10, [N/A]\nnonsense\nGPU-c, 101, 1, 900\n");
  ASSERT_EQ(gpus.size(), 3u);
  EXPECT_EQ(*gpus[0].percent, 87);
  EXPECT_EQ(*gpus[0].memory_used, 2048 * MiB);
  EXPECT_EQ(*gpus[0].temperature_c, 61);
  EXPECT_FALSE(gpus[1].percent || gpus[1].temperature_c);
  EXPECT_TRUE(gpus[1].memory_used);
  EXPECT_FALSE(gpus[2].percent || gpus[2].temperature_c);
}

TEST(Load, RatesNeedTwoLooks) {
  Rate rate;
  EXPECT_FALSE(rate.next(ByteCounts{1000, 1000}, {1'000'000}));
  const auto one = rate.next(ByteCounts{3000, 2000}, {3'000'000});
  ASSERT_TRUE(one);
  EXPECT_EQ(one->in, 1000u);
  EXPECT_EQ(one->out, 500u);
  EXPECT_FALSE(rate.next(ByteCounts{0, 0}, {4'000'000})) << "the counter went back";
  EXPECT_TRUE(rate.next(ByteCounts{10, 10}, {5'000'000}));
  EXPECT_FALSE(rate.next(std::nullopt, {6'000'000}));
  EXPECT_FALSE(rate.next(ByteCounts{10, 10}, {7'000'000}));
}

TEST(Load, TheHottestSensorOfTheProcessor) {
  EXPECT_EQ(*parse_millidegrees("45500\n"), 45.5);
  for (const char* bad : {"", "x", "-1000", "0", "9999999"}) EXPECT_FALSE(parse_millidegrees(bad)) << bad;
  const std::filesystem::path sys =
      std::filesystem::temp_directory_path() / ("grange-load-" + std::to_string(::getpid()));
  const auto put = [&](const std::string& file, const std::string& text) {
    std::filesystem::create_directories((sys / file).parent_path());
    std::ofstream(sys / file) << text;
  };
  EXPECT_FALSE(processor_temperature(sys.string()));
  put("class/thermal/thermal_zone0/type", "x86_pkg_temp\n");
  put("class/thermal/thermal_zone0/temp", "40000\n");
  put("class/hwmon/hwmon0/name", "nvme\n");
  put("class/hwmon/hwmon0/temp1_input", "90000\n");
  EXPECT_EQ(*processor_temperature(sys.string()), 40.0);
  put("class/hwmon/hwmon1/name", "coretemp\n");
  put("class/hwmon/hwmon1/temp1_input", "51000\n");
  put("class/hwmon/hwmon1/temp2_input", "55000\n");
  EXPECT_EQ(*processor_temperature(sys.string()), 55.0);
  std::filesystem::remove_all(sys);
}

}  // namespace
}  // namespace grange::worker
