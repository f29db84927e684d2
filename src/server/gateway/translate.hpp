// Ollama's dialect for models that live on services which speak only OpenAI's: the question one way, the answer the
// other. Pure.
#pragma once

#include <boost/json/object.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "ai/llm_stream.hpp"
#include "server/gateway/dialect.hpp"

namespace grange::server::gateway {

// A question in Ollama's words, read.
struct OllamaCall {
  enum class Kind { chat, generate, embed, embeddings, show };
  Kind kind = Kind::chat;
  ai::LlmCall call;    // what is asked of the service
  bool loads = false;  // nothing to answer to: the model is only to be in memory
};
Result<OllamaCall> read_ollama(const Passed& route, std::string_view body);

// What a service that speaks OpenAI's dialect is asked instead.
ai::LlmHttp asked_of(const OllamaCall& call, std::string_view kind, std::string_view model);

// The answer of that service as Ollama would have given it.
class OllamaAnswer {
 public:
  OllamaAnswer(const OllamaCall& call, std::string_view service_kind, std::string model, bool streamed, Micros started);

  struct Piece {
    std::string bytes;    // whole lines; not streamed: the whole answer, at its end
    std::string failure;  // it said, in its own words, that it cannot go on
  };
  Piece feed(std::string_view bytes, Micros at, WallMs wall);
  Piece end(Micros at, WallMs wall);
  bool over() const { return stream_.ended(); }
  bool streamed() const { return streamed_; }
  Bytes held() const { return stream_.held(); }

 private:
  Piece told(std::vector<ai::LlmEvent> events, WallMs wall);
  boost::json::object piece(WallMs wall) const;
  boost::json::object last(WallMs wall) const;
  boost::json::object vectors() const;

  OllamaCall::Kind kind_;
  ai::LlmOp op_;
  std::string model_;
  bool streamed_;
  ai::LlmStream stream_;
};

// What needs no service: a model that is to be loaded, and what is known of one.
std::string loaded_answer(const OllamaCall& call, std::string_view model, WallMs wall);
std::string show_answer(const pb::Model& model, WallMs modified);
boost::json::object ollama_details(const pb::Model& model);

}  // namespace grange::server::gateway
