// One look at one service: a few requests, one after the other. Whatever answers must show by its answers that it is of
// the kind that is looked for; a port alone says nothing. On the loop's thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "ai/fit.hpp"
#include "net/http_client.hpp"
#include "worker/services/answers.hpp"

namespace grange::worker {

struct LookTarget {
  std::string kind, url, key;
  bool named = true;  // by a person; false: a usual port is being tried
};

// What is known of models, kept between looks: by name and digest.
using FactsCache = std::map<std::string, ai::ModelFacts>;
std::string facts_key(const pb::Model& model);

struct Looked {
  bool is_it = false;         // a program of this kind answered; what follows is only good then, but the note
  bool silent = false;        // it did not answer in time: it may just be busy
  pb::Service seen;           // state, version, note, parallel, models; no name, no fit
  std::string flavour;        // of an OpenAI-compatible one: "vllm", "lmstudio", or ""
  std::string file;           // llama.cpp: the path of its one model, as it says
  std::uint32_t context = 0;  // llama.cpp: of each slot
};

// Destroyed: nothing is called any more. `done` may destroy it.
class Look {
 public:
  virtual ~Look() = default;
};
std::unique_ptr<Look> look(net::HttpClient& http, LookTarget target, FactsCache& cache,
                           std::function<void(Looked)> done);

}  // namespace grange::worker
