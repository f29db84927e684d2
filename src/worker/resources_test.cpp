#include "worker/resources.hpp"

#include <gtest/gtest.h>

namespace grange::worker {
namespace {

TEST(Resources, CpuQuota) {
  EXPECT_EQ(parse_cpu_max("150000 100000\n"), 1500u);
  EXPECT_EQ(parse_cpu_max("max 100000\n"), std::nullopt);
  EXPECT_EQ(parse_cpu_max(""), std::nullopt);
  EXPECT_EQ(parse_cpu_max("1000 0"), std::nullopt);
  EXPECT_EQ(parse_cfs_quota("-1\n", "100000\n"), std::nullopt);
  EXPECT_EQ(parse_cfs_quota("50000\n", "100000\n"), 500u);
  EXPECT_EQ(usable_cores(8, std::nullopt), 8u);
  EXPECT_EQ(usable_cores(8, 1500), 2u);
  EXPECT_EQ(usable_cores(8, 500), 1u);
  EXPECT_EQ(usable_cores(2, 64000), 2u);
}

TEST(Resources, Memory) {
  EXPECT_EQ(parse_memory_limit("max\n"), std::nullopt);
  EXPECT_EQ(parse_memory_limit("536870912\n"), 512 * MiB);
  EXPECT_EQ(parse_memory_limit("9223372036854771712\n"), std::nullopt);
  const char* meminfo =
      "MemTotal:       24595040 kB\nMemFree:        22012228 kB\nMemAvailable:   23771040 kB\nBuffers:            1234 "
      "kB\n";
  EXPECT_EQ(parse_meminfo(meminfo, "MemTotal"), 24595040 * KiB);
  EXPECT_EQ(parse_meminfo(meminfo, "MemAvailable"), 23771040 * KiB);
  EXPECT_EQ(parse_meminfo(meminfo, "Mem"), std::nullopt);
}

TEST(Resources, Cgroup) {
  const char* v1 =
      "12:memory:/docker/abc\n5:cpu,cpuacct:/docker/abc/x\n1:name=systemd:/docker/abc\n0::/system.slice/a.service\n";
  EXPECT_EQ(parse_own_cgroup(v1, ""), "/system.slice/a.service");
  EXPECT_EQ(parse_own_cgroup(v1, "cpu"), "/docker/abc/x");
  EXPECT_EQ(parse_own_cgroup(v1, "memory"), "/docker/abc");
  EXPECT_EQ(parse_own_cgroup(v1, "pids"), std::nullopt);
  EXPECT_EQ(parse_counter("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\n", "oom_kill"), 2u);
  EXPECT_EQ(parse_counter("oom_kill_disable 0\nunder_oom 0\n", "oom_kill"), std::nullopt);
}

TEST(Resources, Names) {
  EXPECT_EQ(
      parse_cpu_model("processor\t: 0\nmodel\t\t: 85\nmodel name\t: Intel(R) Xeon(R) CPU @ 2.00GHz\nstepping\t: 3\n"),
      "Intel(R) Xeon(R) CPU @ 2.00GHz");
  EXPECT_EQ(parse_cpu_model("processor\t: 0\nBogoMIPS\t: 108.00\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n"),
            "Raspberry Pi 4 Model B Rev 1.4");
  EXPECT_EQ(parse_os_name("NAME=\"Debian GNU/Linux\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            "Debian GNU/Linux 12 (bookworm)");
  EXPECT_EQ(parse_os_name("PRETTY_NAME=Alpine\n"), "Alpine");
}

TEST(Resources, NvidiaSmi) {
  const auto gpus = parse_nvidia_smi(
      "NVIDIA GeForce RTX 4090, 24564 MiB, GPU-8c0c4f2e-7f2f-4c0a-9a1e-0f6f0b7c1d2e\n"
      "NVIDIA A100-SXM4-80GB, 81920 MiB, GPU-11111111-2222-3333-4444-555555555555\n"
      "Unable to determine the device handle\n");
  ASSERT_EQ(gpus.size(), 2u);
  EXPECT_EQ(gpus[0].name, "NVIDIA GeForce RTX 4090");
  EXPECT_EQ(gpus[0].memory, 24564 * MiB);
  EXPECT_EQ(gpus[1].uuid, "GPU-11111111-2222-3333-4444-555555555555");
  EXPECT_TRUE(parse_nvidia_smi("No devices were found\n").empty());
}

TEST(Resources, CpuTicks) {
  const CpuTicks t = parse_cpu_ticks("cpu  100 5 50 800 40 1 2 2 0 0\ncpu0 1 2 3\n");
  EXPECT_EQ(t.total, 1000u);
  EXPECT_EQ(t.busy, 160u);
  EXPECT_EQ(parse_cpu_ticks("nonsense").total, 0u);
}

TEST(Resources, MemoryInUseIsOfWhatWeMayUse) {
  EXPECT_EQ(used_memory(64 * GiB, 4 * GiB, std::nullopt), 60 * GiB);
  EXPECT_EQ(used_memory(4 * GiB, 4 * GiB, 3 * GiB), GiB) << "the machine is nearly full, and our group is not";
  EXPECT_EQ(used_memory(4 * GiB, 1 * GiB, 3 * GiB), 3 * GiB) << "what the machine has not cannot be used";
  EXPECT_EQ(used_memory(4 * GiB, 60 * GiB, std::nullopt), 1u) << "measured";

  const auto room = parse_memory_room("4294967296\n", "3221225472\n", "anon 5\ninactive_file 1073741824\n");
  EXPECT_EQ(room, 2 * GiB);
  EXPECT_EQ(parse_memory_room("4294967296", "3221225472", "inactive_file 1\ntotal_inactive_file 1073741824\n"),
            2 * GiB);
  EXPECT_EQ(parse_memory_room("4096", "8192", ""), Bytes{0});
  EXPECT_EQ(parse_memory_room("max\n", "3221225472\n", ""), std::nullopt);
  EXPECT_EQ(parse_memory_room("4096\n", "", ""), std::nullopt);
}

TEST(Resources, ThisMachineHasSomething) {
  const Resources r = discover("/tmp");
  EXPECT_GE(r.cores, 1u);
  EXPECT_GT(r.memory, 0u);
  EXPECT_GT(memory_used(r.memory), 1u);
  EXPECT_LT(memory_used(r.memory), r.memory);
  EXPECT_GT(r.disk_free, 0u);
  EXPECT_FALSE(r.hostname.empty());
}

TEST(Resources, APythonThatCannotIsExplained) {
  EXPECT_FALSE(check_python("/nowhere/python", "").ok());
  const PythonCheck check = check_python("/bin/false", "");
  EXPECT_FALSE(check.ok());
  EXPECT_NE(check.note.find("GRANGE_PYTHON"), std::string::npos);
}

}  // namespace
}  // namespace grange::worker
