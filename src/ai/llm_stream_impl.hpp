// The inside of LlmStream: what an answer has come to so far, whatever its form.
#pragma once

#include <map>

#include "ai/json.hpp"
#include "ai/llm_stream.hpp"
#include "wire/sse.hpp"

namespace grange::ai {

class LlmStream::Impl {
 public:
  Impl(Dialect dialect, LlmOp op, bool streamed, Micros started, Keep keep);
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  void status(int http_status) { status_ = http_status; }
  void feed(std::string_view bytes, Micros at, std::vector<LlmEvent>& events);
  void end(Micros at, std::vector<LlmEvent>& events);

  bool ended() const { return ended_; }
  bool failed() const { return failed_; }
  bool begun() const { return first_.has_value(); }
  const LlmResult& result() const { return result_; }
  std::size_t held() const;

 private:
  struct Call {
    std::string id, name, arguments;
    std::size_t size() const { return id.size() + name.size() + arguments.size(); }
  };
  enum class Form { unknown, lines, sse, body };

  void take(std::string_view bytes);
  void whole_body(std::string_view text);
  void sse_event(std::string_view data);
  void object_text(std::string_view text);

  void ollama(const json::object& from);
  void ollama_figures(const json::object& from);
  void openai(const json::object& from);
  void openai_choice(const json::object& choice);
  void openai_calls(const json::array& calls);
  void native_last(const json::object& from);
  void usage(const json::object& from);
  void timings(const json::object& from);
  void embeddings(const json::object& from);
  bool embedding(const json::value& from);

  void add(LlmEvent::Type type, std::string_view text);
  void token();  // something that a model wrote has come
  void give_calls();
  void done();
  void fail(std::string_view text);
  void fail_plainly(std::string sentence);
  void close();  // figures that need the end

  Dialect dialect_;
  LlmOp op_;
  bool streamed_;
  Micros started_;
  Keep keep_;
  int status_ = 200;
  Form form_ = Form::unknown;

  wire::LineSplitter lines_{kLlmLineBytes};
  wire::SseParser sse_;
  std::string body_;

  Micros now_{};
  std::vector<LlmEvent>* events_ = nullptr;  // of the call under way
  std::optional<Micros> first_, last_;
  std::optional<std::uint64_t> prompt_ns_, gen_ns_;
  std::optional<double> engine_rate_;
  std::map<std::uint64_t, Call> calls_;
  std::size_t given_ = 0;  // calls
  std::size_t bytes_ = 0;  // of all text kept
  bool counted_ = false;   // by `usage`, which `timings` do not overrule
  bool finished_ = false;  // the model is; the stream may go on with figures
  bool ended_ = false;
  bool failed_ = false;
  LlmResult result_;
};

}  // namespace grange::ai
