// What people type for times, sizes, tasks and settings.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "base/units.hpp"

namespace grange::cli {

// "90", "90s", "1.5h", "10m", "250ms", "7d", "1h30m". A bare number is seconds.
Result<Millis> parse_duration(std::string_view text);
// "512MiB", "2G", "1.5GiB", "4096": K, M, G, T with or without iB are powers of 1024; KB, MB, GB, TB of 1000.
Result<Bytes> parse_size(std::string_view text);
// A size of memory: a bare number below 1 MiB is refused, since "2" is meant to be 2GiB.
Result<Bytes> parse_memory(std::string_view text);
// "K=V"
Result<std::pair<std::string, std::string>> parse_setting(std::string_view text);

// "7" or "7/3"
struct TaskRef {
  std::string job;
  std::optional<std::uint32_t> index;
};
Result<TaskRef> parse_task(std::string_view text);

// `arguments` of `grange run ...`, cut where its options end: at "--", or at the first word that is neither an option
// nor the value of one. Where the options end, and where the command starts; nullopt: it is not `run`.
std::optional<std::pair<std::size_t, std::size_t>> find_run_command(const std::vector<std::string>& arguments);

// The first word that is not a global option nor its value: the command. Its place, or arguments.size().
std::size_t find_command(const std::vector<std::string>& arguments);

}  // namespace grange::cli
