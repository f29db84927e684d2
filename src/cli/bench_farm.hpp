// The farm that a benchmark measures: one of its own in a scratch folder, or one that is there already; and what it ran
// on.
#pragma once

#include <sys/types.h>

#include <boost/json/value.hpp>
#include <string>
#include <vector>

#include "cli/context.hpp"

namespace grange::cli {

struct BenchOptions {
  std::int64_t count = 0;
  std::string engine = "builtin", op = "noop", scratch, python;
  int workers = 2, slots = 1, repeat = 5;
  std::int64_t batch = 0;  // tasks in one submit; 0: all
};

class BenchFarm {
 public:
  // Starts `grange up` on free ports unless the context names a server. Throws Exit.
  BenchFarm(const Context& context, const BenchOptions& options);
  ~BenchFarm();  // ends it by its process id, and removes its folder
  BenchFarm(const BenchFarm&) = delete;
  const std::string& url() const { return url_; }
  std::string ws_url() const;  // of the main port
  const std::string& token() const { return token_; }
  bool own() const { return pid_ > 0; }
  // commit, cpu, cores and settings: what makes a figure worth something.
  void describe(boost::json::object& figure, const BenchOptions& options) const;

 private:
  void start(const BenchOptions& options);
  void end();
  std::string url_, token_, folder_, filesystem_;
  pid_t pid_ = -1;
};

// The Python that has the grange package: --python, GRANGE_PYTHON, the project's .venv beside the binary, VIRTUAL_ENV,
// python3.
std::string find_python(const std::string& given);

boost::json::object bench_tasks(const BenchFarm& farm, const BenchOptions& options);
boost::json::object bench_latency(const BenchFarm& farm, const BenchOptions& options);
boost::json::object bench_submit(const BenchFarm& farm, const BenchOptions& options);
boost::json::object bench_python(const BenchFarm& farm, const BenchOptions& options, const std::string& what);

// Adds p50_ms, p90_ms, p99_ms and max_ms.
void percentiles(boost::json::object& figure, std::vector<double> ms);

}  // namespace grange::cli
