// Primes, matrix products, memory and disk: what a race tells a machine's worth by.
#pragma once

#include <boost/json/object.hpp>
#include <string>
#include <vector>

#include "compute/disk.hpp"
#include "compute/gemm.hpp"
#include "compute/memory.hpp"
#include "compute/primes.hpp"
#include "worker/engines/engines.hpp"

namespace grange::worker {

// What one task asks for: the job's spec, with what its argument says instead.
struct ComputeTask {
  std::string op;         // primes | gemm | memory | disk
  std::string algorithm;  // of primes; gemm: double | single; else empty
  std::uint64_t n = 0;    // with the op's own in place of 0
  unsigned threads = 1;
  Micros interval = std::chrono::seconds(1);  // between two lines of progress
};

// `argument`: a JSON object with any of op, algorithm, n, threads, progress_interval_s; or nothing. cpus_milli: of the
// task.
Result<ComputeTask> read_compute(const pb::ComputeSpec& spec, std::string_view argument, std::uint32_t cpus_milli);

struct ComputeOutcome {
  boost::json::object value;
  std::vector<std::string> summary;  // lines for people
  std::string wrong;                 // the result is not what it must be: why
};

// Runs to the end on the calling thread and those that it asks for.
Result<ComputeOutcome> run_compute(const ComputeTask& task, const std::string& folder, Bytes memory,
                                   compute::Control& control);

// Lines as people see them.
std::string first_line(const ComputeTask& task);
std::string progress_line(const ComputeTask& task, const compute::Control::Progress& progress);
std::string short_count(double count);  // 1.4M

// folder: for scratch files.
std::unique_ptr<Engine> make_compute_engine(net::Loop& loop, EngineHost& host, std::string folder);

}  // namespace grange::worker
