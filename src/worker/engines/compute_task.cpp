// What a compute task is and says; the engine around it is in compute.cpp.
#include <boost/json/parse.hpp>
#include <cmath>
#include <cstdio>

#include "worker/engines/argument.hpp"
#include "worker/engines/compute.hpp"

namespace grange::worker {

namespace {

namespace json = boost::json;

constexpr std::size_t kArgument = 64 * KiB;
constexpr double kExact = 9007199254740992.0;  // 2^53: up to here a double is the whole number that was meant

// 1e10 is a whole number too.
Result<std::uint64_t> whole(const json::value& value, const std::string& key) {
  if (value.is_uint64()) return value.get_uint64();
  if (value.is_int64() && value.get_int64() >= 0) return static_cast<std::uint64_t>(value.get_int64());
  if (value.is_double() && value.get_double() >= 0 && value.get_double() <= kExact &&
      value.get_double() == std::floor(value.get_double()))
    return static_cast<std::uint64_t>(value.get_double());
  return wrong_argument("\"" + key + "\" must be a whole number that is not negative.");
}

Result<> override_fields(ComputeTask& task, std::uint64_t& threads, std::string_view argument) {
  if (argument.size() > kArgument)
    return wrong_argument("The argument of a compute task is a JSON object of at most 64 KiB.");
  json::error_code failed;
  const json::value parsed = json::parse(argument, failed);
  if (failed)
    return wrong_argument("The argument is not JSON: " + failed.message() +
                          ". A compute task takes a JSON object, or nothing.");
  if (parsed.is_null()) return {};
  if (!parsed.is_object()) return wrong_argument("The argument of a compute task is a JSON object, or nothing.");
  for (const auto& [name, value] : parsed.get_object()) {
    const std::string key(name);
    if (key == "op" || key == "algorithm") {
      if (!value.is_string()) return wrong_argument("\"" + key + "\" must be a string.");
      (key == "op" ? task.op : task.algorithm) = std::string(value.get_string());
    } else if (key == "n" || key == "threads") {
      const auto number = whole(value, key);
      if (!number) return number.error();
      (key == "n" ? task.n : threads) = *number;
    } else if (key == "progress_interval_s") {
      json::error_code not_number;
      const double seconds = value.to_number<double>(not_number);
      if (not_number || !(seconds >= 0.05) || seconds > 3600)
        return wrong_argument("\"progress_interval_s\" is 0.05 to 3600.");
      task.interval = Micros{static_cast<std::int64_t>(seconds * 1e6)};
    } else {
      return wrong_argument("A compute task knows no \"" + key +
                            "\"; there are op, algorithm, n, threads and progress_interval_s.");
    }
  }
  return {};
}

std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

using Outcome = Result<ComputeOutcome>;

double rate(double amount, double seconds) {
  return amount / std::max(seconds, 1e-9);
}

Outcome primes(const ComputeTask& task, Bytes memory, compute::Control& control) {
  compute::PrimesOptions options;
  options.algorithm = *compute::primes_algorithm(task.algorithm);
  options.n = task.n;
  options.threads = task.threads;
  options.memory = memory;
  const auto ran = compute::count_primes(options, control);
  if (!ran) return ran.error();
  ComputeOutcome out;
  const double per_s = rate(static_cast<double>(ran->count), ran->seconds);
  out.value["primes_found"] = ran->count;
  out.value["expected"] = ran->expected ? json::value(*ran->expected) : json::value(nullptr);
  out.value["correct"] = ran->expected ? json::value(!ran->wrong()) : json::value(nullptr);
  out.value["wall_seconds"] = ran->seconds;
  out.value["primes_per_s"] = per_s;
  out.value["numbers_per_s"] = rate(static_cast<double>(task.n), ran->seconds);
  out.summary = {"Algorithm: " + task.algorithm, "N: " + std::to_string(task.n),
                 "Primes: " + std::to_string(ran->count), "Rate: " + short_count(per_s) + " primes/s",
                 "Elapsed: " + fixed(ran->seconds, 3) + "s"};
  if (ran->wrong()) {
    out.wrong = task.algorithm + " counted " + std::to_string(ran->count) + " primes up to " + std::to_string(task.n) +
                "; there are " + std::to_string(*ran->expected) +
                ". This machine computes wrongly: look at its memory and its clock rates.";
  }
  return out;
}

Outcome gemm(const ComputeTask& task, Bytes memory, compute::Control& control) {
  compute::GemmOptions options;
  options.n = task.n;
  options.single = task.algorithm == "single";
  options.threads = task.threads;
  options.memory = memory;
  const auto ran = compute::gemm(options, control);
  if (!ran) return ran.error();
  ComputeOutcome out;
  out.value["gflops"] = ran->gflops;
  out.value["correct"] = !ran->wrong();
  out.value["wall_seconds"] = ran->seconds;
  out.summary = {"Matrices: " + std::to_string(ran->n) + " x " + std::to_string(ran->n) + ", " + task.algorithm,
                 "Rate: " + fixed(ran->gflops, 1) + " GFLOP/s", "Elapsed: " + fixed(ran->seconds, 3) + "s"};
  if (ran->wrong()) out.wrong = "The product of the matrices is wrong: this machine computes wrongly.";
  return out;
}

Outcome memory_speed(const ComputeTask& task, Bytes memory, compute::Control& control) {
  compute::MemoryOptions options;
  options.n = task.n;
  options.threads = task.threads;
  options.memory = memory;
  const auto ran = compute::memory_speed(options, control);
  if (!ran) return ran.error();
  ComputeOutcome out;
  json::object speeds;
  out.summary = {"Arrays: " + std::to_string(ran->n / MiB) + " MiB"};
  for (std::size_t i = 0; i < ran->gb_per_s.size(); ++i) {
    const std::string kernel(compute::kMemoryKernels[i]);
    speeds[kernel] = ran->gb_per_s[i];
    out.summary.push_back("Rate of " + kernel + ": " + fixed(ran->gb_per_s[i], 2) + " GB/s");
  }
  out.value["gb_per_s"] = std::move(speeds);
  out.value["correct"] = ran->right;
  out.value["wall_seconds"] = ran->seconds;
  out.summary.push_back("Elapsed: " + fixed(ran->seconds, 3) + "s");
  if (!ran->right) out.wrong = "Memory does not hold what was written to it: this machine needs a memory test.";
  return out;
}

Outcome disk(const ComputeTask& task, const std::string& folder, compute::Control& control) {
  compute::DiskOptions options;
  options.folder = folder;
  options.n = task.n;
  const auto ran = compute::disk_speed(options, control);
  if (!ran) return ran.error();
  ComputeOutcome out;
  out.value["n"] = ran->n;
  out.value["mb_per_s"] = json::object{{"write", ran->write_mb_per_s}, {"read", ran->read_mb_per_s}};
  out.value["read_direct"] = ran->direct;
  out.value["correct"] = ran->right;
  out.value["wall_seconds"] = ran->seconds;
  out.summary = {
      "File: " + std::to_string(ran->n / MiB) + " MiB", "Rate of write: " + fixed(ran->write_mb_per_s, 1) + " MB/s",
      "Rate of read: " + fixed(ran->read_mb_per_s, 1) + " MB/s" + (ran->direct ? "" : " (perhaps from memory)"),
      "Elapsed: " + fixed(ran->seconds, 3) + "s"};
  if (!ran->right) out.wrong = "The disk gave back other bytes than were written: do not trust it.";
  return out;
}

}  // namespace

std::string short_count(double count) {
  if (count < 1e3) return fixed(count, 0);
  if (count < 999.95e3) return fixed(count / 1e3, 1) + "K";
  if (count < 999.95e6) return fixed(count / 1e6, 1) + "M";
  return fixed(count / 1e9, 1) + "B";
}

std::string first_line(const ComputeTask& task) {
  if (task.op == "primes") return "Compute: Count primes <= " + std::to_string(task.n);
  if (task.op == "gemm") return "Compute: Multiply matrices of side " + std::to_string(task.n);
  if (task.op == "memory") return "Compute: Memory, " + std::to_string(task.n) + " bytes";
  return "Compute: Disk, " + std::to_string(task.n) + " bytes";
}

std::string progress_line(const ComputeTask& task, const compute::Control::Progress& progress) {
  return "Progress: " + fixed(std::floor(100 * progress.fraction), 0) + "%" +
         (task.op == "primes" ? " | primes: " + short_count(static_cast<double>(progress.found)) : std::string()) +
         " | elapsed: " + fixed(progress.seconds, 1) + "s";
}

Result<ComputeTask> read_compute(const pb::ComputeSpec& spec, std::string_view argument, std::uint32_t cpus_milli) {
  ComputeTask task;
  task.op = spec.op();
  task.algorithm = spec.algorithm();
  task.n = spec.n();
  std::uint64_t threads = spec.threads();
  if (!argument.empty()) {
    if (auto read = override_fields(task, threads, argument); !read) return read.error();
  }
  if (threads == 0) threads = std::max(1u, cpus_milli / 1000);
  if (threads > compute::kMaxThreads)
    return wrong_argument("threads is 1 to " + std::to_string(compute::kMaxThreads) + ", not " +
                          std::to_string(threads) + ".");
  task.threads = static_cast<unsigned>(threads);
  const auto check = [&](std::uint64_t least, std::uint64_t most) -> Result<ComputeTask> {
    if (task.n >= least && task.n <= most) return task;
    return wrong_argument("The n of " + task.op + (task.algorithm.empty() ? "" : " (" + task.algorithm + ")") + " is " +
                          std::to_string(least) + " to " + std::to_string(most) + ", not " + std::to_string(task.n) +
                          ".");
  };
  if (task.op.empty() || task.op == "primes") {
    task.op = "primes";
    if (task.algorithm.empty()) task.algorithm = "segmented_sieve";
    const auto algorithm = compute::primes_algorithm(task.algorithm);
    if (!algorithm)
      return wrong_argument(
          "There is no way \"" + task.algorithm +
          "\" to count primes; there are segmented_sieve, simple_sieve, trial_division and primesieve.");
    return check(1, compute::largest_n(*algorithm));
  }
  if (task.op == "gemm") {
    if (task.algorithm.empty()) task.algorithm = "double";
    if (task.algorithm != "double" && task.algorithm != "single")
      return wrong_argument("The algorithm of gemm is double or single.");
    if (task.n == 0) task.n = compute::kGemmSide;
    return check(1, compute::kGemmLargest);
  }
  if (task.op != "memory" && task.op != "disk")
    return wrong_argument("There is no compute op \"" + task.op + "\"; there are primes, gemm, memory and disk.");
  if (!task.algorithm.empty()) return wrong_argument(task.op + " takes no algorithm.");
  if (task.op == "memory") {
    if (task.n == 0) task.n = compute::kMemoryBytes;
    return check(compute::kMemoryLeast, compute::kMemoryLargest);
  }
  task.threads = 1;
  if (task.n == 0) task.n = compute::kDiskBytes;
  return check(1, compute::kDiskLargest);
}

Result<ComputeOutcome> run_compute(const ComputeTask& task, const std::string& folder, Bytes memory,
                                   compute::Control& control) {
  Outcome ran = task.op == "primes"   ? primes(task, memory, control)
                : task.op == "gemm"   ? gemm(task, memory, control)
                : task.op == "memory" ? memory_speed(task, memory, control)
                                      : disk(task, folder, control);
  if (!ran) return ran;
  json::object value{{"engine", "compute"},
                     {"op", task.op},
                     {"algorithm", task.algorithm.empty() ? json::value(nullptr) : json::value(task.algorithm)},
                     {"n", task.n},
                     {"threads", task.threads}};
  for (auto& [key, field] : ran->value) value.insert_or_assign(key, std::move(field));
  ran->value = std::move(value);
  return ran;
}

}  // namespace grange::worker
