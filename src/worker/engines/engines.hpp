// The engines of AI work. Each answers on the loop's thread; threads of its own, if any, stay inside.
#pragma once

#include "base/clock.hpp"
#include "worker/blobs.hpp"
#include "worker/engine.hpp"
#include "worker/services/services.hpp"

namespace grange::worker {

// What they are given; all of it outlives them.
struct EngineContext {
  net::Loop& loop;
  EngineHost& host;
  Blobs& blobs;
  net::HttpClient& http;
  Services& services;
  const Clock& clock;
  std::string folder;  // for scratch files
  std::string server_url, token;
  std::function<Bytes()> inline_limit;  // above it a result goes as a blob
};

std::unique_ptr<Engine> make_compute_engine(const EngineContext& context);
std::unique_ptr<Engine> make_llm_engine(const EngineContext& context);
std::unique_ptr<Engine> make_image_engine(const EngineContext& context);
std::unique_ptr<Engine> make_remote_engine(const EngineContext& context);
std::unique_ptr<Engine> make_models_engine(const EngineContext& context);

// With other times than people's: for tests.
struct ComfyTimes;
struct RemoteTimes;
std::unique_ptr<Engine> make_image_engine(const EngineContext& context, const ComfyTimes& times);
std::unique_ptr<Engine> make_remote_engine(const EngineContext& context, const RemoteTimes& times);

}  // namespace grange::worker
