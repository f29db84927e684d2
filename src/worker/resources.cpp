#include "worker/resources.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>

#include "worker/spawn.hpp"

namespace grange::worker {

namespace {

std::uint32_t affinity_cores() {
  for (int cpus = 1024; cpus <= 1 << 18; cpus *= 4) {
    const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(CPU_ALLOC(cpus), [](cpu_set_t* s) { CPU_FREE(s); });
    const std::size_t size = CPU_ALLOC_SIZE(cpus);
    if (::sched_getaffinity(0, size, set.get()) == 0) return static_cast<std::uint32_t>(CPU_COUNT_S(size, set.get()));
  }
  return static_cast<std::uint32_t>(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN)));
}

// A limit may stand on any group between ours and the root: the smallest counts. In a container the path may not exist;
// then the root is ours.
template <class Read>
auto smallest(const std::string& root, std::string path, Read read) -> decltype(read(root)) {
  decltype(read(root)) best;
  for (;;) {
    if (const auto here = read(root + path); here && (!best || *here < *best)) best = here;
    if (path.empty()) return best;
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
}

struct Cgroup {
  std::string v2, cpu, memory;
};

Cgroup own_cgroup() {
  const std::string text = read_text("/proc/self/cgroup");
  const auto clean = [](std::optional<std::string> path) {
    return !path || *path == "/" || path->find("..") != std::string::npos ? "" : *path;
  };
  return {clean(parse_own_cgroup(text, "")), clean(parse_own_cgroup(text, "cpu")),
          clean(parse_own_cgroup(text, "memory"))};
}

std::optional<std::uint32_t> cpu_quota(const Cgroup& group) {
  const auto v2 = smallest("/sys/fs/cgroup", group.v2,
                           [](const std::string& dir) { return parse_cpu_max(read_text(dir + "/cpu.max")); });
  if (v2) return v2;
  return smallest("/sys/fs/cgroup/cpu", group.cpu, [](const std::string& dir) {
    return parse_cfs_quota(read_text(dir + "/cpu.cfs_quota_us"), read_text(dir + "/cpu.cfs_period_us"));
  });
}

std::optional<Bytes> memory_limit(const Cgroup& group) {
  const auto v2 = smallest("/sys/fs/cgroup", group.v2,
                           [](const std::string& dir) { return parse_memory_limit(read_text(dir + "/memory.max")); });
  if (v2) return v2;
  return smallest("/sys/fs/cgroup/memory", group.memory,
                  [](const std::string& dir) { return parse_memory_limit(read_text(dir + "/memory.limit_in_bytes")); });
}

std::optional<Bytes> memory_room(const Cgroup& group) {
  const auto v2 = smallest("/sys/fs/cgroup", group.v2, [](const std::string& dir) {
    return parse_memory_room(read_text(dir + "/memory.max"), read_text(dir + "/memory.current"),
                             read_text(dir + "/memory.stat"));
  });
  if (v2) return v2;
  return smallest("/sys/fs/cgroup/memory", group.memory, [](const std::string& dir) {
    return parse_memory_room(read_text(dir + "/memory.limit_in_bytes"), read_text(dir + "/memory.usage_in_bytes"),
                             read_text(dir + "/memory.stat"));
  });
}

std::vector<GpuInfo> nvidia_gpus(std::vector<std::string>& notes) {
  const auto program = find_program("nvidia-smi", kPath, "");
  if (!program) return {};
  ChildSpec spec;
  spec.program = *program;
  spec.argv = {"nvidia-smi", "--query-gpu=name,memory.total,uuid", "--format=csv,noheader"};
  spec.env = {"PATH=" + std::string(kPath), "LANG=C.UTF-8"};
  const auto answer = run_bounded(spec, Millis(5000));
  if (!answer || !answer->ended || answer->exit_code != 0) {
    notes.push_back("nvidia-smi is there but did not answer well; GPUs are not offered. Run it by hand to see why.");
    return {};
  }
  return parse_nvidia_smi(answer->out);
}

}  // namespace

std::string read_text(const std::string& file, std::size_t limit) {
  const Fd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  std::string out;
  std::array<char, 4096> buffer;
  while (fd && out.size() < limit) {
    const ssize_t n = ::read(fd.get(), buffer.data(), buffer.size());
    if (n <= 0) break;
    out.append(buffer.data(), static_cast<std::size_t>(n));
  }
  return out;
}

Bytes disk_free(const std::string& folder) {
  struct statvfs info;
  return ::statvfs(folder.c_str(), &info) == 0 ? static_cast<Bytes>(info.f_bavail) * info.f_frsize : 0;
}

std::optional<Bytes> parse_memory_room(std::string_view limit, std::string_view current, std::string_view stat) {
  const auto most = parse_memory_limit(limit), used = parse_memory_limit(current);
  if (!most || !used) return std::nullopt;
  auto files = parse_counter(stat, "total_inactive_file");  // v1, with the groups below
  if (!files) files = parse_counter(stat, "inactive_file");
  const Bytes kept = *used - std::min(*used, files.value_or(0));
  return *most - std::min(*most, kept);
}

Bytes used_memory(Bytes offered, Bytes machine_has_left, std::optional<Bytes> group_has_left) {
  const Bytes left = std::min(machine_has_left, group_has_left.value_or(machine_has_left));
  return std::max<Bytes>(1, offered - std::min(offered, left));
}

Bytes memory_used(Bytes offered) {
  static const Cgroup group = own_cgroup();
  const auto left = parse_meminfo(read_text("/proc/meminfo"), "MemAvailable");
  return left ? used_memory(offered, *left, memory_room(group)) : 0;
}

std::uint64_t oom_kills() {
  static const Cgroup group = own_cgroup();
  std::uint64_t count = 0;
  for (const std::string& file :
       {"/sys/fs/cgroup" + group.v2 + "/memory.events", "/sys/fs/cgroup/memory" + group.memory + "/memory.oom_control",
        std::string("/proc/vmstat")}) {
    count += parse_counter(read_text(file), "oom_kill").value_or(0);
  }
  return count;
}

Resources discover(const std::string& data_dir) {
  Resources out;
  const Cgroup group = own_cgroup();
  out.cores = usable_cores(affinity_cores(), cpu_quota(group));
  out.memory = parse_meminfo(read_text("/proc/meminfo"), "MemTotal").value_or(0);
  if (const auto limit = memory_limit(group); limit && *limit < out.memory) {
    out.memory = *limit;
    out.notes.push_back("Memory is limited by the control group to " + std::to_string(*limit / MiB) + " MiB.");
  }
  out.disk_free = disk_free(data_dir);
  struct utsname name;
  if (::uname(&name) == 0) {
    out.hostname = name.nodename;
    out.os = parse_os_name(read_text("/etc/os-release"));
    if (out.os.empty()) out.os = std::string(name.sysname) + " " + name.release;
  }
  out.cpu_model = parse_cpu_model(read_text("/proc/cpuinfo"));
  if (out.cpu_model.empty() && ::uname(&name) == 0) out.cpu_model = name.machine;
  out.gpus = nvidia_gpus(out.notes);
  return out;
}

std::string find_python(const std::string& asked) {
  if (!asked.empty()) return asked;
  if (const char* set = std::getenv("GRANGE_PYTHON"); set != nullptr && *set != '\0') return set;
  std::array<char, 4096> self;
  const ssize_t n = ::readlink("/proc/self/exe", self.data(), self.size());
  if (n > 0) {
    std::string folder(self.data(), static_cast<std::size_t>(n));
    folder.resize(folder.rfind('/') == std::string::npos ? 0 : folder.rfind('/'));
    std::string beside = folder + "/../../.venv/bin/python";
    if (::access(beside.c_str(), X_OK) == 0) return beside;
  }
  return "python3";
}

PythonCheck check_python(const std::string& interpreter, const std::string& python_path) {
  PythonCheck check;
  const char* inherited = std::getenv("PATH");
  const std::string path = inherited != nullptr ? inherited : std::string(kPath);
  const auto program = find_program(interpreter, path, "");
  if (!program) {
    check.note = "Python tasks are not offered: " + program.error().message +
                 ". Install Python 3, or name one with GRANGE_PYTHON.";
    return check;
  }
  ChildSpec spec;
  spec.program = *program;
  spec.argv = {interpreter, "-c", "import platform, cloudpickle, grange.runner; print(platform.python_version())"};
  spec.env = {"PATH=" + path, "LANG=C.UTF-8"};
  if (!python_path.empty()) spec.env.push_back("PYTHONPATH=" + python_path);
  const auto answer = run_bounded(spec, Millis(15'000));
  if (answer && answer->ended && answer->exit_code == 0) {
    const std::size_t end = answer->out.find_last_not_of("\r\n ");
    check.version = answer->out.substr(0, end == std::string::npos ? 0 : end + 1);
    check.interpreter = *program;
    if (check.ok()) return check;
  }
  std::string why = "it did not answer in time";
  if (!answer) {
    why = answer.error().message;
  } else if (answer->ended) {
    const std::size_t end = answer->err.find_last_not_of("\r\n ");
    why = answer->err.substr(0, end == std::string::npos ? 0 : end + 1);
    if (const std::size_t line = why.rfind('\n'); line != std::string::npos) why = why.substr(line + 1);
  }
  check.note = "Python tasks are not offered: " + *program + " cannot import grange and cloudpickle (" +
               why.substr(0, 300) + "). Run `./dev build`, or set GRANGE_PYTHON to an interpreter that has both.";
  return check;
}

}  // namespace grange::worker
