#include <algorithm>
#include <charconv>

#include "worker/resources.hpp"

namespace grange::worker {

namespace {

std::string_view trim(std::string_view text) {
  const char* const blank = " \t\r\n";
  const std::size_t from = text.find_first_not_of(blank);
  if (from == std::string_view::npos) return {};
  return text.substr(from, text.find_last_not_of(blank) - from + 1);
}

template <class T>
std::optional<T> number(std::string_view text) {
  text = trim(text);
  T out{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return out;
}

// Calls each(line) until it answers true.
template <class Each>
void lines(std::string_view text, Each each) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    if (each(text.substr(0, end))) return;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

}  // namespace

std::optional<std::uint32_t> parse_cpu_max(std::string_view text) {
  text = trim(text);
  const std::size_t space = text.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  return parse_cfs_quota(text.substr(0, space), text.substr(space + 1));
}

std::optional<std::uint32_t> parse_cfs_quota(std::string_view quota_text, std::string_view period_text) {
  const auto quota = number<std::int64_t>(quota_text), period = number<std::int64_t>(period_text);
  if (!quota || !period || *quota <= 0 || *period <= 0 || *quota > INT64_MAX / 1000)
    return std::nullopt;  // v1 says -1 for none
  return static_cast<std::uint32_t>(std::clamp<std::int64_t>(*quota * 1000 / *period, 1, 1'000'000));
}

std::optional<Bytes> parse_memory_limit(std::string_view text) {
  const auto bytes = number<std::uint64_t>(text);
  if (!bytes || *bytes == 0 || *bytes >= (std::uint64_t{1} << 62)) return std::nullopt;
  return bytes;
}

std::optional<Bytes> parse_meminfo(std::string_view text, std::string_view field) {
  std::optional<Bytes> out;
  lines(text, [&](std::string_view line) {
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos || line.substr(0, colon) != field) return false;
    std::string_view rest = trim(line.substr(colon + 1));
    if (rest.size() > 3 && rest.substr(rest.size() - 3) == " kB") rest.remove_suffix(3);
    if (const auto kib = number<std::uint64_t>(rest)) out = *kib * KiB;
    return true;
  });
  return out;
}

std::string parse_cpu_model(std::string_view cpuinfo) {
  std::string out;
  lines(cpuinfo, [&](std::string_view line) {
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) return false;
    const std::string_view key = trim(line.substr(0, colon));
    if (key != "model name" && key != "Model" && key != "cpu model") return false;
    out = std::string(trim(line.substr(colon + 1)));
    return key == "model name";
  });
  return out;
}

std::string parse_os_name(std::string_view os_release) {
  std::string out;
  lines(os_release, [&](std::string_view line) {
    constexpr std::string_view key = "PRETTY_NAME=";
    if (line.substr(0, key.size()) != key) return false;
    std::string_view value = trim(line.substr(key.size()));
    if (value.size() >= 2 && value.front() == '"' && value.back() == '"') value = value.substr(1, value.size() - 2);
    out = std::string(value);
    return true;
  });
  return out;
}

std::vector<GpuInfo> parse_nvidia_smi(std::string_view csv) {
  std::vector<GpuInfo> out;
  lines(csv, [&](std::string_view line) {
    const std::size_t last = line.rfind(','),
                      middle = last == std::string_view::npos ? last : line.rfind(',', last - 1);
    if (middle == std::string_view::npos || middle == 0) return false;
    std::string_view memory = trim(line.substr(middle + 1, last - middle - 1));
    if (memory.size() > 4 && memory.substr(memory.size() - 4) == " MiB") memory.remove_suffix(4);
    const auto mib = number<std::uint64_t>(memory);
    GpuInfo gpu{std::string(trim(line.substr(0, middle))), std::string(trim(line.substr(last + 1))), 0};
    if (!mib || gpu.name.empty() || gpu.uuid.rfind("GPU-", 0) != 0) return false;
    gpu.memory = *mib * MiB;
    out.push_back(std::move(gpu));
    return false;
  });
  return out;
}

std::optional<std::string> parse_own_cgroup(std::string_view text, std::string_view controller) {
  std::optional<std::string> out;
  lines(text, [&](std::string_view line) {
    const std::size_t first = line.find(':'),
                      second = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second == std::string_view::npos) return false;
    std::string_view names = line.substr(first + 1, second - first - 1);
    bool ours = names.empty() && controller.empty();
    while (!names.empty() && !ours) {
      const std::size_t comma = std::min(names.find(','), names.size());
      ours = !controller.empty() && names.substr(0, comma) == controller;
      names.remove_prefix(std::min(comma + 1, names.size()));
    }
    if (ours) out = std::string(line.substr(second + 1));
    return ours;
  });
  return out;
}

std::optional<std::uint64_t> parse_counter(std::string_view text, std::string_view name) {
  std::optional<std::uint64_t> out;
  lines(text, [&](std::string_view line) {
    if (line.size() <= name.size() || line.substr(0, name.size()) != name || line[name.size()] != ' ') return false;
    out = number<std::uint64_t>(line.substr(name.size() + 1));
    return true;
  });
  return out;
}

CpuTicks parse_cpu_ticks(std::string_view proc_stat) {
  CpuTicks out;
  std::string_view line = proc_stat.substr(0, std::min(proc_stat.find('\n'), proc_stat.size()));
  if (line.substr(0, 4) != "cpu ") return out;
  line.remove_prefix(4);
  for (int field = 0; field < 8; ++field) {  // user nice system idle iowait irq softirq steal; guest is in user already
    line = trim(line);
    const std::size_t end = std::min(line.find(' '), line.size());
    const std::uint64_t ticks = number<std::uint64_t>(line.substr(0, end)).value_or(0);
    out.total += ticks;
    if (field != 3 && field != 4) out.busy += ticks;
    line.remove_prefix(end);
  }
  return out;
}

std::uint32_t usable_cores(std::uint32_t affinity, std::optional<std::uint32_t> quota_milli) {
  affinity = std::max(affinity, 1u);
  if (!quota_milli) return affinity;
  return std::clamp((*quota_milli + 999) / 1000, 1u, affinity);
}

}  // namespace grange::worker
