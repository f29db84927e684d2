#include "worker/load.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>

#include "worker/spawn.hpp"

namespace grange::worker {
namespace {

std::vector<std::string_view> words_of(std::string_view line, char between = ' ') {
  std::vector<std::string_view> out;
  while (!line.empty()) {
    const std::size_t end = std::min(line.find(between), line.size());
    std::string_view word = line.substr(0, end);
    while (!word.empty() && (word.front() == ' ' || word.front() == '\t')) word.remove_prefix(1);
    while (!word.empty() && (word.back() == ' ' || word.back() == '\r')) word.remove_suffix(1);
    if (!word.empty() || between != ' ') out.push_back(word);
    line.remove_prefix(std::min(end + 1, line.size()));
  }
  return out;
}

template <class T>
std::optional<T> as_number(std::string_view text) {
  T out{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return out;
}

bool leads_out(std::string_view interface) {
  for (const std::string_view inside :
       {"lo", "veth", "docker", "br-", "virbr", "vnet", "tap", "tun", "cni", "flannel"}) {
    if (interface == inside || (inside != "lo" && interface.starts_with(inside))) return false;
  }
  return !interface.empty();
}

bool whole_disk(std::string_view name) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  for (const std::string_view kind : {"sd", "hd", "vd", "xvd"}) {
    if (name.starts_with(kind)) return !digit(name.back());
  }
  for (const std::string_view kind : {"nvme", "mmcblk"}) {
    if (name.starts_with(kind)) return name.find('p', kind.size()) == std::string_view::npos;
  }
  return false;
}

}  // namespace

std::optional<ByteCounts> parse_net_dev(std::string_view text) {
  std::optional<ByteCounts> out;
  for (const std::string_view line : words_of(text, '\n')) {
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos || !leads_out(line.substr(0, colon))) continue;
    const auto fields = words_of(line.substr(colon + 1));
    if (fields.size() < 9) continue;
    const auto in = as_number<std::uint64_t>(fields[0]), sent = as_number<std::uint64_t>(fields[8]);
    if (!in || !sent) continue;
    if (!out) out.emplace();
    out->in += *in;
    out->out += *sent;
  }
  return out;
}

std::optional<ByteCounts> parse_diskstats(std::string_view text) {
  constexpr std::uint64_t kSector = 512;  // whatever the disk's own is
  std::optional<ByteCounts> out;
  for (const std::string_view line : words_of(text, '\n')) {
    const auto fields = words_of(line);
    if (fields.size() < 10 || !whole_disk(fields[2])) continue;
    const auto read = as_number<std::uint64_t>(fields[5]), written = as_number<std::uint64_t>(fields[9]);
    if (!read || !written) continue;
    if (!out) out.emplace();
    out->in += *read * kSector;
    out->out += *written * kSector;
  }
  return out;
}

std::optional<double> parse_millidegrees(std::string_view text) {
  const auto words = words_of(text.substr(0, text.find('\n')));
  const auto n = words.size() == 1 ? as_number<std::int64_t>(words[0]) : std::nullopt;
  if (!n || *n <= 0 || *n > 150'000) return std::nullopt;
  return static_cast<double>(*n) / 1000;
}

std::vector<GpuLoadLook> parse_nvidia_load(std::string_view csv) {
  std::vector<GpuLoadLook> out;
  for (const std::string_view line : words_of(csv, '\n')) {
    const auto fields = words_of(line, ',');
    if (fields.size() != 4 || !fields[0].starts_with("GPU-")) continue;
    GpuLoadLook one{.uuid = std::string(fields[0]), .percent = {}, .temperature_c = {}, .memory_used = {}};
    if (const auto n = as_number<std::uint32_t>(fields[1]); n && *n <= 100) one.percent = *n;
    if (const auto n = as_number<std::uint64_t>(fields[2]); n && *n < (std::uint64_t{1} << 40))
      one.memory_used = *n * MiB;
    if (const auto n = as_number<std::uint32_t>(fields[3]); n && *n <= 200) one.temperature_c = *n;
    out.push_back(std::move(one));
  }
  return out;
}

std::optional<ByteCounts> Rate::next(std::optional<ByteCounts> now, Instant at) {
  const auto before = std::exchange(last_, now);
  const double seconds = static_cast<double>((at - std::exchange(at_, at)).count()) / 1e6;
  if (!before || !now || seconds <= 0 || now->in < before->in || now->out < before->out) return std::nullopt;
  const auto rate = [seconds](std::uint64_t more) {
    return static_cast<std::uint64_t>(std::llround(static_cast<double>(more) / seconds));
  };
  return ByteCounts{rate(now->in - before->in), rate(now->out - before->out)};
}

std::optional<double> processor_temperature(const std::string& sys) {
  namespace fs = std::filesystem;
  std::optional<double> hottest;
  const auto look = [&](const fs::path& file) {
    const auto one = parse_millidegrees(read_text(file.string(), 64));
    if (one && (!hottest || *one > *hottest)) hottest = one;
  };
  const auto is_one_of = [](std::string name, std::initializer_list<std::string_view> names) {
    while (!name.empty() && name.back() == '\n') name.pop_back();
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  std::error_code ec;
  for (const auto& chip : fs::directory_iterator(sys + "/class/hwmon", ec)) {
    if (!is_one_of(read_text((chip.path() / "name").string(), 64), {"coretemp", "k10temp", "zenpower", "cpu_thermal"}))
      continue;
    std::error_code inner;
    for (const auto& file : fs::directory_iterator(chip.path(), inner)) {
      const std::string name = file.path().filename().string();
      if (name.starts_with("temp") && name.ends_with("_input")) look(file.path());
    }
  }
  if (hottest) return hottest;
  for (const auto& zone : fs::directory_iterator(sys + "/class/thermal", ec)) {
    if (is_one_of(read_text((zone.path() / "type").string(), 64),
                  {"x86_pkg_temp", "cpu-thermal", "cpu_thermal", "soc-thermal", "soc_thermal"}))
      look(zone.path() / "temp");
  }
  return hottest;
}

LoadMeter::LoadMeter(std::vector<GpuInfo> gpus) : gpus_(std::move(gpus)) {
  if (!gpus_.empty()) watcher_ = std::thread([this] { watch_gpus(); });
}

LoadMeter::~LoadMeter() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wake_.notify_all();
  if (watcher_.joinable()) watcher_.join();
}

void LoadMeter::watch_gpus() {
  const auto program = find_program("nvidia-smi", kPath, "");
  if (!program) return;
  ChildSpec spec;
  spec.program = *program;
  spec.argv = {"nvidia-smi", "--query-gpu=uuid,utilization.gpu,memory.used,temperature.gpu",
               "--format=csv,noheader,nounits"};
  spec.env = {"PATH=" + std::string(kPath), "LANG=C.UTF-8"};
  std::unique_lock lock(mutex_);
  while (!ending_) {
    lock.unlock();
    const auto answer = run_bounded(spec, Millis(2000));
    auto seen =
        answer && answer->ended && answer->exit_code == 0 ? parse_nvidia_load(answer->out) : std::vector<GpuLoadLook>();
    lock.lock();
    seen_ = std::move(seen);
    wanted_ = false;
    wake_.wait(lock, [this] { return wanted_ || ending_; });
  }
}

void LoadMeter::fill(grange::v1::Heartbeat& beat, Instant now) {
  if (const auto rate = network_.next(parse_net_dev(read_text("/proc/net/dev")), now)) {
    beat.set_network_in_bytes_per_s(rate->in);
    beat.set_network_out_bytes_per_s(rate->out);
  }
  if (const auto rate = disks_.next(parse_diskstats(read_text("/proc/diskstats")), now)) {
    beat.set_disk_read_bytes_per_s(rate->in);
    beat.set_disk_write_bytes_per_s(rate->out);
  }
  if (const auto hottest = processor_temperature("/sys")) beat.set_temperature_c(*hottest);
  if (gpus_.empty()) return;
  const std::lock_guard lock(mutex_);
  for (const GpuInfo& gpu : gpus_) {
    auto& load = *beat.add_gpus();
    const auto seen = std::find_if(seen_.begin(), seen_.end(), [&](const auto& one) { return one.uuid == gpu.uuid; });
    if (seen == seen_.end()) continue;
    if (seen->percent) load.set_percent(*seen->percent);
    if (seen->memory_used) load.set_memory_used_bytes(*seen->memory_used);
    if (seen->temperature_c) load.set_temperature_c(*seen->temperature_c);
  }
  wanted_ = true;  // for the next beat
  wake_.notify_one();
}

}  // namespace grange::worker
