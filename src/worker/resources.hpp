// What this machine offers. Parsers are pure functions on text; `discover` reads the machine.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/units.hpp"

namespace grange::worker {

struct GpuInfo {
  std::string name, uuid;
  Bytes memory = 0;
};

struct Resources {
  std::uint32_t cores = 1;
  Bytes memory = 0;
  Bytes disk_free = 0;
  std::string hostname, os, cpu_model;
  std::vector<GpuInfo> gpus;
  std::vector<std::string> notes;  // what is missing or limited, for people
};

// cgroup v2 cpu.max ("150000 100000", "max 100000") and v1 quota and period: cores in thousandths; nullopt: no limit,
// or not understood.
std::optional<std::uint32_t> parse_cpu_max(std::string_view text);
std::optional<std::uint32_t> parse_cfs_quota(std::string_view quota, std::string_view period);
// memory.max or memory.limit_in_bytes. nullopt: "max", or v1's way to say none.
std::optional<Bytes> parse_memory_limit(std::string_view text);
// What is left of that limit: memory.current (or v1's usage_in_bytes) counts files that the kernel can let go.
std::optional<Bytes> parse_memory_room(std::string_view limit, std::string_view current, std::string_view stat);
Bytes used_memory(Bytes offered, Bytes machine_has_left, std::optional<Bytes> group_has_left);
// A field of /proc/meminfo in bytes.
std::optional<Bytes> parse_meminfo(std::string_view text, std::string_view field);
std::string parse_cpu_model(std::string_view cpuinfo);
// PRETTY_NAME of os-release.
std::string parse_os_name(std::string_view os_release);
// Output of nvidia-smi --query-gpu=name,memory.total,uuid --format=csv,noheader. Lines that make no sense are left out.
std::vector<GpuInfo> parse_nvidia_smi(std::string_view csv);
// Our cgroup from /proc/self/cgroup: of v2 ("0::/x"), or of a v1 controller.
std::optional<std::string> parse_own_cgroup(std::string_view text, std::string_view controller);
// A counter line "oom_kill 3" of memory.events, memory.oom_control or /proc/vmstat.
std::optional<std::uint64_t> parse_counter(std::string_view text, std::string_view name);
// Busy and total ticks from /proc/stat.
struct CpuTicks {
  std::uint64_t busy = 0, total = 0;
};
CpuTicks parse_cpu_ticks(std::string_view proc_stat);

// The smallest whole number of cores that covers the quota, at most `affinity`.
std::uint32_t usable_cores(std::uint32_t affinity, std::optional<std::uint32_t> quota_milli);

std::string read_text(const std::string& file, std::size_t limit = 1 << 20);  // "" when it cannot be read
Resources discover(const std::string& data_dir);
Bytes disk_free(const std::string& folder);
// Of what `offered` says that we have: the machine's figure is not ours where a control group limits us. Never 0, which
// would say that nothing was measured.
Bytes memory_used(Bytes offered);
// How often the kernel killed something for want of memory, in our cgroup or the machine.
std::uint64_t oom_kills();

// The Python engine is offered when this interpreter can import what the runner needs.
struct PythonCheck {
  std::string interpreter, version, note;
  bool ok() const { return !version.empty(); }
};
std::string find_python(const std::string& asked);
PythonCheck check_python(const std::string& interpreter, const std::string& python_path);

}  // namespace grange::worker
