// How busy this machine is: network, disks, temperature, GPUs. Parsers are pure functions on text; LoadMeter reads the
// machine and turns counters into rates.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/clock.hpp"
#include "grange/v1/wire.pb.h"
#include "worker/resources.hpp"

namespace grange::worker {

struct ByteCounts {
  std::uint64_t in = 0, out = 0;  // received and sent, or read and written
};
// /proc/net/dev: of the interfaces that lead out of the machine. nullopt: it has none.
std::optional<ByteCounts> parse_net_dev(std::string_view text);
// /proc/diskstats: of whole disks, not of their partitions nor of what lies upon them. nullopt: it has none.
std::optional<ByteCounts> parse_diskstats(std::string_view text);
// Millidegrees, as sensors of /sys say it. nullopt: no number, or none that a processor can have.
std::optional<double> parse_millidegrees(std::string_view text);

struct GpuLoadLook {
  std::string uuid;
  std::optional<double> percent, temperature_c;
  std::optional<Bytes> memory_used;
};
// nvidia-smi --query-gpu=uuid,utilization.gpu,memory.used,temperature.gpu --format=csv,noheader,nounits. What the
// driver does not know ("[N/A]") stays unset.
std::vector<GpuLoadLook> parse_nvidia_load(std::string_view csv);

// Counters since some start as bytes a second between two looks. A counter that went back (a disk was changed) starts
// anew.
class Rate {
 public:
  std::optional<ByteCounts> next(std::optional<ByteCounts> now, Instant at);

 private:
  std::optional<ByteCounts> last_;
  Instant at_{};
};

// Sensors of the processor below a folder like /sys: the hottest counts.
std::optional<double> processor_temperature(const std::string& sys);

class LoadMeter {
 public:
  explicit LoadMeter(std::vector<GpuInfo> gpus);
  ~LoadMeter();
  LoadMeter(const LoadMeter&) = delete;
  LoadMeter& operator=(const LoadMeter&) = delete;
  void fill(grange::v1::Heartbeat& beat, Instant now);

 private:
  void watch_gpus();

  const std::vector<GpuInfo> gpus_;
  Rate network_, disks_;
  // nvidia-smi takes its time: a thread of its own asks it, and heartbeats say what it said last.
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<GpuLoadLook> seen_;
  bool wanted_ = false, ending_ = false;
  std::thread watcher_;
};

}  // namespace grange::worker
