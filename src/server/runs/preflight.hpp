// Which machines a race runs on: what each could do of it, and why some are left out. Pure.
#pragma once

#include "server/runs/run_spec.hpp"

namespace grange::server {

// A worker as it is known now.
struct WorkerFacts {
  WorkerNo worker;
  std::string id, name;
  bool connected = false, draining = false, quarantined = false;
  std::uint32_t running = 0;  // tasks
  pb::Manifest manifest;
};

// Who can serve the run at all, and Ollama's "x" is "x:latest".
bool serves(const RunSpec& spec, const pb::Service& service);
bool same_model(std::string_view asked, std::string_view have);

struct MachineCheck {
  WorkerNo worker{};
  RunMachine machine;
  bool reachable = false, engine = false, model = false;
  bool mock = false;            // a mock would answer
  std::string fit = "UNKNOWN";  // GOOD | RISK | FAIL | UNKNOWN, at the context of the run
  std::uint32_t context = 0;
  std::uint32_t good_context = 0, max_context = 0;  // the largest that are GOOD, and that do not FAIL; 0: not known
  json::object numbers;                             // behind it
  std::string service, quantization, digest;
  std::vector<std::string> warnings;
  std::string problem;  // why it is left out; or, when it is chosen all the same, what was overruled
  bool chosen = false;
};

struct Preflight {
  std::vector<MachineCheck> machines;
  std::vector<std::string> warnings;  // of the run as a whole
  std::string unknown;                // a sentence on names that no worker has; "": all are known
  std::vector<const MachineCheck*> chosen() const;
};

// invalid_argument: there is nothing to run on; the sentence says why, machine by machine.
Preflight preflight(const RunSpec& spec, const std::vector<WorkerFacts>& workers);
Result<> anything_left(const RunSpec& spec, const Preflight& preflight);
json::object preflight_json(const RunSpec& spec, const Preflight& preflight);

}  // namespace grange::server
