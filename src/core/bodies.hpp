// The bytes that travel beside the core: opened by the store and by those who asked for them, never by the core.
#pragma once

#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.hpp"
#include "base/units.hpp"
#include "core/types.hpp"

namespace grange::core {

// Arguments of tasks first .. first + sizes.size() - 1, back to back. kBlobSize as a size: the 64 hex characters of a
// blob instead.
struct ArgumentPage {
  static constexpr std::uint32_t kBlobSize = 0xffffffff;
  std::uint32_t first = 0;
  std::vector<std::uint32_t> sizes;
  std::string bytes;
};

struct JobBody {
  std::string id;      // external id; unique. Empty: the job's number
  std::string key;     // idempotency key, or empty
  std::string digest;  // SHA-256 over spec and arguments: tells a repeat from a conflict
  std::string name, user, engine;
  std::string spec;  // wire JobSpec, serialized
  std::vector<ArgumentPage> pages;
  std::vector<std::string> blobs;  // SHA-256 of each blob the job holds on to
  std::string unique;              // uniqueness word, or empty
  Millis unique_for{0};            // 0: while the job has not ended
};

struct ResultBody {
  std::string value;         // inline result, or a pickled exception
  std::string value_sha256;  // or the blob's name
  std::string message;
  std::string traceback;
  std::string exception;      // its type, of a failure of that class
  Stage stage = Stage::none;  // where a failed attempt was
  std::int32_t exit_code = 0;
  std::string files;  // wire FileOut list, serialized as a TaskResult with only `files`; empty: none
  std::vector<std::string> blobs;
  std::uint64_t queued_us = 0, cpu_us = 0, max_rss_bytes = 0;
};

struct CheckpointBody {
  std::string data;
  std::string data_sha256;
};

struct WorkerBody {
  std::string id, name, manifest;
};  // manifest: wire Manifest, serialized

using Body = std::variant<std::monostate, JobBody, ResultBody, CheckpointBody, WorkerBody>;
using Bodies = std::vector<Body>;

}  // namespace grange::core
